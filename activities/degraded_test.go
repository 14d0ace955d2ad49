package activities_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

var hopeless = activities.Outcome{Verdict: activities.VerdictDegraded, Error: "hopeless"}

// exhaustAttempts uses up the attempts of a resource.
func (h *harness) exhaustAttempts(ref activities.Ref) activities.Step {
	h.t.Helper()
	for {
		step := h.attempt(ref)
		if step.State == deltatype.ResourceStateDegraded {
			return step
		}
		h.set(ref, "due_at = now()")
	}
}

func TestWhatMayHealIsTriedOnceMoreInsteadOfRemoved(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(failed))
	h.Retention = activities.Retention{DegradedRetention: time.Minute, DegradedRetry: hour}
	o := object("a", "1")
	o.MaxAttempts = 3
	ref := h.inform(o)
	for range 3 {
		step := h.exhaustAttempts(ref)
		require.Equal(t, activities.NextRetention, step.Next)
		require.LessOrEqual(t, step.Wait, hour)
		require.GreaterOrEqual(t, step.Wait, hour*95/100, "what degraded together is tried a little apart")
		require.Equal(t, deltatype.CauseExhausted, h.row(ref).Cause)

		h.passRetention(ref)
		require.Equal(t, activities.Step{Next: activities.NextAttempt, Generation: 1, State: deltatype.ResourceStateFailed}, h.endRetention(ref))
		row := h.row(ref)
		require.Equal(t, 2, row.Attempt, "one attempt is left")
		require.Equal(t, row, h.row(ref))
	}
	h.exhaustAttempts(ref)

	// The setting that holds at the end decides.
	h.Retention.DegradedRetry = 0
	h.passRetention(ref)
	require.Equal(t, activities.NextNone, h.endRetention(ref).Next)
	require.Nil(t, h.row(ref))
}

func TestWhatIsHopelessIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]bool{"in its first attempt": false, "in its last attempt": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, does(hopeless))
			h.Retention = activities.Retention{DegradedRetention: time.Minute, DegradedRetry: hour}
			o := object("a", "1")
			if last {
				o.MaxAttempts = 1
			}
			ref := h.inform(o)
			require.Equal(t, time.Minute, h.attempt(ref).Wait)
			require.Equal(t, deltatype.CauseHopeless, h.row(ref).Cause)
			h.passRetention(ref)
			require.Equal(t, activities.NextNone, h.endRetention(ref).Next)
			require.Nil(t, h.row(ref))
		})
	}
}

func TestAHopelessResourceIsKeptForAsLongAsItIsListed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(hopeless))
	h.handler.inform = lists(item(object("a", "1")))
	_, err := h.pass()
	require.NoError(t, err)
	ref := h.ref("a")
	h.attempt(ref)
	h.passRetention(ref)
	_, err = h.pass()
	require.NoError(t, err)

	step := h.endRetention(ref)
	row := h.row(ref)
	require.NotNil(t, row, "it is removed")
	require.EqualValues(t, 1, row.Generation, "it is tried again")
	require.Equal(t, activities.NextRetention, step.Next)
	require.Equal(t, h.Retention.DegradedRetention, row.DueAt.Sub(*row.ListedAt))
	h.set(ref, "listed_at = listed_at - interval '30 days', due_at = now()")
	require.Equal(t, activities.NextNone, h.endRetention(ref).Next)
}
