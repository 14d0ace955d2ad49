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

// newPass returns a pass that begins now.
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
			err = errors.New(shorten.Text(text, maxErrorBytes)) // if Temporal rejected the error as too long, the worker would look lost
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

// endPass notes, logs and observes the end of the pass, and returns the error for Temporal.
func (p *pass) endPass(ctx context.Context, failure error) error {
	p.endHistory(ctx, failure)
	return p.observeEnd(ctx, failure)
}

// explainFailure adds the kind, the progress and a timeout to the error of a listing.
func (p *pass) explainFailure(ctx context.Context, err error, timeout time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("the pass timed out after %s: %w", timeout, err)
	}
	return fmt.Errorf("informing kind %s (%d listed so far): %w", p.in.Kind, p.progress.Listed, err)
}

// listObjects lists the objects outside; none of a shard that is gone.
func (p *pass) listObjects(ctx context.Context, options deltatype.InformOptions) <-chan Listed {
	if p.in.Gone {
		none := make(chan Listed)
		close(none)
		return none
	}
	return p.activities.Handler.Inform(ctx, p.activities.withEpoch(options))
}

// pass is one pass of a kind's informer.
type pass struct {
	activities *Activities
	in         InformInput
	page       []deltatype.ObjectInformParams
	// bytes is the size of the page's objects together.
	bytes    int
	progress InformProgress
	// added counts new resources, unchanged those that stayed as they were.
	added, unchanged int
	refusals         refusals
	// history is the id of the pass in the table of passes.
	history int64
	// startedAt is when the pass began, by this process's clock.
	startedAt time.Time
	// cause is the error of the listing, with the errors that it wraps. Temporal gets its text only.
	cause error
	// logger has the fields of the pass.
	logger *slog.Logger
	// began is when the pass began, by the database's clock.
	began time.Time
	// cursor is where the next pass starts: the start of this one or, where objects have a time of creation, the latest
	// one seen.
	cursor  time.Time
	created time.Time
	// position is the informer's own cursor; nil where it gave none.
	position *string
	// continued reports whether the listing went on from a cursor.
	continued bool
	// remember reports whether to record the listed objects, and recorded counts those that were.
	remember bool
	recorded int64
	// listingClaim bounds what a complete listing may delete; nil for others.
	listingClaim *listingClaim
	// lagging are the first objects that several passes found stale, and laggards counts them.
	lagging  []string
	laggards int
	// rehearsed gets the listed objects, and nothing is written; nil for a pass that writes.
	rehearsed *[]Listed
	// ofSource reports whether it is the listing of a source: that also deletes resources that wait for Work or are
	// worked, and those with an outcome or a command since it began.
	ofSource bool
}

// takeListing takes the listing to its end, and writes its pages.
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
				// If the context ended, the informer may have closed its channel early.
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				// A time of creation in the future comes from a wrong clock. It must not hide objects that are created until then.
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
