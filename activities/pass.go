package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

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
	p.progress.Pass = a.beginReport(options, complete)
	if err := p.beginHistory(passCtx); err != nil {
		return fmt.Errorf("informing kind %s: %w", in.Kind, err)
	}
	if complete && p.remember {
		reach, err := p.beginListingClaim(ctx, options.Shard)
		if err != nil {
			return fmt.Errorf("beginning a complete listing of kind %s: %w", in.Kind, err)
		}
		defer reach.release()
		p.listingClaim = reach
	}
	if in.Gone {
		if gone, err := p.isGone(passCtx); err != nil || !gone {
			return err
		}
	}
	if err := p.lookForRefused(passCtx); err != nil {
		return fmt.Errorf("informing kind %s: %w", in.Kind, err)
	}
	if err := p.takeListing(passCtx, p.listObjects(passCtx, options)); err != nil {
		err = p.explainFailure(passCtx, err, timeout)
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
	if p.listingClaim != nil {
		if err := p.deleteMissing(passCtx); err != nil {
			return fmt.Errorf("informing kind %s: %w", in.Kind, err)
		}
	}
	return p.moveCursor(ctx, complete)
}

// endPass notes what the pass came to, has that logged and observed, and returns the error that Temporal is given.
func (p *pass) endPass(ctx context.Context, failure error) error {
	p.endHistory(ctx, failure)
	return p.observeEnd(ctx, failure)
}

// explainFailure adds to the error of a listing what the pass was.
func (p *pass) explainFailure(ctx context.Context, err error, timeout time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("the pass timed out after %s: %w", timeout, err)
	}
	return fmt.Errorf("informing kind %s (%d listed so far): %w", p.in.Kind, p.progress.Listed, err)
}

// listObjects lists what exists outside: nothing of a shard that is gone.
func (p *pass) listObjects(ctx context.Context, options deltatype.InformOptions) <-chan Listed {
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
	listingClaim *listingClaim
	// lagging are the first objects that several passes found stale, and laggards how many there are.
	lagging  []string
	laggards int
	// rehearsed gets what is listed, and nothing is written; nil for a pass that writes.
	rehearsed *[]Listed
	// waiting has a complete listing also delete what waits for Work, or is worked: it is of a source.
	waiting bool
}

// takeListing takes the listing to its end.
func (p *pass) takeListing(ctx context.Context, listing <-chan Listed) error {
	flush := time.NewTicker(informFlushInterval)
	defer flush.Stop()
	beats := time.NewTicker(heartbeatInterval(ctx))
	defer beats.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-beats.C:
			if activity.IsActivity(ctx) {
				activity.RecordHeartbeat(context.WithoutCancel(ctx), p.progress) // see startHeartbeatWith
			}
		case <-flush.C:
			if err := p.writePage(ctx); err != nil {
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
				return p.writePage(ctx)
			}
			if err := p.takeItem(ctx, item); err != nil {
				return err
			}
		}
	}
}

func (p *pass) takeItem(ctx context.Context, item Listed) error {
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
		return p.refuseObject(ctx, item)
	}
	item.Params.Force = p.in.Force
	return p.addToPage(ctx, item.Params)
}
