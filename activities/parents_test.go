package activities_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// child is an object with a parent of another kind.
func child(id, content string) deltatype.ObjectInformParams {
	o := object(id, content)
	o.Parents = []deltatype.Ref{{Kind: "parent", ObjectID: "p"}}
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
		require.Equal(t, []deltatype.Ref{{Kind: "parent", ObjectID: "p"}}, row.AwaitedParents)
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

// notedParents returns the parents that are noted for their children, and forgets them.
func (h *harness) notedParents() (parents []string) {
	h.t.Helper()
	err := h.Pool.QueryRow(context.Background(), `WITH gone AS (DELETE FROM delta_touch WHERE kind = 'child' RETURNING parent)
		SELECT coalesce(array_agg(parent), '{}') FROM gone`).Scan(&parents)
	require.NoError(h.t, err)
	return parents
}

// Children are touched only if their parent was synced with another object than the last time.
func TestAParentThatHasChangedIsNotedForItsChildren(t *testing.T) {
	t.Parallel()
	singleAndBatch(t, func(t *testing.T, batched bool) {
		h := newHarness(t, does(synced))
		touches := func(by string) {
			_, err := h.Pool.Exec(t.Context(), `INSERT INTO delta_controller (name, inform_interval, touched_by) VALUES ('child', '-1 s', $1::text[])
				ON CONFLICT (name) DO UPDATE SET touched_by = excluded.touched_by`, "{other,"+by+"}")
			require.NoError(t, err)
		}
		touches(kind)
		noted, none := []string{kind + "/a"}, []string{}
		ref := h.inform(object("a", "1"))
		h.attemptIn(batched, ref)
		require.Equal(t, noted, h.notedParents(), "children may have seen it before its row was removed")

		command := func(c activities.Command) {
			t.Helper()
			_, err := activities.RunCommand(t.Context(), h.Pool, kind, "a", c, h.Retention)
			require.NoError(t, err)
		}
		command(activities.CommandTouch)
		h.attemptIn(batched, ref)
		require.EqualValues(t, 2, h.row(ref).SyncCount)
		require.Equal(t, none, h.notedParents(), "it was worked again, and is the same")

		h.inform(object("a", "2"))
		require.Equal(t, none, h.notedParents(), "it is not synced yet")
		h.handler.work = does(failed)
		h.attemptIn(batched, ref)
		require.Equal(t, none, h.notedParents())
		h.handler.work = does(synced)
		h.set(ref, "due_at = now()")
		h.attemptIn(batched, ref)
		require.Equal(t, noted, h.notedParents())

		// It goes on while it is worked, and back to what it was: others may have looked meanwhile.
		h.inform(object("a", "3"))
		h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
			h.inform(object("a", "2"))
			h.handler.work = does(synced)
			return synced
		}
		h.attemptIn(batched, ref)
		if h.row(ref).State != deltatype.ResourceStateSynced {
			require.Equal(t, none, h.notedParents(), "the next generation is to say")
			h.attemptIn(batched, ref)
		}
		require.Equal(t, deltatype.ResourceStateSynced, h.row(ref).State)
		require.Equal(t, noted, h.notedParents())

		for name, deletes := range map[string]func(){
			"command": func() { command(activities.CommandDelete) },
			"work": func() {
				h.handler.work = does(deleted)
				command(activities.CommandTouch)
				h.attemptIn(batched, ref)
			},
			"source": func() {
				_, err := db.New().DeleteGone(t.Context(), h.Pool, db.DeleteGoneParams{Kind: kind, ObjectIds: []string{"a"}})
				require.NoError(t, err)
			},
		} {
			deletes()
			require.Equal(t, deltatype.ResourceStateDeleted, h.row(ref).State, name)
			require.Equal(t, none, h.notedParents(), name)
			h.handler.work = does(synced)
			command(activities.CommandRevive)
			h.attemptIn(batched, ref)
			require.Equal(t, noted, h.notedParents(), "%s: what was gone was made again", name)
		}

		touches("another")
		h.inform(object("a", "4"))
		h.attemptIn(batched, ref)
		require.Equal(t, none, h.notedParents(), "nobody is touched by the kind")
		touches(kind)
		h.inform(object("a", "2"))
		h.attemptIn(batched, ref)
		require.Equal(t, noted, h.notedParents(), "what was synced last meanwhile is not known")
	})
}
