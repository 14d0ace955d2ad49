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

// chooseOptions fills in the cursor of the kind, or of its shard, unless the pass is asked for everything or for something else.
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

// withCursor are options with the cursor of a kind or a shard, and the time of its latest complete pass; that may be zero, or before 1970, for none.
func (a *Activities) withCursor(options deltatype.InformOptions, cursor string, last, now time.Time) deltatype.InformOptions {
	options.Cursor = cursor
	if last.Unix() > 0 {
		after := last.Add(-a.Listing.Overlap)
		if after.After(now) {
			// The clock of the database was set back, or another database took over, nobody knows when: what was created since may have any time up to
			// now, so everything is listed. It is not nil: what such a pass leaves out is not taken for gone.
			after = time.Unix(0, 0).UTC()
		}
		options.After = &after
	}
	return options
}

// withEpoch are options as the informer is given them: where it is asked for everything, After is 1970, as it is in Delta on River, whose informers
// need not look whether it is nil. Where what is left out may count as gone it stays nil: a filter by time, however early, leaves out what has no time.
// So it does beside a Cursor, which that version has not.
func (a *Activities) withEpoch(options deltatype.InformOptions) deltatype.InformOptions {
	if options.After == nil && options.Cursor == "" && !a.Listing.Complete && !a.Listing.Full {
		epoch := time.Unix(0, 0).UTC()
		options.After = &epoch
	}
	return options
}

// isComplete reports whether a listing with these options names all there is, so that what it leaves out is gone.
func (a *Activities) isComplete(o deltatype.InformOptions) bool {
	return (a.Listing.Complete || a.Listing.Full) && o.After == nil && o.Cursor == "" && o.Limit == 0 && len(o.Labels) == 0
}

// isNarrowed reports whether options of a caller leave out some of what there is since the cursor.
func isNarrowed(o deltatype.InformOptions) bool {
	return len(o.Labels) > 0 || o.Limit > 0 || o.After != nil || o.Cursor != ""
}

// warnPosition says of an informer's own cursor that it has no effect, if it has none.
func (p *pass) warnPosition() {
	if p.position != nil && p.activities.Listing.Complete {
		p.log().Warn("delta.SetCursor has no effect for a kind with CompleteListing: each of its passes lists everything")
	}
}

// isTrusted reports whether what a complete listing has left out can be taken for gone. If not, it says nothing of what was deleted explicitly either.
func (p *pass) isTrusted() bool {
	return p.progress.Withheld == 0 && (p.progress.Listed > 0 || p.activities.Listing.MostDeletedShare >= 1)
}

// moveCursor notes how far a complete pass came, unless it was narrowed: then it was not everything since the cursor.
//
// It stays where more objects were refused than are kept: an incremental listing would not name the others again, once the controller takes them.
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
