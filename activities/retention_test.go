package activities_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// endRetention ends the retention of a resource; it must not fail.
func (h *harness) endRetention(ref activities.Ref) activities.Step {
	h.t.Helper()
	step, err := h.EndRetention(context.Background(), ref)
	require.NoError(h.t, err)
	return brief(step)
}

// passRetention has all of a resource's retention pass at once.
func (h *harness) passRetention(ref activities.Ref) {
	h.t.Helper()
	h.set(ref, "due_at = now(), synced_at = synced_at - interval '30 days', attempted_at = attempted_at - interval '30 days'")
}

const hour = time.Hour

// How long a resource rests, and what the end of its rest is, by outcome and the settings of its namespace.
func TestARetentionHasTheLengthAndTheEndThatItsNamespaceSays(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const removed = ""
	for name, c := range map[string]struct {
		configured *activities.Retention // of the namespace
		defaults   activities.Retention  // of the client
		outcome    activities.Outcome
		rest       time.Duration // -1: for ever
		becomes    deltatype.ResourceState
	}{
		"synced, not configured":             {nil, activities.Retention{SyncedRetention: hour}, synced, hour, removed},
		"synced, configured":                 {&activities.Retention{SyncedRetention: 2 * hour}, activities.Retention{SyncedRetention: hour}, synced, 2 * hour, removed},
		"synced, expires":                    {&activities.Retention{Expiry: 3 * hour, SyncedRetention: hour}, activities.Retention{}, synced, 3 * hour, deltatype.ResourceStateExpired},
		"synced, expires and is kept":        {&activities.Retention{Expiry: 3 * hour, SyncedRetention: -hour}, activities.Retention{}, synced, 3 * hour, deltatype.ResourceStateExpired},
		"synced, expires by default":         {nil, activities.Retention{Expiry: 4 * hour, SyncedRetention: hour}, synced, 4 * hour, deltatype.ResourceStateExpired},
		"synced, configured not to expire":   {&activities.Retention{SyncedRetention: hour}, activities.Retention{Expiry: 4 * hour}, synced, hour, removed},
		"synced, kept for ever":              {&activities.Retention{SyncedRetention: -hour}, activities.Retention{SyncedRetention: hour}, synced, -1, deltatype.ResourceStateSynced},
		"synced, kept for ever by default":   {nil, activities.Retention{SyncedRetention: -hour}, synced, -1, deltatype.ResourceStateSynced},
		"degraded, kept for ever by default": {nil, activities.Retention{DegradedRetention: -hour}, failed, -1, deltatype.ResourceStateDegraded},
		"deleted, kept for ever by default":  {nil, activities.Retention{DeletedRetention: -hour}, deleted, -1, deltatype.ResourceStateDeleted},
		"degraded, not configured":           {nil, activities.Retention{DegradedRetention: 5 * hour}, failed, 5 * hour, removed},
		"degraded, configured":               {&activities.Retention{DegradedRetention: 6 * hour}, activities.Retention{DegradedRetention: hour}, failed, 6 * hour, removed},
		"degraded, where synced ones expire": {&activities.Retention{Expiry: hour, DegradedRetention: 6 * hour}, activities.Retention{}, failed, 6 * hour, removed},
		"degraded, kept for ever":            {&activities.Retention{DegradedRetention: -hour}, activities.Retention{DegradedRetention: hour}, failed, -1, deltatype.ResourceStateDegraded},
		"deleted, not configured":            {nil, activities.Retention{DeletedRetention: 7 * hour}, deleted, 7 * hour, removed},
		"deleted, configured":                {&activities.Retention{Expiry: hour, DeletedRetention: 8 * hour}, activities.Retention{DeletedRetention: hour}, deleted, 8 * hour, removed},
		"deleted, kept for ever":             {&activities.Retention{DeletedRetention: -hour}, activities.Retention{DeletedRetention: hour}, deleted, -1, deltatype.ResourceStateDeleted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, does(c.outcome))
			h.Retention = c.defaults
			// Other namespaces have nothing to say.
			h.namespace("other", activities.Retention{Expiry: time.Minute})
			if c.configured != nil {
				h.namespace("space", *c.configured)
			}
			o := object("a", "1")
			o.Namespace, o.MaxAttempts = "space", 1
			ref := h.inform(o)
			began := h.now()
			step := h.attempt(ref)
			ended, row := h.now(), h.row(ref)

			if c.rest < 0 {
				require.Equal(t, activities.NextNone, step.Next)
				require.Nil(t, row.DueAt)
				require.Nil(t, row.DispatchAt, "there is nothing to wake it for")
				require.Equal(t, activities.NextNone, h.endRetention(ref).Next)
				require.Equal(t, row, h.row(ref))
				require.Equal(t, c.becomes, row.State)
				return
			}
			require.Equal(t, activities.NextRetention, step.Next)
			require.LessOrEqual(t, step.Wait, c.rest)
			if c.becomes == removed {
				require.Equal(t, c.rest, step.Wait)
			} else {
				require.GreaterOrEqual(t, step.Wait, c.rest*95/100, "what was synced together expires a little apart")
			}
			require.WithinRange(t, row.DueAt.Add(-step.Wait), began, ended, "it rests from when the outcome is written")

			// Before its time it is left alone, and told what is left of it.
			began = h.now()
			early := h.endRetention(ref)
			ended = h.now()
			require.Equal(t, row, h.row(ref))
			require.Equal(t, activities.NextRetention, early.Next)
			requireWait(t, row, early.Wait, began, ended)
			require.LessOrEqual(t, early.Wait, step.Wait)

			h.passRetention(ref)
			end := h.endRetention(ref)
			if c.becomes == removed {
				require.Equal(t, activities.Step{Next: activities.NextNone}, end)
				require.Nil(t, h.row(ref))
				require.Equal(t, activities.Step{Next: activities.NextNone}, h.endRetention(ref), "once more, as after a lost answer")
				return
			}
			require.Equal(t, activities.Step{Next: activities.NextAttempt, Generation: 2, State: deltatype.ResourceStateExpired}, end)
			row = h.row(ref)
			require.Equal(t, deltatype.ResourceStateExpired, row.State)
			require.EqualValues(t, 2, row.Generation)
			require.EqualValues(t, 1, row.SyncedGeneration)
			require.Zero(t, row.Attempt, "an expired resource has all its attempts again")
			require.Equal(t, end, h.endRetention(ref), "once more, as after a lost answer")
			require.Equal(t, row, h.row(ref))
		})
	}
}

func TestOnlyTheRetentionOfASettledResourceEnds(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	for _, state := range deltatype.ResourceStates() {
		ref := h.inform(object(string(state), "1"))
		h.set(ref, "state = '"+string(state)+"', due_at = now(), synced_at = created_at, attempted_at = created_at")
		h.passRetention(ref)
		before := h.row(ref)
		h.endRetention(ref)
		switch state {
		case deltatype.ResourceStateSynced, deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted:
			require.Nil(t, h.row(ref), state)
		default:
			require.Equal(t, before, h.row(ref), state)
		}
	}
}

func TestAnObjectInformedAnewDuringItsRetentionIsNotRemoved(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(synced))
	ref := h.inform(object("a", "1"))
	h.attempt(ref)
	h.passRetention(ref)
	h.inform(object("a", "2"))
	before := h.row(ref)
	step := h.endRetention(ref)
	require.Equal(t, activities.Step{Next: activities.NextAttempt, Generation: 2, State: deltatype.ResourceStateScheduled}, step)
	require.Equal(t, before, h.row(ref))
}

// A client that starts with other settings decides for what rests already: a row is not removed that is to be kept.
func TestTheRetentionSettingAtTheEndDecidesOfRemoval(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, after activities.Retention
		outcome       activities.Outcome
		next          activities.Next
		wait          time.Duration
	}{
		"no longer expires, kept for ever": {
			activities.Retention{Expiry: hour}, activities.Retention{SyncedRetention: -hour}, synced, activities.NextNone, 0,
		},
		"no longer expires, kept for a day": {
			activities.Retention{Expiry: hour}, activities.Retention{SyncedRetention: 24 * hour}, synced, activities.NextRetention, 24 * hour,
		},
		"synced, kept for ever now": {
			activities.Retention{SyncedRetention: hour}, activities.Retention{SyncedRetention: -hour}, synced, activities.NextNone, 0,
		},
		"degraded, kept for ever now": {
			activities.Retention{DegradedRetention: hour}, activities.Retention{DegradedRetention: -hour}, failed, activities.NextNone, 0,
		},
		"deleted, kept for longer now": {
			activities.Retention{DeletedRetention: hour}, activities.Retention{DeletedRetention: 3 * hour}, deleted, activities.NextRetention, 3 * hour,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, does(c.outcome))
			h.namespace("space", c.before)
			o := object("a", "1")
			o.Namespace, o.MaxAttempts = "space", 1
			ref := h.inform(o)
			state := h.attempt(ref).State
			h.set(ref, "due_at = now()")
			h.namespace("space", c.after)

			began := h.now()
			step := h.endRetention(ref)
			ended, row := h.now(), h.row(ref)
			require.NotNil(t, row, "it is removed")
			require.Equal(t, state, row.State)
			require.EqualValues(t, 1, row.Generation)
			require.Equal(t, c.next, step.Next)
			if c.next != activities.NextRetention {
				require.Nil(t, row.DueAt)
				require.Zero(t, step.Wait)
				return
			}
			require.Equal(t, c.wait, row.DueAt.Sub(*row.SyncedAt))
			requireWait(t, row, step.Wait, began, ended)
		})
	}
}

// A resource that is paused stays as it is, however long it has rested, with a workflow of its own or in a batch.
func TestTheRetentionOfAPausedResourceDoesNotEnd(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]activities.Retention{"expires": {Expiry: hour}, "is removed": {SyncedRetention: hour}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, does(synced))
			h.namespace("space", rest)
			o := object("a", "1")
			o.Namespace = "space"
			ref := h.inform(o)
			h.attempt(ref)
			h.passRetention(ref)
			h.set(ref, "paused = TRUE, workflow_id = 'batch/1'")
			before := h.row(ref)
			require.Equal(t, activities.NextNone, h.endRetention(ref).Next, "its workflow ends")
			require.Equal(t, activities.NextNone, h.attempt(ref).Next, "also if it is woken")
			batch := activities.Batch{Installation: ref.Installation, Kind: kind, WorkflowID: "batch/1", IDs: activities.PackNumbers([]int64{before.ID})}
			step, err := h.EndBatchRetention(t.Context(), batch)
			require.NoError(t, err)
			require.Zero(t, step.Resting, "a batch has no other members")
			require.Equal(t, before, h.row(ref))

			h.set(ref, "paused = FALSE")
			_, err = h.EndBatchRetention(t.Context(), batch)
			require.NoError(t, err)
			require.NotEqual(t, before, h.row(ref))
		})
	}
}

// What Work or a command deleted is kept for as long as informers list it. It is not written each time.
func TestADeletedResourceIsKeptForAsLongAsItIsListed(t *testing.T) {
	t.Parallel()
	for cause, isKept := range map[deltatype.Cause]bool{deltatype.CauseWork: true, deltatype.CauseCommand: true, deltatype.CauseUnlisted: false} {
		t.Run(string(cause), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, does(deleted))
			h.handler.inform = lists(item(object("a", "1")))
			list := func() *deltatype.ResourceRow {
				_, err := h.pass()
				require.NoError(t, err)
				return h.row(h.ref("a"))
			}
			list()
			ref := h.ref("a")
			h.attempt(ref)
			h.set(ref, "cause = '"+string(cause)+"'")
			if !isKept {
				row := list()
				require.Equal(t, deltatype.ResourceStateScheduled, row.State, "it is live again")
				require.Nil(t, row.ListedAt)
				return
			}
			h.passRetention(ref)
			first := list()
			require.NotNil(t, first.ListedAt)
			require.Equal(t, first, list(), "it was noted a moment ago")
			require.Equal(t, activities.NextRetention, h.endRetention(ref).Next)
			row := h.row(ref)
			require.NotNil(t, row, "it is removed")
			require.Equal(t, h.Retention.DeletedRetention, row.DueAt.Sub(*row.ListedAt))

			h.set(ref, "listed_at = listed_at - interval '7 hours'")
			require.Equal(t, h.row(ref), list(), "a tenth of 72 hours has not passed")
			h.set(ref, "listed_at = listed_at - interval '1 hour'")
			require.True(t, list().ListedAt.After(*first.ListedAt))
			h.set(ref, "listed_at = listed_at - interval '73 hours', due_at = now()")
			require.Equal(t, activities.NextNone, h.endRetention(ref).Next)
			require.Nil(t, h.row(ref))
		})
	}
}
