package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// informPage is how many objects are written at once.
	informPage = 500
	// largestPage is how many they are at most where a kind is synced in larger batches.
	largestPage = 1000
	// largestPageBytes is how large the objects of a page are together, unless one is larger.
	largestPageBytes = 4 << 20
	// informFlush is how long a page waits to fill.
	informFlush = 250 * time.Millisecond
)

// NoInformer is the type of the error of a pass of a kind that lists nothing.
const NoInformer = "delta.NoInformer"

// InformInput says what a pass lists.
type InformInput struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	// Options reach the informer. Where they have neither After nor Cursor, those of the kind are filled in.
	Options deltatype.InformOptions `json:"options,omitzero"`
	// Trigger names the start of the run, by one of the Trigger constants; empty for a workflow that a person started in Temporal.
	Trigger string `json:"trigger,omitempty"`
	// FullListing has everything listed: the kind's cursor is left out.
	FullListing bool `json:"full_listing,omitempty"`
	// Every is the interval of the schedule that started the run, where it has parts of a second; 0 otherwise.
	Every time.Duration `json:"every,omitempty"`
	// ProcessExisting also schedules objects that did not change.
	ProcessExisting bool `json:"process_existing,omitempty"`
	// RunForeground has the run wait until all that it informed has settled.
	RunForeground bool `json:"run_foreground,omitempty"`
	// Force writes what is listed although it is older than what is stored.
	Force bool `json:"force,omitempty"`
	// Named says that the run has the pass list the shard in Options: the controller named it, or, with Gone, no longer does. Then nothing is
	// listed, and what is left of the shard is withheld until somebody has decided.
	Named bool `json:"named,omitempty"`
	Gone  bool `json:"gone,omitempty"`
	// Pass identifies the run, where what it lists has to be remembered.
	Pass string `json:"pass,omitempty"`
}

// Listing says how the listings of a kind are taken.
type Listing struct {
	// Overlap is how far before the cursor the next pass begins, for clocks that differ and objects that show up late.
	Overlap time.Duration
	// Complete says that every listing names all there is, Full that those do which have no cursor: what they leave out is gone.
	Complete, Full bool
	// MostDeleted is how many resources one listing may mark deleted in any case; more than that only up to MostDeletedShare
	// of all of the kind. A share of 1 lets a listing delete everything, also one that names nothing.
	MostDeleted      int
	MostDeletedShare float64
}

// InformProgress counts what a pass has listed so far; it is what heartbeats carry and what the pass returns.
type InformProgress struct {
	// Listed counts objects, Scheduled those that started a new generation, Refused those that break a rule and were not taken.
	Listed    int `json:"listed"`
	Scheduled int `json:"scheduled"`
	Refused   int `json:"refused,omitempty"`
	// Unkept counts those of the refused whose object is not kept: it is too large, Postgres cannot store it, or there are too many.
	Unkept int `json:"unkept,omitempty"`
	// Stale counts those that were older than what is stored, and changed nothing.
	Stale int `json:"stale,omitempty"`
	// Deleted counts resources that a complete listing no longer had.
	Deleted int `json:"deleted,omitempty"`
	// Withheld counts those that were not marked deleted, because somebody has to decide of them first.
	Withheld int64 `json:"withheld,omitempty"`
	// Shards are what the run is to list, where the controller has named them instead.
	Shards *ShardRun `json:"shards,omitempty"`
	// Pass says more of the pass, to people who look at it in Temporal; nil where there was none.
	Pass *PassReport `json:"pass,omitempty"`
}

// Add returns the sum with what another pass of the run came to.
func (p InformProgress) Add(o InformProgress) InformProgress {
	return InformProgress{
		Listed: p.Listed + o.Listed, Scheduled: p.Scheduled + o.Scheduled, Refused: p.Refused + o.Refused, Unkept: p.Unkept + o.Unkept, Stale: p.Stale + o.Stale,
		Deleted: p.Deleted + o.Deleted, Withheld: p.Withheld + o.Withheld, Pass: p.Pass.add(o.Pass),
	}
}

// InformPass lists once what exists outside and writes it in pages. The cursor moves only after a complete pass: one
// that was cut off, by an error, a timeout or the death of the worker, is repeated from where the last complete one
// left it, and finds what it wrote unchanged.
func (a *Activities) InformPass(ctx context.Context, in InformInput) (progress InformProgress, err error) {
	if err := a.check(in.Installation, in.Kind); err != nil {
		return InformProgress{}, err
	}
	if err := a.checkLists(); err != nil {
		return InformProgress{}, a.newPass(ctx, in).refuseRun(ctx, err)
	}
	if a.needsShards(in) {
		return a.nameShards(ctx, in)
	}
	// Beside the progress that the pass reports itself, for when a page has to wait for a lock.
	defer a.heartbeat(ctx)()
	ctx, end := a.beginStep(ctx, PassLists, in)
	p := a.newPass(ctx, in)
	err = p.run(ctx)
	end(p.observed(ctx, err))
	return p.progress, p.end(ctx, err)
}

// newPass is a pass that begins.
func (a *Activities) newPass(ctx context.Context, in InformInput) *pass {
	return &pass{activities: a, in: in, startedAt: time.Now(), logger: a.passLogger(ctx, in)}
}

// run makes the pass.
func (p *pass) run(ctx context.Context) error {
	a, in := p.activities, p.in
	began, err := db.New().Now(ctx, a.Pool)
	if err != nil {
		return fmt.Errorf("informing kind %s: asking the database for the time: %w", in.Kind, err)
	}
	options, err := a.chooseOptions(ctx, in, began)
	if err != nil {
		return err
	}
	complete := in.Gone || a.isComplete(options)
	passCtx, timeout, unlink := a.boundPass(ctx, in, options)
	defer unlink()

	p.began, p.cursor, p.remember = began.UTC(), began.UTC(), in.Pass != "" && (complete || in.RunForeground)
	p.continued = options.After != nil || options.Cursor != ""
	p.progress.Pass = a.report(options, complete)
	if err := p.beginHistory(passCtx); err != nil {
		return fmt.Errorf("informing kind %s: %w", in.Kind, err)
	}
	if complete && p.remember {
		reach, err := p.beginReach(ctx, options.Shard)
		if err != nil {
			return fmt.Errorf("beginning a complete listing of kind %s: %w", in.Kind, err)
		}
		defer reach.end()
		p.reach = reach
	}
	if in.Gone {
		if gone, err := p.isGone(passCtx); err != nil || !gone {
			return err
		}
	}
	if err := p.lookForRefused(passCtx); err != nil {
		return fmt.Errorf("informing kind %s: %w", in.Kind, err)
	}
	if err := p.drain(passCtx, p.list(passCtx, options)); err != nil {
		err = p.explain(passCtx, err, timeout)
		p.cause = err
		if text := err.Error(); len(text) > maxErrorBytes {
			err = errors.New(shorten.Text(text, maxErrorBytes)) // one that Temporal does not take would look like a worker that is gone
		}
		return err
	}
	if err := p.endRefused(passCtx, complete); err != nil {
		return fmt.Errorf("informing kind %s: %w", in.Kind, err)
	}
	p.warnStale()
	if p.reach != nil {
		if err := p.deleteMissing(passCtx); err != nil {
			return fmt.Errorf("informing kind %s: %w", in.Kind, err)
		}
	}
	return p.moveCursor(ctx, complete)
}

// end notes what the pass came to, has that logged and observed, and returns the error that Temporal is given.
func (p *pass) end(ctx context.Context, failure error) error {
	p.endHistory(ctx, failure)
	return p.observeEnd(ctx, failure)
}

// checkLists refuses passes of a kind without an informer.
func (a *Activities) checkLists() error {
	if !a.Handler.ListsNothing() {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("informing kind %s: its controller embeds delta.NoInformer, so it lists nothing", a.Handler.Kind()), NoInformer, nil)
}

// boundPass gives a pass whose informer is given these options its timeout, which is negative for none, and ends it when the client stops.
func (a *Activities) boundPass(
	ctx context.Context, in InformInput, options deltatype.InformOptions,
) (bounded context.Context, timeout time.Duration, end func()) {
	in.Options = a.withEpoch(options)
	timeout = cmp.Or(a.Handler.InformTimeout(in), a.InformTimeout)
	ctx, unlink := a.untilStopped(ctx)
	ctx, cancel := withTimeout(ctx, timeout)
	return ctx, timeout, func() { cancel(); unlink() }
}

// explain adds to the error of a listing what the pass was.
func (p *pass) explain(ctx context.Context, err error, timeout time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("the pass timed out after %s: %w", timeout, err)
	}
	return fmt.Errorf("informing kind %s (%d listed so far): %w", p.in.Kind, p.progress.Listed, err)
}

// list lists what exists outside: nothing of a shard that is gone.
func (p *pass) list(ctx context.Context, options deltatype.InformOptions) <-chan Listed {
	if p.in.Gone {
		none := make(chan Listed)
		close(none)
		return none
	}
	return p.activities.Handler.Inform(ctx, p.activities.withEpoch(options))
}

// pass is one run of a kind's informer.
type pass struct {
	activities *Activities
	in         InformInput
	page       []deltatype.ObjectInformParams
	// bytes is how large the objects of the page are together.
	bytes    int
	progress InformProgress
	// added counts new resources, unchanged those that were left alone.
	added, unchanged int
	refusals         refusals
	// history is the row that the pass has in it.
	history int64
	// startedAt is when the pass began, by the clock of this process.
	startedAt time.Time
	// cause is why the listing failed, with what its error wraps: Temporal is given a text.
	cause error
	// logger has the fields of the pass.
	logger *slog.Logger
	// began is when the pass began, by the clock of the database.
	began time.Time
	// cursor is where the next pass starts: the start of this one, or the latest creation seen where objects tell it.
	cursor  time.Time
	created time.Time
	// position is the informer's own cursor; nil where it gave none.
	position *string
	// continued says that the listing went on from a cursor.
	continued bool
	// remember has what is listed written down.
	remember bool
	// reach bounds what a complete listing may delete; nil for others.
	reach *reach
	// lagging are the first objects that several passes found stale, and laggards how many there are.
	lagging  []string
	laggards int
	// rehearsed gets what is listed, and nothing is written; nil for a pass that writes.
	rehearsed *[]Listed
	// waiting has a complete listing also delete what waits for Work, or is worked: it is of a source.
	waiting bool
}

// drain takes the listing to its end.
func (p *pass) drain(ctx context.Context, listing <-chan Listed) error {
	flush := time.NewTicker(informFlush)
	defer flush.Stop()
	beats := time.NewTicker(beat(ctx))
	defer beats.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-beats.C:
			if activity.IsActivity(ctx) {
				activity.RecordHeartbeat(context.WithoutCancel(ctx), p.progress) // see heartbeatWith
			}
		case <-flush.C:
			if err := p.write(ctx); err != nil {
				return err
			}
		case item, more := <-listing:
			if !more {
				// An informer that closes its channel because the context ended has not listed everything.
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				// A creation in the future is a clock that is wrong: it is not to hide what is created until then.
				if !p.created.IsZero() && p.created.Before(p.cursor) {
					p.cursor = p.created
				}
				return p.write(ctx)
			}
			if err := p.take(ctx, item); err != nil {
				return err
			}
		}
	}
}

func (p *pass) take(ctx context.Context, item Listed) error {
	if item.Fatal {
		return item.Err
	}
	if item.Cursor != nil {
		p.position = item.Cursor
		return nil
	}
	p.progress.Listed++
	if at := item.Params.CreatedAt; item.Err == nil && at != nil && at.After(p.created) {
		p.created = at.UTC()
	}
	switch {
	case p.rehearsed != nil:
		*p.rehearsed = append(*p.rehearsed, item)
		return nil
	case item.Err != nil:
		return p.refuse(ctx, item)
	}
	item.Params.Force = p.in.Force
	return p.addToPage(ctx, item.Params)
}

func (p *pass) addToPage(ctx context.Context, params deltatype.ObjectInformParams) error {
	p.page = append(p.page, params)
	p.bytes += len(params.EncodedObject)
	if len(p.page) < max(informPage, min(p.activities.BatchSize, largestPage)) && p.bytes < largestPageBytes {
		return nil
	}
	return p.write(ctx)
}

// write writes the page.
func (p *pass) write(ctx context.Context) error {
	if err := p.writeRefused(ctx); err != nil || len(p.page) == 0 {
		return err
	}
	options := db.InformOptions{
		DefaultMaxAttempts: p.activities.DefaultMaxAttempts,
		DefaultPriority:    deltatype.PriorityPeriodic,
		ProcessExisting:    p.in.ProcessExisting,
		Pass:               p.reach.claimID(),
	}
	if p.in.ProcessExisting {
		options.DefaultPriority = deltatype.PriorityBackfill
	}
	if p.remember {
		if err := p.record(ctx); err != nil {
			return err
		}
	}
	results, err := p.inform(ctx, p.page, options)
	if err != nil {
		return fmt.Errorf("writing a page of %d: %w", len(p.page), err)
	}
	if err := p.noteListed(ctx, results); err != nil {
		return err
	}
	if err := p.countStale(ctx, results); err != nil {
		return err
	}
	scheduled, taken := 0, make([]string, 0, len(results))
	for _, r := range results {
		if r.Refused != nil {
			if err := p.refuse(ctx, Listed{Params: p.refusedOfPage(r), Err: r.Refused}); err != nil {
				return err
			}
			continue
		}
		taken = append(taken, r.Resource.ObjectID)
		if !r.Scheduled && !r.Stale {
			p.unchanged++
		}
		if r.Scheduled {
			scheduled++
			if !r.AlreadyExists {
				p.added++
			}
		}
	}
	p.progress.Scheduled += scheduled
	p.progress.Pass.Pages++
	if p.activities.Listed != nil {
		p.activities.Listed(results)
	}
	p.page, p.bytes = p.page[:0], 0
	if err := p.forgetTaken(ctx, taken); err != nil {
		return err
	}
	if scheduled > 0 && p.activities.Informed != nil {
		p.activities.Informed(p.in.Kind, scheduled)
	}
	return p.writeRefused(ctx)
}

// refusedOfPage is the object of the page that was refused. An id that is listed twice may be there in two namespaces.
func (p *pass) refusedOfPage(r *deltatype.ObjectInformResult) deltatype.ObjectInformParams {
	isMeant := func(o deltatype.ObjectInformParams) bool {
		moved := new(deltatype.NamespaceError)
		return o.ResourceID == r.Resource.ObjectID && (!errors.As(r.Refused, &moved) || o.Namespace == moved.Given)
	}
	return p.page[slices.IndexFunc(p.page, isMeant)]
}

// inform writes some of the objects of a page. One that Postgres cannot store is refused, and the others are taken.
func (p *pass) inform(
	ctx context.Context, some []deltatype.ObjectInformParams, options db.InformOptions,
) ([]*deltatype.ObjectInformResult, error) {
	results, err := db.InformRetrying(ctx, p.activities.Pool, some, options)
	switch half := len(some) / 2; {
	case err == nil || !isOfOneObject(err):
		return results, err
	case half == 0:
		return nil, p.refuse(ctx, refusedAlone(&some[0], err))
	default:
		first, err := p.inform(ctx, some[:half], options)
		if err != nil {
			return nil, err
		}
		second, err := p.inform(ctx, some[half:], options)
		return append(first, second...), err
	}
}

// isOfOneObject reports whether an error of a set is the fault of objects in it: the others can be taken.
func isOfOneObject(err error) bool {
	cycle := new(deltatype.ParentCycleError)
	return isUnstorable(err) || errors.As(err, &cycle)
}

// refusedAlone is an object that could not be taken by itself. One that Postgres does not store is without its JSON: no version of the controller would make Postgres
// take that.
func refusedAlone(object *deltatype.ObjectInformParams, err error) Listed {
	params := deltatype.ObjectInformParams{ResourceID: object.ResourceID}
	if !isUnstorable(err) {
		params = *object
	}
	return Listed{Params: params, Err: fmt.Errorf("%s/%s: %w", object.Kind, object.ResourceID, err)}
}

// isUnstorable tells of an error that it is the data which Postgres does not take: a number out of its range, say, or too much.
func isUnstorable(err error) bool {
	const dataException, programLimitExceeded = "22", "54"
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, dataException) || strings.HasPrefix(pg.Code, programLimitExceeded))
}
