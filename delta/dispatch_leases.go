package delta

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// planLease returns the purpose of the next lease: the id of a batch, or empty for single workflows, and the number of
// rows. many reports whether enough rows are due to fill batches.
func (d *dispatcher) planLease(many bool) (batch string, size int) {
	switch {
	case d.batchSize == 1:
		return "", leaseSize
	case d.batchSize > 1:
		size = d.batchSize
	default:
		if size = min(d.pace.allowedSingles(), leaseSize); size > 0 && !many {
			return "", size
		}
		size = d.pace.nextBatchSize()
	}
	return d.names.batchWorkflowID(d.kind, rand.Text()), size
}

// room returns the room for the next lease.
func (d *dispatcher) room() leaseRoom { return d.limits.room(d.kind, d.keyed) }

// nextPriorities returns the priorities in the order of the next lease.
func (d *dispatcher) nextPriorities() []int16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leases%leaseRounds == 0 {
		return []int16{5, 4, 3, 2, 1}
	}
	return []int16{1, 2, 3, 4, 5}
}

// leaseDue leases due rows, for a batch or for single workflows. If the client is stopped meanwhile, or another start has
// failed, it waits a little for the answer, because nobody would release the leased rows otherwise.
func (d *dispatcher) leaseDue(ctx context.Context, batch string, size int, room leaseRoom) ([]db.LeaseDueRow, error) {
	ctx, cancel := withGrace(ctx, d.timeout)
	defer cancel()
	d.mu.Lock()
	d.leases++
	d.lookedAt = time.Now()
	d.mu.Unlock()
	priorities := d.nextPriorities()
	most := int32(size) //nolint:gosec // it has a bound
	planned := room
	if batch != "" {
		planned.limited = nil // members of a batch wait within it, so it may have as many as there are
	}
	plan, began := d.crowd.plan(priorities, planned, most), time.Now()
	leased, err := db.New().LeaseDue(ctx, db.Planned(d.pool, leaseSize), db.LeaseDueParams{
		Kind:        d.kind,
		Lease:       d.lease,
		Longest:     activities.LongestLease,
		Grace:       activities.DueGrace,
		BatchID:     batch,
		BatchPrefix: d.names.batchIDPrefix(d.kind),
		HashIds:     d.hashIDs,
		Finalizes:   d.finalizes,
		Largest:     largestInBatch,
		MostLost:    activities.MaxLostInBatch,
		Priorities:  plan.priorities, Namespaces: plan.namespaces, Since: plan.since, Most: plan.most, PassedBy: plan.passedBy,
		LimitedNamespaces: room.limited, Rooms: room.rows,
		Batch: most,
	})
	if err != nil {
		return nil, err
	}
	d.crowd.noteLease(plan, leased, most, time.Since(began))
	return leased, nil
}

// putOffSnoozed puts due rows of snoozed namespaces off until they may be worked, so that leases need not skip them each
// time. Now and then is enough: rows are put off in sets, and only the first lease after the beginning of a snooze reads
// more.
func (d *dispatcher) putOffSnoozed(ctx context.Context) error {
	const every = time.Second
	if time.Since(d.putOffAt) < every {
		return nil
	}
	d.putOffAt = time.Now()
	for ctx.Err() == nil {
		n, err := db.New().PutOffSnoozed(ctx, d.pool, db.PutOffSnoozedParams{Kind: d.kind, Priorities: d.nextPriorities(), Batch: queueSize})
		if err != nil {
			return fmt.Errorf("putting off resources of snoozed namespaces: %w", err)
		}
		if 2*n < queueSize {
			return nil
		}
	}
	return nil
}

// releaseRows makes leased rows due again, each after the time that after returns. The text that it returns is written to
// the row's errors; it is empty if the row is not at fault.
func (d *dispatcher) releaseRows(ctx context.Context, rows []db.LeaseDueRow, after func(db.LeaseDueRow) (time.Duration, string)) error {
	if len(rows) == 0 {
		return nil
	}
	p := db.ReleaseLeasesParams{MaxErrors: activities.MaxErrors}
	for _, row := range rows {
		if row.DispatchAt == nil {
			continue // it has no next step
		}
		wait, why := after(row)
		encoded := ""
		if why != "" {
			entry, err := json.Marshal(deltatype.AttemptError{At: time.Now().UTC(), Error: truncateText(why, maxReason)})
			if err != nil {
				return err
			}
			encoded = string(entry)
		}
		p.Ids = append(p.Ids, row.ID)
		p.LeasedUntil = append(p.LeasedUntil, *row.DispatchAt)
		p.Afters = append(p.Afters, wait)
		p.Errors = append(p.Errors, encoded)
	}
	// Release rows even while stopping: they need not wait for their lease to expire.
	ctx, cancel := withGrace(ctx, d.timeout)
	defer cancel()
	if err := db.New().ReleaseLeases(ctx, db.Planned(d.pool, len(p.Ids)), p); err != nil {
		return fmt.Errorf("releasing leases: %w", err)
	}
	return nil
}

// releaseRowsNow makes leased rows due again at once: they are not at fault.
func (d *dispatcher) releaseRowsNow(ctx context.Context, rows []db.LeaseDueRow) error {
	return d.releaseRows(ctx, rows, func(db.LeaseDueRow) (time.Duration, string) { return 0, "" })
}

// maxReason bounds the text on a row of why its workflow could not be started, in bytes.
const maxReason = 1 << 10
