package delta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

// Source feeds the objects of a kind from where they are kept, as a table or a stream of messages: see the package bridge, which has some. One client
// at a time runs it, of those that are started with it. Another one goes on within seconds when that client stops, dies, or does not reach
// Postgres any longer.
type Source interface {
	// Name tells the sources of a kind from each other. It is 1 to 255 bytes of UTF-8 without control characters, and is shown in Temporal. Under another
	// name it is another source, which begins without a position.
	Name() string
	// Run feeds the kind until ctx ends. It must return then, and otherwise only when it cannot go on: the error is shown by [Client.Sources], `delta
	// doctor`, the log and the ErrorHandler, and Run is called again after a second, or ever later, up to a minute. A panic is an error.
	//
	// It is called with the position of the latest page that was written, and may be called while an earlier call of another client, which is cut off,
	// has not returned yet: of that one, nothing is written any more.
	Run(ctx context.Context, feed *Feed) error
}

// AddSource adds a source of the kind of T, and panics where [AddSourceSafely] returns an error.
func AddSource[T Object](controllers *Controllers, source Source) {
	if err := AddSourceSafely[T](controllers, source); err != nil {
		panic(err)
	}
}

// AddSourceSafely adds a source of the kind of T, which has to have its controller already. It returns an error if the kind has none, if that has an
// informer (a listing and a source would undo each other's words), if the objects have shards, or if there is a source of the same name. Rows of synced
// resources of a kind with a source are kept for ever, unless a retention is set, as those of a kind with complete listings: what is gone
// could not be noticed otherwise.
func AddSourceSafely[T Object](controllers *Controllers, source Source) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("delta: adding a source of %T: Kind and Name must work on zero objects, but panic: %v", *new(T), v)
		}
	}()
	if controllers == nil || controllers.byKind == nil {
		return errors.New("delta: controllers is nil: make it with NewControllers")
	}
	if source == nil {
		return errors.New("delta: the source is nil")
	}
	zero, err := zeroObject[T]()
	if err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	kind, name := zero.Kind(), source.Name()
	r, ok := controllers.byKind[kind]
	_, sharded := any(zero).(ObjectWithShard)
	switch {
	case !ok:
		return fmt.Errorf("delta: source %q of kind %q: the kind has no controller: add that first", name, kind)
	case name == "":
		return fmt.Errorf("delta: source of kind %q: %w", kind, inputError("Name", name, "must not be empty"))
	case checkKey("Name", name) != nil:
		return fmt.Errorf("delta: source of kind %q: %w", kind, checkKey("Name", name))
	case !r.handler.ListsNothing():
		return fmt.Errorf("delta: source %q of kind %q: its controller has an informer, and what that lists would undo what the source says: embed delta.NoInformer", name, kind)
	case sharded:
		return fmt.Errorf("delta: source %q of kind %q: its objects must not have a Shard: a source is for the whole kind", name, kind)
	}
	if _, twice := r.sources[name]; twice {
		return fmt.Errorf("delta: kind %q has a source %q already", kind, name)
	}
	r.sources = maps.Clone(r.sources)
	if r.sources == nil {
		r.sources = map[string]Source{}
	}
	r.sources[name] = source
	controllers.byKind[kind] = r
	return nil
}

// Feed is how a [Source] says what it has found. It is for one goroutine, and for one call of Run.
type Feed struct {
	feed   *activities.Feed
	client *Client
	kind   string
	name   string
}

// FeedChange is what a source says of one object: one of Object, Gone and Refused is set.
type FeedChange struct {
	// Object is one that is there. Where it was deleted explicitly it comes back, as with [Client.Inform], unless it is only Listed.
	Object Object
	// Listed says that a listing has found the object, or the one that is refused, rather than a change.
	Listed bool
	// Gone is the id of an object that is gone: its resource is marked deleted, whatever state it is in, and finalized if its kind has a [Finalizer].
	Gone string
	// Refused is an object that the source cannot make; see [Client.Refused].
	Refused *FeedRefusal
}

// FeedRefusal is an object that a source cannot make.
type FeedRefusal struct {
	// ID is that of the object, as far as it is known.
	ID string
	// Err says why.
	Err error
}

// FeedPage has changes that are written together.
type FeedPage struct {
	// Changes are in their order: of an object that is there several times the last one counts.
	Changes []FeedChange
	// Position is the source's own, and what the next call of Run begins with; empty leaves it as it is.
	Position string
}

// Position is that of the latest page that was written, by any client; empty before one.
func (f *Feed) Position() string { return f.feed.Position() }

// Pool is the client's.
func (f *Feed) Pool() *pgxpool.Pool { return f.client.pool }

// Logger is the client's, with the kind and the name of the source.
func (f *Feed) Logger() *slog.Logger {
	return f.client.config.Logger.With("kind", f.kind, "source", f.name)
}

// Installation identifies the database, among all that there are.
func (f *Feed) Installation() string { return f.feed.Installation() }

// Write writes a page in one transaction, with its position: all of it or nothing. An object that cannot be taken is refused by itself ([Client.Refused]).
// It fails, and nothing is written, if another client runs the source by now.
func (f *Feed) Write(ctx context.Context, page FeedPage) error {
	to := activities.FeedPage{Position: page.Position}
	last, changed := map[string]int{}, map[string]bool{}
	ids := make([]string, len(page.Changes))
	for i, change := range page.Changes {
		ids[i] = change.objectID()
		last[ids[i]] = i
		changed[ids[i]] = changed[ids[i]] || !change.Listed
	}
	for i, change := range page.Changes {
		if ids[i] != "" && last[ids[i]] != i {
			continue
		}
		change.Listed = change.Listed && (ids[i] == "" || !changed[ids[i]])
		if err := f.addChange(&to, change); err != nil {
			return fmt.Errorf("delta: source %q of kind %s: %w", f.name, f.kind, err)
		}
	}
	if err := f.feed.Write(ctx, to); err != nil {
		return fmt.Errorf("delta: source %q of kind %s: %w", f.name, f.kind, schemaError(err))
	}
	return nil
}

// objectID is that of the object of a change; empty where it has none, or cannot be asked.
func (c FeedChange) objectID() (id string) {
	defer func() { _ = recover() }() // the methods of the object panic: encode says so
	switch {
	case c.Refused != nil:
		return c.Refused.ID
	case c.Object != nil:
		return c.Object.ID()
	}
	return c.Gone
}

// addChange adds a change to a page. An object that breaks a rule is refused.
func (f *Feed) addChange(to *activities.FeedPage, change FeedChange) error {
	switch {
	case change.Refused != nil:
		to.Refused = append(to.Refused, activities.Listed{Params: deltatype.ObjectInformParams{ResourceID: change.Refused.ID}, Err: guardError(change.Refused.Err)})
	case change.Object == nil && change.Gone == "":
		return errors.New("a FeedChange must have an Object, a Refused, or the id of what is Gone")
	case change.Object == nil:
		to.Gone = append(to.Gone, change.Gone)
	default:
		params, err := encodeForKind(f.kind, change.Object, nil, f.client.decoderOf(change.Object))
		switch {
		case err != nil:
			to.Refused = append(to.Refused, activities.Listed{Params: deltatype.ObjectInformParams{ResourceID: change.objectID()}, Err: err})
		case change.Listed:
			to.Listed = append(to.Listed, params)
		default:
			to.Live = append(to.Live, params)
		}
	}
	return nil
}

// FeedReport is what a [Source] says of how it stands: [Client.Sources], `delta doctor` and metrics show it.
type FeedReport struct {
	// IsReading reports that it reads all of what there is, rather than taking changes, and Reason says why.
	IsReading bool
	Reason    string
	// CaughtUpTo is until when all that had changed there was written: the time at which the oldest change was made that is not, or now. The time since then is
	// shown as its lag, also while it does not run. Zero leaves it as it was.
	CaughtUpTo time.Time
	// BehindBytes and BehindMessages are how much of a log, or how many messages, are before it; nil for one that does not count them, or cannot at the moment.
	BehindBytes, BehindMessages *int64
}

// Report says how the source stands. It takes the place of the one before, costs nothing, and is shown within a few seconds. A source that reports nothing has no lag.
func (f *Feed) Report(report FeedReport) {
	phase := activities.SourceFollowing
	if report.IsReading {
		phase = activities.SourceReading
	}
	f.feed.Report(activities.SourceReport{
		Phase: phase, Reason: report.Reason, CaughtUpTo: report.CaughtUpTo, BehindBytes: report.BehindBytes, BehindMessages: report.BehindMessages,
	})
}

// BeginListing begins a complete listing. What is there has to be written as Listed from here on, and changes that come meanwhile may be written between.
func (f *Feed) BeginListing(ctx context.Context) error {
	if err := f.feed.BeginListing(ctx); err != nil {
		return fmt.Errorf("delta: source %q of kind %s: %w", f.name, f.kind, schemaError(err))
	}
	return nil
}

// EndListing ends a complete listing. Resources that nothing was written of since BeginListing are marked deleted, unless they are suspiciously many
// ([ObjectSettings].MaxDeleted): then they are withheld until somebody has decided ([Client.Withheld]). A listing whose run ends before deletes
// nothing. It is shown as a pass of the kind.
func (f *Feed) EndListing(ctx context.Context) (*InformRun, error) {
	progress, err := f.feed.EndListing(ctx)
	run := &InformRun{
		Listed: progress.Listed, Scheduled: progress.Scheduled, Refused: progress.Refused, Unkept: progress.Unkept, Stale: progress.Stale, Deleted: progress.Deleted,
		Withheld: progress.Withheld,
	}
	if err != nil {
		return run, fmt.Errorf("delta: source %q of kind %s: %w", f.name, f.kind, schemaError(err))
	}
	return run, nil
}

// AbortListing ends a complete listing that cannot be completed: nothing is deleted. It is shown as a pass that has failed.
func (f *Feed) AbortListing(ctx context.Context, why error) { f.feed.AbortListing(ctx, why) }

// IsDeletionApproved reports whether somebody has approved deletions of the kind that are withheld ([Client.ApproveWithheld]): the next complete listing
// carries them out.
func (f *Feed) IsDeletionApproved(ctx context.Context) (bool, error) {
	approved, err := f.feed.IsDeletionApproved(ctx)
	if err != nil {
		return false, fmt.Errorf("delta: source %q of kind %s: %w", f.name, f.kind, schemaError(err))
	}
	return approved, nil
}

// sourcesOf are the sources of a kind, as activities call them.
func (c *Client) sourcesOf(r registered) map[string]activities.Source {
	all := map[string]activities.Source{}
	for name, source := range r.sources {
		all[name] = func(ctx context.Context, feed *activities.Feed) (err error) {
			defer catchPanic(&err)
			return guardError(source.Run(ctx, &Feed{feed: feed, client: c, kind: r.handler.Kind(), name: name}))
		}
	}
	return all
}

// observeSource hands on that a run of a source has failed.
func (c *Client) observeSource(o activities.PassObservation) {
	f := failureOfPass(&o)
	f.Operation = OperationSource
	c.failures.add(f)
}

// startSources has the workflow of each source of a kind run: whichever client starts it, all that have the source may run it.
func (e *engine) startSources(ctx context.Context, kind string) error {
	if e.client.config.DisableInformers {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.client.config.Controllers.byKind[kind].sources)) {
		in := activities.SourceInput{Installation: e.installation, Kind: kind, Name: name}
		err := retryUnanswered(ctx, func() error {
			_, err := e.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
				ID:                       e.names.sourceWorkflowID(kind, name),
				TaskQueue:                e.names.informTaskQueue(kind),
				WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
				WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
				StaticSummary:            "source " + name + " of " + kind,
			}, workflows.SourceName, in)
			return err
		})
		if err != nil {
			return fmt.Errorf("starting the workflow of source %q: %w", name, err)
		}
	}
	return nil
}
