package delta

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// touchesPage is how many changed parents are leased at once. touchedPage is how many of their children one query
	// finds, and childrenPage how many one statement touches.
	touchesPage = 100
	touchedPage = 10_000
	// touchesLook is about how often a client looks for changed parents. touchesLease is how long other clients leave them
	// to it.
	touchesLook  = time.Second
	touchesLease = 30 * time.Second
	// touchPause is the least time between two statements that touch children: one client touches up to 10,000 of a kind a
	// second, so that leases, claims and outcomes do not wait for them.
	touchPause = 100 * time.Millisecond
)

// touchChildren touches resources of the kind whose parents have changed, until the context ends. It runs beside the
// dispatcher, so that a parent with very many children delays no lease.
func (d *dispatcher) touchChildren(ctx context.Context) {
	pauses := backoff.New(time.Second, maxDispatchBackoff)
	for ctx.Err() == nil {
		more, err := d.touchRound(ctx)
		var wait time.Duration
		switch {
		case err != nil && ctx.Err() == nil:
			wait = pauses.Delay()
			d.log.Warn("resources whose parents have changed cannot be touched; nothing is lost, it is tried again", "kind", d.kind, "error", err, "retry_in", wait)
		case more:
			pauses.Reset()
			wait = touchPause
		default:
			pauses.Reset()
			wait = touchesLook*3/4 + mathrand.N(touchesLook/2) //nolint:gosec // spread, not secrecy
		}
		_ = backoff.Pause(ctx, wait) // the loop looks at the context
	}
}

// touchRound leases changed parents, and touches some of their children. It forgets a parent only when a query finds no
// child of it that is still to be touched, so a crash loses nothing. It reports whether there may be more to do at once.
func (d *dispatcher) touchRound(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.timeout, fmt.Errorf("it took longer than %s", d.timeout))
	defer cancel()
	leased, err := db.New().LeaseTouches(ctx, d.pool, db.LeaseTouchesParams{Kind: d.kind, Lease: touchesLease, Page: touchesPage})
	if err != nil {
		return false, fmt.Errorf("looking for parents that have changed: %w", err)
	}
	if len(leased) == 0 {
		return false, nil
	}
	end := db.EndTouchesParams{Kind: d.kind, Finished: make([]bool, len(leased))}
	for _, l := range leased {
		end.Parents, end.ChangedAts = append(end.Parents, l.Parent), append(end.ChangedAts, l.ChangedAt)
	}
	children, err := db.New().TouchableChildren(ctx, d.pool, db.TouchableChildrenParams{
		Kind: d.kind, Parents: end.Parents, ChangedAts: end.ChangedAts, Page: touchedPage,
	})
	if err != nil {
		return false, fmt.Errorf("looking for the children of %d parents: %w", len(leased), err)
	}
	touched, err := d.touchPages(ctx, children)
	if err != nil {
		return false, err
	}
	if len(children) < touchedPage { // parents beyond the page are unknown
		left := map[string]bool{}
		for _, child := range children {
			left[child.Parent] = true
		}
		for i, parent := range end.Parents {
			end.Finished[i] = !left[parent]
		}
	}
	if touched == 0 { // other transactions have locked them all
		end.Wait = touchesLook
	}
	if err := db.New().EndTouches(ctx, d.pool, end); err != nil {
		return false, fmt.Errorf("noting how far the children of %d parents were touched: %w", len(leased), err)
	}
	return len(leased) == touchesPage || touched > 0, nil
}

// touchPages touches children in pages, each child once, and returns their number.
func (d *dispatcher) touchPages(ctx context.Context, children []db.TouchableChildrenRow) (touched int, err error) {
	latest := make(map[int64]time.Time, len(children)) // a child of several parents is touched for the latest change
	for _, child := range children {
		if child.ChangedAt.After(latest[child.ID]) {
			latest[child.ID] = child.ChangedAt
		}
	}
	ids := make([]int64, 0, len(latest))
	for id := range latest {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for page := range slices.Chunk(ids, childrenPage) {
		if touched > 0 {
			if err := backoff.Pause(ctx, touchPause); err != nil {
				return touched, err
			}
		}
		p := db.TouchChildrenParams{Ids: page, Priority: PriorityBackfill}
		for _, id := range page {
			p.ChangedAts = append(p.ChangedAts, latest[id])
		}
		rows, err := db.New().TouchChildren(ctx, db.Planned(d.pool, len(page)), p)
		if err != nil {
			return touched, fmt.Errorf("touching %d resources whose parents have changed: %w", len(page), err)
		}
		if len(rows) > 0 {
			d.log.Debug("resources are touched: their parents have changed", "kind", d.kind, "resources", len(rows))
			touched += len(rows)
			d.wake(len(rows))
		}
	}
	return touched, nil
}
