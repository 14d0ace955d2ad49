package delta

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// queueSize is how many due rows one statement checks for full limit keys or snoozed namespaces.
const queueSize = 1000

// wakeKeyWaiters wakes rows that wait for limit keys with free slots. While most leased rows must wait for a slot, it also
// queues further due rows with full keys, because they would stand in front of rows whose keys are free.
func (d *dispatcher) wakeKeyWaiters(ctx context.Context) error {
	d.mu.Lock()
	waits, queueing := d.keyed || d.keysWait, d.queueing
	d.mu.Unlock()
	if !waits {
		return nil
	}
	for began := time.Now(); queueing && ctx.Err() == nil && time.Since(began) < longestRound; { // then rows with free keys are leased
		queued, err := db.New().QueueDue(ctx, d.pool, db.QueueDueParams{Kind: d.kind, Priorities: d.nextPriorities(), Batch: queueSize})
		if err != nil {
			return fmt.Errorf("having rows wait for slots of limit keys: %w", err)
		}
		queueing = 2*len(queued) >= queueSize
	}
	room := d.room()
	params := db.WakeKeysParams{Kind: d.kind, LimitedNamespaces: room.limited, Rooms: room.rows, PassedBy: room.full}
	if _, err := db.New().WakeKeys(ctx, d.pool, params); err != nil {
		return fmt.Errorf("waking what waits for slots of limit keys: %w", err)
	}
	return nil
}

// takeSlots takes slots of limit keys for leased rows, and returns the rows to be worked now. The others wait in Postgres.
func (d *dispatcher) takeSlots(ctx context.Context, leased []db.LeaseDueRow) ([]db.LeaseDueRow, error) {
	if !d.keyed {
		return leased, nil
	}
	if len(leased) == 0 {
		d.setQueueing(false)
		return nil, nil
	}
	ids := make([]int64, len(leased))
	for i, row := range leased {
		ids[i] = row.ID
	}
	rows, err := db.New().TakeSlots(ctx, d.pool, db.TakeSlotsParams{Kind: d.kind, Ids: ids, Lease: activities.DispatchLease})
	if err != nil {
		return nil, fmt.Errorf("taking slots of limit keys: %w", err)
	}
	waiting := make([]int64, len(rows)) // a lease counts no calls, so no row is early
	for i, row := range rows {
		waiting[i] = row.ID
	}
	d.setQueueing(2*len(waiting) >= len(leased))
	if len(waiting) == 0 {
		return leased, nil
	}
	slices.Sort(waiting)
	return slices.DeleteFunc(leased, func(row db.LeaseDueRow) bool {
		_, waits := slices.BinarySearch(waiting, row.ID)
		return waits
	}), nil
}

func (d *dispatcher) setQueueing(to bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queueing = to
}
