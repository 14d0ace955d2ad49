package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// chooseOptions adds the cursor of the kind, or of its shard, unless the pass lists everything or has other options.
func (a *Activities) chooseOptions(ctx context.Context, in InformInput, now time.Time) (deltatype.InformOptions, error) {
	options := in.Options
	if a.Listing.Complete || in.FullListing || options.After != nil || options.Cursor != "" {
		return options, nil
	}
	reached, err := db.New().GetShard(ctx, a.Pool, db.GetShardParams{Kind: in.Kind, Shard: options.Shard})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return options, fmt.Errorf("reading the cursor of kind %s: %w", in.Kind, err)
	}
	return a.withCursor(options, reached.InformCursor, reached.LastInformTime.UTC(), now), nil
}

// withCursor returns options with a cursor and the time of the latest complete pass, which is zero or before 1970 for
// none.
func (a *Activities) withCursor(options deltatype.InformOptions, cursor string, last, now time.Time) deltatype.InformOptions {
	options.Cursor = cursor
	if last.Unix() > 0 {
		after := last.Add(-a.Listing.Overlap)
		if after.After(now) {
			// The database's clock was set back, or another database took over, at an unknown time. Objects created since may have any time until
			// now, so everything is listed. After is not nil, so that objects which such a pass leaves out do not count as gone.
			after = time.Unix(0, 0).UTC()
		}
		options.After = &after
	}
	return options
}

// withEpoch returns the options for the informer: where everything is listed, After is 1970, as in Delta on River, so
// that informers need not check for nil. Where left-out objects may count as gone After stays nil, because a filter by
// time, however early, leaves out objects without a time. It also stays nil beside a Cursor, which that version does
// not have.
func (a *Activities) withEpoch(options deltatype.InformOptions) deltatype.InformOptions {
	if options.After == nil && options.Cursor == "" && !a.Listing.Complete && !a.Listing.Full {
		epoch := time.Unix(0, 0).UTC()
		options.After = &epoch
	}
	return options
}

// isComplete reports whether a listing with these options names all objects, so that left-out resources are gone.
func (a *Activities) isComplete(o deltatype.InformOptions) bool {
	return (a.Listing.Complete || a.Listing.Full) && o.After == nil && o.Cursor == "" && o.Limit == 0 && len(o.Labels) == 0
}

// isNarrowed reports whether a caller's options leave out some of the objects since the cursor.
func isNarrowed(o deltatype.InformOptions) bool {
	return len(o.Labels) > 0 || o.Limit > 0 || o.After != nil || o.Cursor != ""
}

// warnPosition warns of an informer's own cursor that has no effect.
func (p *pass) warnPosition() {
	if p.position != nil && p.activities.Listing.Complete {
		p.log().Warn("delta.SetCursor has no effect for a kind with CompleteListing: each of its passes lists everything")
	}
}

// isTrusted reports whether resources that a complete listing left out count as gone. If not, the listing also does not
// end the wait of explicitly deleted resources.
func (p *pass) isTrusted() bool {
	return p.progress.Withheld == 0 && (p.progress.Listed > 0 || p.activities.Listing.MostDeletedShare >= 1)
}

// moveCursor stores the position of a complete pass, unless its options were narrowed: then it did not list everything
// since the cursor.
//
// The cursor stays where more objects were refused than are kept, because an incremental listing would not name the
// others again once the controller takes them.
func (p *pass) moveCursor(ctx context.Context, complete bool) error {
	if p.in.Gone || isNarrowed(p.in.Options) {
		return nil
	}
	if left := p.refusals.left; left > 0 && !complete {
		p.log().Warn("more objects were refused than are kept; the cursor stays, so that the next pass lists the others again", "not_kept", left)
		return nil
	}
	p.warnPosition()
	whole := complete && p.isTrusted()
	moved, err := db.New().MoveInformCursor(ctx, p.activities.Pool, db.MoveInformCursorParams{
		Kind: p.in.Kind, Shard: p.in.Options.Shard, LastInformTime: p.cursor, Began: p.began, Cursor: p.position, Complete: whole,
		Continued: p.continued, Overlap: p.activities.Listing.Overlap,
	})
	if err != nil {
		return fmt.Errorf("moving the cursor of kind %s: %w", p.in.Kind, err)
	}
	if moved == 0 {
		p.log().Info("the cursor was reset while the pass went on from it: the next pass lists everything")
	}
	if !p.in.Named {
		if err := p.activities.forgetLeft(ctx, db.ForgetLeftParams{Kind: p.in.Kind, Began: p.began}, p.log()); err != nil {
			return err
		}
	}
	if !whole {
		return nil
	}
	return p.activities.wakeUnlisted(ctx, p.in.Kind, p.in.Options.Shard)
}
