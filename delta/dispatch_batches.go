package delta

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/workflows"
)

const (
	// largestInBatch is how large an object may be in the database, in bytes as it is stored there, to be in a batch: the
	// objects of a batch are in memory together.
	largestInBatch = 64 << 10
	// batchesAtOnce is how many starts of batches are under way at once.
	batchesAtOnce = 8
	// settleAfter is when the leases of a started batch are settled that it has not claimed yet: a batch that is claimed at
	// once needs no write for it. Where more than settleFew wait, workers have more than they can do at once: then their
	// leases are settled only when three quarters of them are over, since most will be claimed before.
	settleAfter = 10 * time.Second
	settleFew   = 64
	// batchLeases is how many times as long as others batches are leased.
	batchLeases = 4
	// settleLook is how often a busy dispatcher looks for such.
	settleLook = time.Second
)

// startedBatch is a batch whose leases run.
type startedBatch struct {
	id          string
	at          time.Time
	leasedUntil *time.Time
	ids         []int64
}

// fill waits a little, so that what is informed together comes into one batch.
func (d *dispatcher) fill(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(d.batchWait):
	}
}

// dispatchBatches leases what is due in sets, and starts a batch for each, until there is no full set any more.
func (d *dispatcher) dispatchBatches(ctx context.Context) (full bool, err error) {
	d.settleStarted(ctx, settleAfter)
	if err := d.freeLost(ctx, lostLook); err != nil {
		return false, err
	}
	began := time.Now()
	starts, startCtx := errgroup.WithContext(ctx)
	starts.SetLimit(batchesAtOnce)
	for full = true; full && startCtx.Err() == nil && time.Since(began) < settleLook; {
		id := d.names.batch(d.kind, rand.Text())
		due, leaseErr := db.New().LeaseDueInBatch(startCtx, d.pool, db.LeaseDueInBatchParams{
			Kind:             d.kind,
			Lease:            batchLeases * d.lease,
			WorkflowIDPrefix: d.names.resource(d.kind, ""),
			BatchID:          id,
			HashIds:          d.hashIDs,
			Largest:          largestInBatch,
			Batch:            int32(d.batchSize), //nolint:gosec // it has a bound
		})
		if leaseErr != nil {
			err = leaseErr
			break
		}
		full = len(due) == d.batchSize
		var members, alone []db.LeaseDueInBatchRow
		for _, row := range due {
			if row.Batched {
				members = append(members, row)
			} else {
				alone = append(alone, row)
			}
		}
		if len(alone) > 0 {
			starts.Go(func() error { return d.dispatchAlone(ctx, alone) })
		}
		if len(members) > 0 {
			d.remember(id, members)
			starts.Go(func() error { return d.startBatch(ctx, id, members) })
		}
	}
	if startErr := starts.Wait(); startErr != nil {
		return false, startErr
	}
	return full, err
}

func idsOf(rows []db.LeaseDueInBatchRow) []int64 {
	ids := make([]int64, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	return ids
}

// startBatch starts the workflow of a batch.
func (d *dispatcher) startBatch(ctx context.Context, id string, members []db.LeaseDueInBatchRow) error {
	// Informs lock rows in this order, and so does the batch.
	slices.SortFunc(members, func(a, b db.LeaseDueInBatchRow) int { return cmp.Compare(a.ObjectID, b.ObjectID) })
	ref, ids := d.ref(), idsOf(members)
	generations := make([]int64, len(members))
	namespace, priority := members[0].Namespace, int(members[0].Priority)
	for i, m := range members {
		generations[i] = m.Generation
		priority = min(priority, int(m.Priority))
		if m.Namespace != namespace {
			namespace = ""
		}
	}
	batch := activities.Batch{
		Installation: ref.Installation, Kind: d.kind, WorkflowID: id, Hashed: d.hashIDs,
		IDs: activities.PackNumbers(ids), Generations: activities.PackNumbers(generations),
	}
	startCtx, cancel := context.WithTimeout(ctx, dispatchRPCTimeout)
	defer cancel()
	_, err := d.client.ExecuteWorkflow(startCtx, batchOptions(d.names, batch, namespace, priority, ref.SearchAttributes),
		workflows.BatchName, batch)
	if err == nil {
		return nil
	}
	settleCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dispatchRPCTimeout)
	defer cancel()
	if settleErr := d.returnLease(settleCtx, ids, members[0].DispatchAt, 0); settleErr != nil {
		return settleErr
	}
	return err
}

// dispatchAlone wakes the workflows of resources that are not in batches.
func (d *dispatcher) dispatchAlone(ctx context.Context, rows []db.LeaseDueInBatchRow) error {
	leased := make([]db.LeaseDueRow, len(rows))
	for i, row := range rows {
		leased[i] = db.LeaseDueRow{
			ID: row.ID, ObjectID: row.ObjectID, HashedID: row.HashedID, Namespace: row.Namespace, Priority: row.Priority,
			State: row.State, Generation: row.Generation, DispatchAt: row.DispatchAt,
		}
	}
	return d.wakeLeased(ctx, leased)
}

// settleStarted settles the leases of batches that were started some time ago. Rows that were claimed since are left alone.
func (d *dispatcher) settleStarted(ctx context.Context, after time.Duration) {
	for {
		batch, there := d.oldest(after)
		if !there {
			return
		}
		settleCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dispatchRPCTimeout)
		err := d.settleWoken(settleCtx, batch.ids, batch.leasedUntil)
		cancel()
		if err != nil {
			d.log.Warn("settling the leases of a batch failed; it is started again when they run out", "kind", d.kind, "error", err)
			return // the others are not tried in vain; they are when this is called again
		}
	}
}

// oldest takes the batch off that was started first, if its leases are to be settled.
func (d *dispatcher) oldest(after time.Duration) (batch startedBatch, there bool) {
	d.unsettledMu.Lock()
	defer d.unsettledMu.Unlock()
	if len(d.unsettled) > settleFew && after > 0 {
		after = max(after, (batchLeases-1)*d.lease)
	}
	if len(d.unsettled) == 0 || time.Since(d.unsettled[0].at) < after {
		return startedBatch{}, false
	}
	batch = d.unsettled[0]
	d.unsettled = slices.Delete(d.unsettled, 0, 1) // and nothing keeps its ids in memory
	return batch, true
}

// remember has the leases of a batch settled, if it has not claimed its members by then.
func (d *dispatcher) remember(id string, members []db.LeaseDueInBatchRow) {
	d.unsettledMu.Lock()
	defer d.unsettledMu.Unlock()
	d.unsettled = append(d.unsettled, startedBatch{id: id, at: time.Now(), leasedUntil: members[0].DispatchAt, ids: idsOf(members)})
}

// claimed has the leases of a batch left alone: its members were claimed by a worker of this client.
func (d *dispatcher) claimed(id string) {
	d.unsettledMu.Lock()
	defer d.unsettledMu.Unlock()
	d.unsettled = slices.DeleteFunc(d.unsettled, func(b startedBatch) bool { return b.id == id })
}

// batchClaimed tells the dispatcher of a kind.
func (c *Client) batchClaimed(kind, id string) {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	if d := c.dispatchers[kind]; d != nil {
		d.claimed(id)
	}
}
