package delta_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// A webhook brings only an id, while a Work is running that has read the old state.
func TestATouchIsFollowedByACallOfWorkThatBeginsAfterIt(t *testing.T) {
	t.Parallel()
	inBothModes(t, testTouch[single], testTouch[batches])
}

func testTouch[M batchSized](t *testing.T) {
	h := newHarness(t)
	var calls atomic.Int64
	working, goOn := make(chan struct{}), make(chan struct{})
	c := h.start(h.config(with(&controller[loose[M]]{work: func(context.Context, *delta.Resource[loose[M]]) error {
		if calls.Add(1) == 2 {
			close(working)
			<-goOn
		}
		return nil
	}})))
	_, err := c.Touch(t.Context(), "loose", "a")
	require.ErrorIs(t, err, delta.ErrNotFound)
	_, err = c.Sync(t.Context(), loose[M]{Key: "a"}, nil)
	require.NoError(t, err)

	// A synced resource and one in Work: two touches during one call cause one more call.
	row, err := c.Touch(t.Context(), "loose", "a")
	require.NoError(t, err)
	require.EqualValues(t, 2, row.Generation)
	<-working
	for range 2 {
		row, err = h.client(&delta.Config{}).Touch(t.Context(), "loose", "a")
		require.NoError(t, err)
		require.EqualValues(t, 3, row.Generation)
	}
	close(goOn)
	h.eventually("loose", "a", synced(3))
	require.EqualValues(t, 3, calls.Load())
	n, err := c.TouchAll(t.Context(), delta.Filter{Kinds: []string{"loose"}})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	h.eventually("loose", "a", synced(4))

	_, err = c.Delete(t.Context(), "loose", "a")
	require.NoError(t, err)
	_, err = c.Touch(t.Context(), "loose", "a")
	refused := new(delta.StateError)
	require.ErrorAs(t, err, &refused)
	require.Equal(t, deltatype.ResourceStateDeleted, refused.State)
	_, err = c.TouchAll(t.Context(), delta.Filter{})
	require.ErrorContains(t, err, "would choose everything")
}

// A waiting resource is due at once, whatever it waits for.
func TestATouchIsTakenInEachState(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	for state, want := range map[deltatype.ResourceState]struct {
		state      deltatype.ResourceState
		generation int64
	}{
		deltatype.ResourceStateScheduled: {deltatype.ResourceStateScheduled, 1},
		deltatype.ResourceStatePending:   {deltatype.ResourceStateScheduled, 2},
		deltatype.ResourceStateSynced:    {deltatype.ResourceStateExpired, 2},
		deltatype.ResourceStateFailed:    {deltatype.ResourceStateScheduled, 2},
		deltatype.ResourceStateDegraded:  {deltatype.ResourceStateScheduled, 2},
		deltatype.ResourceStateExpired:   {deltatype.ResourceStateExpired, 1},
		deltatype.ResourceStateUnknown:   {deltatype.ResourceStateScheduled, 2},
	} {
		_, err := c.Inform(t.Context(), account{Name: string(state)}, nil)
		require.NoError(t, err)
		h.exec("UPDATE delta_resource SET state = $1, attempt = 2, due_at = now() + interval '1 hour', dispatch_at = due_at WHERE object_id = $2", state, string(state))
		row, err := c.Touch(t.Context(), "account", string(state))
		require.NoError(t, err)
		require.Equal(t, want.state, row.State, state)
		require.Equal(t, want.generation, row.Generation, state)
		require.False(t, row.DueAt.After(h.now()), state)
		require.False(t, row.DispatchAt.After(h.now()), state)
		require.Equal(t, want.generation == 1, row.Attempt == 2, state)
	}
}
