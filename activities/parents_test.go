package activities_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// child is an object with a parent of another kind.
func child(id, content string) deltatype.ObjectInformParams {
	o := object(id, content)
	o.Parents = []deltatype.Ref{{Kind: "parent", ID: "p"}}
	return o
}

// parentIsSynced makes the row of the parent.
func (h *harness) parentIsSynced() {
	h.t.Helper()
	_, err := h.Pool.Exec(context.Background(), `INSERT INTO delta_resource (kind, object_id, namespace, max_attempts, hash, object, state, synced_generation, sync_count)
		VALUES ('parent', 'p', 'default', 1, '', '{}', 'synced', 1, 1)`)
	require.NoError(h.t, err)
}

// A set may be leased before anybody has looked at its parents: the execution leaves what has to wait to the dispatcher, and takes the rest.
func TestAnExecutionLeavesARowThatWaitsForItsParent(t *testing.T) {
	t.Parallel()
	singleAndBatch(t, func(t *testing.T, batched bool) {
		h := newHarness(t, does(synced))
		h.HasParents = true
		woken := 0
		h.Informed = func(string, int) { woken++ }
		ref := h.inform(child("a", "1"))
		if batched {
			other := h.inform(object("b", "1"))
			step, err := h.AttemptBatch(t.Context(), h.batchOf(ref, other))
			require.NoError(t, err)
			require.Equal(t, 1, step.Withheld)
			require.Equal(t, 1, step.Synced)
			require.Equal(t, 1, step.Resting, "the batch goes on with the other")
		} else {
			require.Equal(t, activities.NextNone, h.attempt(ref).Next, "the workflow ends")
		}
		row := h.row(ref)
		require.Nil(t, row.DispatchAt, "no dispatcher looks at it, and no lease has to pass")
		require.Equal(t, []deltatype.Ref{{Kind: "parent", ID: "p"}}, row.AwaitedParents)
		require.Equal(t, deltatype.ResourceStateScheduled, row.State)
		require.Zero(t, row.Attempt)
		require.Positive(t, woken, "the dispatcher looks at the parent from now on")

		h.parentIsSynced()
		h.set(ref, "dispatch_at = now()")
		h.attemptIn(batched, ref)
		require.Equal(t, deltatype.ResourceStateSynced, h.row(ref).State)
		require.Nil(t, h.row(ref).AwaitedParents)
	})
}
