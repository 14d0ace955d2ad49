package delta

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/workflows"
)

// startBatch starts the workflow of a batch.
func (d *dispatcher) startBatch(ctx context.Context, id string, members []db.LeaseDueRow) error {
	// The batch locks its rows in this order because informs do, too.
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
	input := []any{batch}
	if !d.hashIDs {
		input = append(input, nameMembers(members))
	}
	startCtx, cancel := context.WithTimeout(ctx, dispatchRPCTimeout)
	defer cancel()
	start := func(attributes bool) error {
		_, err := d.client.ExecuteWorkflow(startCtx, batchOptions(d.names, batch, namespace, priority, attributes), workflows.BatchName, input...)
		if isRefusedInput(err, inputTooLarge) && len(input) > 1 {
			input = input[:1] // the names are for people only
			_, err = d.client.ExecuteWorkflow(startCtx, batchOptions(d.names, batch, namespace, priority, attributes), workflows.BatchName, input...)
		}
		return err
	}
	err := start(ref.SearchAttributes)
	if d.isWithoutAttributes(ref, err) {
		err = start(false)
	}
	if ctx.Err() == nil || err == nil {
		d.recordWoken(DispatchBatch, 1, len(members), err)
	}
	if err == nil {
		d.clearFailures(ids...)
		d.log.Debug("a batch was started", "kind", d.kind, "namespace", namespace, "workflow_id", id, "resources", len(members))
		return nil
	}
	if ctx.Err() == nil && !isTemporalDown(err) {
		d.log.Warn("a batch cannot be started; its members wait, and no others", "kind", d.kind, "namespace", namespace, "workflow_id", id, "resources", len(members), "error", err)
		return d.releaseRows(ctx, members, func(row db.LeaseDueRow) (time.Duration, string) {
			return d.startBackoff(row.ID), batchNotStarted + err.Error()
		})
	}
	if releaseErr := d.releaseRowsNow(ctx, members); releaseErr != nil {
		return releaseErr
	}
	return err
}

// maxNamed bounds the object ids of a batch's members in its input, in bytes of JSON.
const maxNamed = 64 << 10

// namedMembers is the second argument of a batch's workflow, for people who read it in the Temporal UI. The workflow has no
// such parameter, so no worker decodes it, and no activity's input repeats it. A memo was rejected, because Temporal writes
// it again each time that a workflow continues as new, and once more for visibility.
type namedMembers struct {
	// ObjectIDs are the object ids of the first members, in order, up to maxNamed; LeftOut counts the others.
	ObjectIDs []string `json:"object_ids"`
	LeftOut   int      `json:"left_out,omitempty"`
}

func nameMembers(members []db.LeaseDueRow) (named namedMembers) {
	size := len(`[]`)
	for i, m := range members {
		encoded, _ := json.Marshal(m.ObjectID) //nolint:errchkjson // a string
		if size += len(encoded) + len(`,`); size > maxNamed {
			named.LeftOut = len(members) - i
			break
		}
		named.ObjectIDs = append(named.ObjectIDs, m.ObjectID)
	}
	return named
}
