package delta

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/workflows"
)

// startBatch starts the workflow of a batch.
func (d *dispatcher) startBatch(ctx context.Context, id string, members []db.LeaseDueRow) error {
	// Informs lock rows in this order, and so does the batch.
	slices.SortFunc(members, func(a, b db.LeaseDueRow) int { return cmp.Compare(a.ObjectID, b.ObjectID) })
	ref, ids := d.ref(), make([]int64, len(members))
	namespace, priority := members[0].Namespace, int(members[0].Priority)
	for i, m := range members {
		ids[i] = m.ID
		priority = min(priority, int(m.Priority))
		if m.Namespace != namespace {
			namespace = ""
		}
	}
	batch := activities.Batch{Installation: ref.Installation, Kind: d.kind, WorkflowID: id, Hashed: d.hashIDs, IDs: activities.PackNumbers(ids)}
	startCtx, cancel := context.WithTimeout(ctx, dispatchRPCTimeout)
	defer cancel()
	_, err := d.client.ExecuteWorkflow(startCtx, batchOptions(d.names, batch, namespace, priority, ref.SearchAttributes), workflows.BatchName, batch)
	if d.isWithoutAttributes(ref, err) {
		_, err = d.client.ExecuteWorkflow(startCtx, batchOptions(d.names, batch, namespace, priority, false), workflows.BatchName, batch)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() == nil && !isTemporalDown(err) {
		d.log.Warn("a batch cannot be started; its members wait, and no others", "kind", d.kind, "resources", len(members), "error", err)
		return d.release(ctx, members, func(row db.LeaseDueRow) (time.Duration, string) {
			return d.startBackoff(row.ID), "its batch cannot be started: " + err.Error()
		})
	}
	if releaseErr := d.releaseNow(ctx, members); releaseErr != nil {
		return releaseErr
	}
	return err
}
