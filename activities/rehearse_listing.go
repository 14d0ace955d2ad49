package activities

import (
	"context"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// RehearsedListing has the objects that a pass of an informer would have taken.
type RehearsedListing struct {
	// Items are the listed objects, in their order; those with an error would be refused.
	Items []Listed
	// Next are the options of the next pass.
	Next deltatype.InformOptions
}

// RehearseListing takes a listing to its end as a pass does, and writes nothing. in.Options have no cursor; options
// have the cursor of the pass. Objects listed before an error are returned with it.
func (a *Activities) RehearseListing(ctx context.Context, in InformInput, options deltatype.InformOptions, now time.Time) (RehearsedListing, error) {
	result := RehearsedListing{Next: options}
	if err := a.checkLists(); err != nil {
		return result, err
	}
	passCtx, timeout, end := a.boundPass(ctx, in, options)
	defer end()
	p := pass{activities: a, in: in, began: now.UTC(), cursor: now.UTC(), rehearsed: &result.Items}
	if err := p.takeListing(passCtx, a.Handler.Inform(passCtx, a.withEpoch(options))); err != nil {
		return result, p.explainFailure(passCtx, err, timeout)
	}
	if !isNarrowed(p.in.Options) {
		p.warnPosition()
		result.Next = p.nextOptions(options)
	}
	return result, nil
}

// nextOptions returns the options of the pass after a complete one with these options, as MoveInformCursor
// (queries/shard.sql) would.
func (p *pass) nextOptions(options deltatype.InformOptions) deltatype.InformOptions {
	a, last, cursor := p.activities, p.cursor, options.Cursor
	if p.position != nil {
		cursor = *p.position
	}
	if a.Listing.Complete {
		return options
	}
	if options.After != nil {
		if before := options.After.Add(a.Listing.Overlap); before.After(last) {
			last = before // a cursor never moves back
		}
	}
	if last.After(p.began) {
		last = p.began // nor is it later than the pass
	}
	return a.withCursor(options, cursor, last, p.began)
}
