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

// Source feeds the objects of a kind from where they are stored, such as a table or a stream of messages: the package
// bridge has some. Of the started clients that have it, one at a time runs it. Another one continues within seconds when
// that client stops, dies, or loses Postgres.
type Source interface {
	// Name identifies the source within its kind: 1 to 255 bytes of UTF-8 without control characters. It is shown in
	// Temporal. A source with another name begins without a position.
	Name() string
	// Run feeds the kind until ctx ends. It must return then, and otherwise only if it cannot continue. [Client.Sources],
	// `delta doctor`, the log and the ErrorHandler show its error, and Run is called again after a second, or ever later,
	// up to a minute. A panic is an error.
	//
	// It is called with the position of the latest written page. It may be called before an earlier call, in another client
	// that was cut off, has returned: nothing that the earlier call writes is accepted any more.
	Run(ctx context.Context, feed *Feed) error
}

// AddSource adds a source of the kind of T, and panics if [AddSourceSafely] returns an error.
func AddSource[T Object](controllers *Controllers, source Source) {
	if err := AddSourceSafely[T](controllers, source); err != nil {
		panic(err)
	}
}

// AddSourceSafely adds a source of the kind of T, whose controller must have been added. It returns an error if the kind
// has no controller, if the controller has an informer (a listing and a source would undo each other's changes), if the
// objects have shards, or if there is a source of the same name. Rows of synced resources of a kind with a source are kept
// for ever, unless a retention is set, as for kinds with complete listings, because deletions could not be detected without
// them.
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

// Feed writes the changes that a [Source] finds. It is for one goroutine, and for one call of Run.
type Feed struct {
	feed   *activities.Feed
	client *Client
	kind   string
	name   string
}

// FeedChange is a change of one object: one of Object, GoneID and Refused is set.
type FeedChange struct {
	// Object is an existing object. If it was deleted explicitly it comes back, as with [Client.Inform], unless Listed is
	// set.
	Object Object
	// Listed is set if a listing has found the object, or the refused one, rather than a change.
	Listed bool
	// GoneID is the id of an object that is gone: its resource is marked deleted, in any state, and finalized if its kind has
	// a [Finalizer].
	GoneID string
	// Refused is an object that the source cannot make; see [Client.Refused].
	Refused *FeedRefusal
}

// FeedRefusal is an object that a source cannot make.
type FeedRefusal struct {
	// ID is that of the object, as far as it is known.
	ID string
	// Err is the reason.
	Err error
}

// FeedPage is a set of changes that are written together.
type FeedPage struct {
	// Changes are in order: if an object occurs several times, the last change counts.
	Changes []FeedChange
	// Position is the source's own: the next call of Run begins with it. Empty keeps the current one.
	Position string
}

// Position returns that of the latest page that any client has written; empty before one.
func (f *Feed) Position() string { return f.feed.Position() }

// Pool returns the client's pool.
func (f *Feed) Pool() *pgxpool.Pool { return f.client.pool }

// Logger returns the client's logger, with the kind and the name of the source.
func (f *Feed) Logger() *slog.Logger {
	return f.client.config.Logger.With("kind", f.kind, "source", f.name)
}

// Installation returns the globally unique id of the database.
func (f *Feed) Installation() string { return f.feed.Installation() }

// Write writes a page with its position in one transaction, all of it or nothing. An invalid object is refused alone
// ([Client.Refused]). If another client runs the source by now, Write fails and writes nothing.
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

// objectID returns the id of the object of a change; empty if it has none, or its methods panic.
func (c FeedChange) objectID() (id string) {
	defer func() { _ = recover() }() // the methods of the object panic: encodeForKind returns that as an error
	switch {
	case c.Refused != nil:
		return c.Refused.ID
	case c.Object != nil:
		return c.Object.ID()
	}
	return c.GoneID
}

// addChange adds a change to a page. An object that breaks a rule is refused.
func (f *Feed) addChange(to *activities.FeedPage, change FeedChange) error {
	switch {
	case change.Refused != nil:
		to.Refused = append(to.Refused, activities.Listed{Params: deltatype.ObjectInformParams{ResourceID: change.Refused.ID}, Err: guardError(change.Refused.Err)})
	case change.Object == nil && change.GoneID == "":
		return errors.New("a FeedChange must have an Object, a Refused, or the id of what is Gone")
	case change.Object == nil:
		to.Gone = append(to.Gone, change.GoneID)
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

// FeedReport is the status that a [Source] reports: [Client.Sources], `delta doctor` and metrics show it.
type FeedReport struct {
	// IsReading reports whether it reads all objects, rather than following changes. Reason is why.
	IsReading bool
	Reason    string
	// CaughtUpTo is the time until which all changes were written: when the oldest unwritten change was made, or now. The
	// time since then is shown as lag, even while the source does not run. Zero keeps the current value.
	CaughtUpTo time.Time
	// BehindBytes and BehindMessages are how much of a log, or how many messages, are still to be read; nil if unknown.
	BehindBytes, BehindMessages *int64
}

// Report sets the status of the source. It replaces the previous one, costs nothing, and is shown within a few seconds. A
// source that reports nothing has no lag.
func (f *Feed) Report(report FeedReport) {
	phase := activities.SourceFollowing
	if report.IsReading {
		phase = activities.SourceReading
	}
	f.feed.Report(activities.SourceReport{
		Phase: phase, Reason: report.Reason, CaughtUpTo: report.CaughtUpTo, BehindBytes: report.BehindBytes, BehindMessages: report.BehindMessages,
	})
}

// BeginListing begins a complete listing. Write each existing object as Listed from here on; changes may be written in
// between.
func (f *Feed) BeginListing(ctx context.Context) error {
	if err := f.feed.BeginListing(ctx); err != nil {
		return fmt.Errorf("delta: source %q of kind %s: %w", f.name, f.kind, schemaError(err))
	}
	return nil
}

// EndListing ends a complete listing. Resources that were not written or informed since BeginListing are marked deleted,
// whatever Work or a command did to them meanwhile, unless they are suspiciously many ([ObjectSettings].MaxDeleted): then
// they are withheld until somebody decides ([Client.Withheld]). If the run ends before EndListing, nothing is deleted. The
// listing is shown as a pass of the kind.
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

// AbortListing ends a complete listing that cannot be completed, and deletes nothing. It is shown as a failed pass.
func (f *Feed) AbortListing(ctx context.Context, why error) { f.feed.AbortListing(ctx, why) }

// IsDeletionApproved reports whether somebody has approved withheld deletions of the kind ([Client.ApproveWithheld]): the
// next complete listing carries them out.
func (f *Feed) IsDeletionApproved(ctx context.Context) (bool, error) {
	approved, err := f.feed.IsDeletionApproved(ctx)
	if err != nil {
		return false, fmt.Errorf("delta: source %q of kind %s: %w", f.name, f.kind, schemaError(err))
	}
	return approved, nil
}

// sourcesOf returns the sources of a kind, as activities call them.
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

// observeSource passes on the failure of a run of a source.
func (c *Client) observeSource(o activities.PassObservation) {
	f := failureOfPass(&o)
	f.Operation = OperationSource
	c.failures.add(f)
}

// startSources starts the workflow of each source of a kind, unless it runs. All clients that have the source may run it,
// whichever starts it.
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
