package delta_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestAnInformedObjectIsSynced(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	worked := make(chan delta.Resource[account], 10)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		worked <- *r
		return nil
	})

	result, err := c.Inform(t.Context(), account{Name: "ann", Plan: "free"}, nil)
	require.NoError(t, err)
	require.False(t, result.AlreadyExists)
	require.True(t, result.Scheduled)
	require.Equal(t, deltatype.ResourceStateScheduled, result.Resource.State)

	row := h.eventually("account", "ann", synced(1))
	require.Equal(t, 1, row.Attempt)
	require.NotNil(t, row.SyncedAt)
	require.Equal(t, h.Prefix+"/account/ann", row.WorkflowID)
	got := <-worked
	require.Equal(t, account{Name: "ann", Plan: "free"}, got.Object)

	// Unchanged: left alone.
	result, err = c.Inform(t.Context(), account{Name: "ann", Plan: "free"}, nil)
	require.NoError(t, err)
	require.True(t, result.AlreadyExists)
	require.False(t, result.Scheduled)
	require.EqualValues(t, 1, result.Resource.Generation)

	// Changed: a new generation.
	result, err = c.Inform(t.Context(), account{Name: "ann", Plan: "paid"}, nil)
	require.NoError(t, err)
	require.True(t, result.Scheduled)
	h.eventually("account", "ann", synced(2))
	require.Equal(t, account{Name: "ann", Plan: "paid"}, (<-worked).Object)
	require.Empty(t, worked)
}

func TestAFailureIsTriedAgainAndItsErrorKept(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		if r.Attempt == 1 {
			return errors.New("upstream says no")
		}
		return nil
	})
	events, cancel := c.Subscribe(delta.EventCategoryObjectFailed)
	defer cancel()
	before := time.Now()
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	failed := nextEvent(t, events).Resource // the row itself is tried again before a busy machine has looked
	require.Equal(t, deltatype.ResourceStateFailed, failed.State)
	// The wait is a second, within a tenth, and begins when the outcome is written: some time between the claim and the event.
	require.WithinRange(t, *failed.DueAt, failed.AttemptedAt.Add(time.Second*9/10), time.Now().Add(time.Second*11/10))

	row := h.eventually("account", "ann", synced(1))
	require.Equal(t, 2, row.Attempt)
	require.Len(t, row.Errors, 1)
	require.Equal(t, "upstream says no", row.Errors[0].Error)
	require.Equal(t, 1, row.Errors[0].Attempt)
	require.Empty(t, row.Errors[0].Trace)
	require.WithinRange(t, row.Errors[0].At, before, time.Now())
	require.False(t, row.AttemptedAt.Before(*failed.DueAt), "not before it was due")
}

func TestAfterMaxAttemptsTheResourceIsDegradedAndStaysSo(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var calls atomic.Int32
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		calls.Add(1)
		return errors.New("hopeless")
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, &delta.InformOpts{MaxAttempts: 2})
	require.NoError(t, err)
	row := h.eventually("account", "ann", inState(deltatype.ResourceStateDegraded))
	require.Equal(t, 2, row.Attempt)
	require.Len(t, row.Errors, 2)
	require.Zero(t, row.SyncedGeneration)
	require.Nil(t, row.SyncedAt)

	// A wake-up does not retry a degraded resource.
	h.wake("account", "ann")
	require.EqualValues(t, 2, calls.Load())
	require.Equal(t, deltatype.ResourceStateDegraded, h.row("account", "ann").State)
}

func TestAPanicIsAFailedAttemptWithItsStack(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error { panic("index out of luck") })
	_, err := c.Inform(t.Context(), account{Name: "ann"}, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	row := h.eventually("account", "ann", inState(deltatype.ResourceStateDegraded))
	require.Equal(t, "panic: index out of luck", row.Errors[0].Error)
	require.Contains(t, row.Errors[0].Trace, "lifecycle_test.go")
}

func TestWorkThatFindsTheObjectGoneMakesItDeleted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		return fmt.Errorf("looking it up: %w", delta.ResourceDelete(errors.New("404")))
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "ann", inState(deltatype.ResourceStateDeleted))
	require.Equal(t, "looking it up: resource deleted: 404", row.Errors[0].Error)
	require.Equal(t, 1, row.Attempt)
	require.NotNil(t, row.DueAt)
}

func TestAnInformDuringWorkDoesNotWaitAndIsSyncedNext(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	started, finish := make(chan string, 4), make(chan struct{})
	c := h.startLongClaims(func(ctx context.Context, r *delta.Resource[account]) error {
		started <- r.Object.Plan
		select {
		case <-finish:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	_, err := c.Inform(t.Context(), account{Name: "ann", Plan: "one"}, nil)
	require.NoError(t, err)
	require.Equal(t, "one", <-started)

	// Work blocks until the test ends it: if Work held a lock, this inform would wait for ever.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = c.Inform(ctx, account{Name: "ann", Plan: "two"}, nil)
	require.NoError(t, err, "Work holds no lock")
	require.EqualValues(t, 2, h.row("account", "ann").Generation)

	finish <- struct{}{}
	require.Equal(t, "two", <-started)
	row := h.row("account", "ann")
	require.EqualValues(t, 1, row.SyncedGeneration, "the result of the first counts for the old generation")
	require.Equal(t, deltatype.ResourceStatePending, row.State)
	require.Equal(t, 1, row.Attempt, "attempts count within a generation")
	finish <- struct{}{}
	h.eventually("account", "ann", synced(2))
	require.JSONEq(t, `{"name": "ann", "plan": "two"}`, string(h.row("account", "ann").EncodedObject))
}

// patient is a kind with a retry after an hour.
type patient struct{ account }

func (patient) Kind() string { return "patient" }
func (patient) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, RetryPolicy: delta.RetryPolicy{InitialInterval: time.Hour, MaximumInterval: time.Hour}}
}

func TestAnInformInterruptsTheBackoff(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[patient]{work: func(_ context.Context, r *delta.Resource[patient]) error {
		if r.Object.Plan == "bad" {
			return errors.New("bad plan")
		}
		return nil
	}})))
	_, err := c.Inform(t.Context(), patient{account{Name: "ann", Plan: "bad"}}, nil)
	require.NoError(t, err)
	// After the first failure, it waits for about an hour.
	waiting := h.eventually("patient", "ann", inState(deltatype.ResourceStateFailed))
	h.awaitEvent(h.Prefix+"/patient/ann", func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
	_, err = c.Inform(t.Context(), patient{account{Name: "ann", Plan: "good"}}, nil)
	require.NoError(t, err)
	row := h.eventually("patient", "ann", synced(2))
	require.True(t, row.SyncedAt.Before(*waiting.DueAt), "synced at %s, not waiting until %s", row.SyncedAt, waiting.DueAt)
	require.Equal(t, 1, row.Attempt)
}

func TestTheSameWakeUpTwiceWorksOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var calls atomic.Int32
	started, finish := make(chan struct{}, 4), make(chan struct{})
	c := h.startLongClaims(func(context.Context, *delta.Resource[account]) error {
		calls.Add(1)
		started <- struct{}{}
		<-finish
		return nil
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	<-started
	h.signal("account", "ann")
	h.signal("account", "ann")
	close(finish)
	h.eventually("account", "ann", synced(1))
	h.signal("account", "ann")
	// A later sync shows that the wake-ups have been handled.
	_, err = c.Inform(t.Context(), account{Name: "ann", Plan: "new"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(2))
	require.EqualValues(t, 2, calls.Load())
}

func TestWorkHasItsTimeout(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[account]{
		timeout: 100 * time.Millisecond,
		work: func(ctx context.Context, _ *delta.Resource[account]) error {
			<-ctx.Done()
			return ctx.Err()
		},
	})))
	_, err := c.Inform(t.Context(), account{Name: "ann"}, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	row := h.eventually("account", "ann", inState(deltatype.ResourceStateDegraded))
	require.Equal(t, "timed out after 100ms: context deadline exceeded", row.Errors[0].Error)
}

func TestWorkThatIgnoresItsContextIsLeftBehindAndKeepsItsPlace(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	release := make(chan struct{})
	var running, most atomic.Int32
	config := h.config(with(&controller[serial]{
		timeout: 50 * time.Millisecond,
		work: func(_ context.Context, r *delta.Resource[serial]) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			if r.Object.Name == "stuck" {
				<-release
			}
			return nil
		},
	}))
	c := h.client(config)
	c.SetTiming(0, 0, 50*time.Millisecond)
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // the test is over

	_, err := c.Inform(t.Context(), serial{account{Name: "stuck"}}, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	row := h.eventually("serial", "stuck", inState(deltatype.ResourceStateDegraded))
	require.Contains(t, row.Errors[0].Error, "did not return within 50ms")

	_, err = c.Inform(t.Context(), serial{account{Name: "next"}}, nil)
	require.NoError(t, err)
	// The slot is taken: the other resource waits until Work has returned.
	h.eventually("serial", "next", func(*deltatype.ResourceRow) bool { return h.countWakeUps("serial", "next") > 0 })
	require.Equal(t, deltatype.ResourceStateScheduled, h.row("serial", "next").State)
	close(release)
	h.eventually("serial", "next", synced(1))
	require.EqualValues(t, 1, most.Load(), "never more than the parallelism")
	require.Equal(t, deltatype.ResourceStateDegraded, h.row("serial", "stuck").State, "the late result is not used")
}

func TestPointerReceiversAndTheClientInTheContext(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[*pointed]{work: func(ctx context.Context, r *delta.Resource[*pointed]) error {
		if r.Object.Name != "first" {
			return nil
		}
		// Work can inform objects that it finds.
		_, err := delta.ClientFromContext(ctx).Inform(ctx, &pointed{Name: "second"}, nil)
		return err
	}})))
	_, err := c.Inform(t.Context(), &pointed{Name: "first"}, nil)
	require.NoError(t, err)
	h.eventually("pointed", "first", synced(1))
	h.eventually("pointed", "second", synced(1))

	_, err = delta.ClientFromContextSafely(t.Context())
	require.Error(t, err)
	require.Panics(t, func() { delta.ClientFromContext(t.Context()) })
}

func TestWorkCannotChangeTheRow(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		r.Generation, r.Attempt, r.ObjectID, r.ObjectKind = 99, 99, "other", "other"
		*r.ResourceRow = deltatype.ResourceRow{}
		return nil
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(1))
}
