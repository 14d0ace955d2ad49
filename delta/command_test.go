package delta_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestInvalidateSyncsOnlySyncedResourcesAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		if r.ObjectID == "bad" {
			return delta.ResourceDegrade(errors.New("hopeless"))
		}
		return nil
	})
	_, err := c.Invalidate(t.Context(), account{Name: "ann"})
	require.ErrorIs(t, err, delta.ErrNotFound)
	require.ErrorContains(t, err, "account/ann")

	for _, name := range []string{"ann", "bad"} {
		_, err = c.Inform(t.Context(), account{Name: name}, nil)
		require.NoError(t, err)
	}
	h.eventually("account", "ann", synced(1))
	row, err := c.Invalidate(t.Context(), account{Name: "ann"})
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateExpired, row.State)
	require.EqualValues(t, 2, row.Generation)
	require.EqualValues(t, 2, h.eventually("account", "ann", synced(2)).SyncCount)

	h.eventually("account", "bad", inState(deltatype.ResourceStateDegraded))
	_, err = c.Invalidate(t.Context(), account{Name: "bad"})
	state := new(delta.StateError)
	require.ErrorAs(t, err, &state)
	require.Equal(t, delta.StateError{Command: "invalidate", Kind: "account", ObjectID: "bad", State: deltatype.ResourceStateDegraded}, *state)
}

func TestRetryGivesAllAttemptsAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var healthy atomic.Bool
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		if !healthy.Load() {
			return errors.New("down")
		}
		return nil
	})
	for i := range 6 {
		_, err := c.Inform(t.Context(), account{Name: fmt.Sprint(i)}, &delta.InformOpts{
			MaxAttempts: 1, Tags: []string{[]string{"even", "odd"}[i%2]}, Metadata: []byte(`{"team": "blue"}`),
		})
		require.NoError(t, err)
	}
	_, err := c.Inform(t.Context(), account{Name: "waits"}, nil)
	require.NoError(t, err)
	for i := range 6 {
		h.eventually("account", fmt.Sprint(i), inState(deltatype.ResourceStateDegraded))
	}
	h.eventually("account", "waits", inState(deltatype.ResourceStateFailed))
	healthy.Store(true)

	row, err := c.Retry(t.Context(), "account", "0")
	require.NoError(t, err)
	require.EqualValues(t, 2, row.Generation)
	h.eventually("account", "0", synced(2))

	_, err = c.Retry(t.Context(), "account", "0")
	require.ErrorAs(t, err, new(*delta.StateError))

	n, err := c.RetryAll(t.Context(), delta.Filter{Kinds: []string{"account"}, Tags: []string{"odd"}, Labels: map[string]string{"team": "blue"}})
	require.NoError(t, err)
	require.Equal(t, 3, n)
	for _, id := range []string{"1", "3", "5"} {
		h.eventually("account", id, synced(2))
	}
	require.Equal(t, deltatype.ResourceStateDegraded, h.row("account", "2").State)

	n, err = c.RetryAll(t.Context(), delta.Filter{Labels: map[string]string{"team": "red"}})
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = c.RetryAll(t.Context(), delta.Filter{})
	require.NoError(t, err)
	require.Equal(t, 2, n, "without a state, failed resources keep their backoff")
	_, err = c.RetryAll(t.Context(), delta.Filter{States: []deltatype.ResourceState{"strange"}})
	require.ErrorContains(t, err, `States "strange"`)
}

func TestDeleteEndsAResourceEvenWhileItIsWorked(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	working, proceed := make(chan struct{}, 1), make(chan struct{})
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		working <- struct{}{}
		<-proceed
		return nil
	})
	events, cancel := c.Subscribe(delta.EventCategoryObjectDeleted)
	defer cancel()
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	<-working
	row, err := c.Delete(t.Context(), "account", "ann")
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateDeleted, row.State)
	require.Equal(t, "ann", (<-events).Resource.ObjectID)
	close(proceed)
	h.awaitEvent(h.Prefix+"/account/ann", endsAttempt)
	row = h.row("account", "ann")
	require.Equal(t, deltatype.ResourceStateDeleted, row.State, "the result of the running call changes nothing")
	require.NotNil(t, row.DueAt)

	_, err = c.Delete(t.Context(), "account", "ann")
	require.ErrorAs(t, err, new(*delta.StateError))
	_, err = c.Delete(t.Context(), "account", "nobody")
	require.ErrorIs(t, err, delta.ErrNotFound)

	_, err = c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateSynced })
}

func TestAPausedResourceIsNotWorkedUntilItIsResumed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var calls atomic.Int64
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		calls.Add(1)
		return nil
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(1))

	row, err := c.Pause(t.Context(), "account", "ann")
	require.NoError(t, err)
	require.True(t, row.Paused)
	_, err = c.Inform(t.Context(), account{Name: "ann", Plan: "gold"}, nil)
	require.NoError(t, err)
	_, err = c.Inform(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err)
	h.eventually("account", "bob", synced(1))
	// A workflow that is woken anyway sees that the resource is paused, and ends.
	h.signalIfRunning("account", "ann")
	h.awaitResourceEnd("account", "ann")
	require.EqualValues(t, 2, calls.Load())
	require.Equal(t, deltatype.ResourceStateScheduled, h.row("account", "ann").State, "the change is kept")
	row, err = c.Resume(t.Context(), "account", "ann")
	require.NoError(t, err)
	require.False(t, row.Paused)
	require.JSONEq(t, `{"name": "ann", "plan": "gold"}`, string(h.eventually("account", "ann", synced(2)).EncodedObject))

	require.NoError(t, c.PauseKind(t.Context(), "account"))
	for i := range 20 {
		_, err = c.Inform(t.Context(), account{Name: fmt.Sprint(i)}, nil)
		require.NoError(t, err)
	}
	// A running workflow that is woken sees that the resource is paused, and ends.
	_, err = c.Invalidate(t.Context(), account{Name: "bob"})
	require.NoError(t, err)
	h.signalIfRunning("account", "bob")
	h.awaitResourceEnd("account", "bob")
	require.EqualValues(t, 3, calls.Load())
	for i := range 20 {
		require.Zero(t, h.countWakeUps("account", fmt.Sprint(i)))
	}
	require.NoError(t, c.ResumeKind(t.Context(), "account"))
	for i := range 20 {
		h.eventually("account", fmt.Sprint(i), synced(1))
	}
	h.eventually("account", "bob", synced(2))

	_, err = c.Pause(t.Context(), "account", "nobody")
	require.ErrorIs(t, err, delta.ErrNotFound)
	require.ErrorContains(t, c.PauseKind(t.Context(), ""), "kind")
}

func TestAPausedInformerDoesNotRunBySchedule(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var passes atomic.Int64
	config := h.config(with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
		passes.Add(1)
		return sendAll(ctx, listed{Name: "a"}), nil
	}}))
	c := h.start(config)
	h.eventually("listed", "a", synced(1))
	require.NoError(t, c.PauseInformer(t.Context(), "listed"))
	paused := func() bool {
		described, err := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:listed").Describe(t.Context())
		require.NoError(t, err)
		return described.Schedule.State.Paused
	}
	require.True(t, paused())
	// The pause is stored in Postgres: a recreated schedule is paused too.
	require.NoError(t, h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:listed").Delete(t.Context()))
	require.NoError(t, c.Stop(context.Background()))
	c = h.start(config)
	until(t, paused)
	require.EqualValues(t, 1, passes.Load())
	require.NoError(t, c.ResumeInformer(t.Context(), "listed"))
	require.False(t, paused())
	require.NoError(t, h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:listed").
		Trigger(t.Context(), client.ScheduleTriggerOptions{}))
	until(t, func() bool { return passes.Load() >= 2 })
}
