package activities_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestWorkHasTheTimeoutOfItsControllerOrElseOfTheClientOrNone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ controller, client, want time.Duration }{
		"controller": {5 * time.Minute, time.Minute, 5 * time.Minute},
		"client":     {0, 2 * time.Minute, 2 * time.Minute},
		"none":       {-1, time.Minute, 0},
		"none at all": {
			0, -1, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var deadline, called time.Time
			var bounded bool
			h := newHarness(t, func(ctx context.Context, _ *deltatype.ResourceRow) activities.Outcome {
				deadline, bounded = ctx.Deadline()
				called = time.Now()
				return synced
			})
			h.handler.workTimeout, h.WorkTimeout = c.controller, c.client
			ref := h.inform(object("a", "1"))
			began := time.Now()
			h.attempt(ref)
			require.Equal(t, c.want > 0, bounded)
			if bounded {
				require.WithinRange(t, deadline.Add(-c.want), began, called, "the timeout runs from when Work is called")
			}
		})
	}
}

func TestWorkThatTimesOutIsAFailedAttemptThatSaysSo(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(ctx context.Context, _ *deltatype.ResourceRow) activities.Outcome {
		<-ctx.Done()
		return activities.Outcome{Verdict: activities.VerdictFailed, Error: ctx.Err().Error()}
	})
	h.handler.workTimeout = 20 * time.Millisecond
	ref := h.inform(object("a", "1"))
	require.Equal(t, deltatype.ResourceStateFailed, h.attempt(ref).State)
	require.Equal(t, []string{"timed out after 20ms: context deadline exceeded"}, errorsOf(h.row(ref)))
}

func TestWorkThatSucceedsLateHasSucceeded(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(ctx context.Context, _ *deltatype.ResourceRow) activities.Outcome {
		<-ctx.Done()
		return synced
	})
	h.handler.workTimeout = 20 * time.Millisecond
	ref := h.inform(object("a", "1"))
	require.Equal(t, deltatype.ResourceStateSynced, h.attempt(ref).State)
	require.Empty(t, h.row(ref).Errors)
}

func TestWorkThatEndsItsGoroutineIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		runtime.Goexit()
		return synced
	})
	ref := h.inform(object("a", "1"))
	require.Equal(t, deltatype.ResourceStateFailed, h.attempt(ref).State)
	require.Contains(t, h.row(ref).Errors[0].Error, "runtime.Goexit")
}

// The attempt is closed, and what Work still does counts against the bounds until it returns. Its result is not used.
func TestWorkThatIgnoresItsContextIsClosedAndKeepsItsPlacesUntilItReturns(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	defer func() {
		if t.Failed() {
			close(goOn)
		}
	}()
	h := newHarness(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		<-goOn
		return synced
	})
	limit := newLimit()
	h.Slots, h.Limit = activities.NewSlots(1), limit
	h.handler.workTimeout, h.AbandonAfter = 20*time.Millisecond, 30*time.Millisecond
	ref := h.inform(object("a", "1"))

	// The slot is taken and released by the worker around the activity.
	_, err := h.Slots.ReserveSlot(t.Context(), nil)
	require.NoError(t, err)
	started := time.Now()
	step := h.attempt(ref)
	require.GreaterOrEqual(t, time.Since(started), 50*time.Millisecond, "Work has its timeout and some grace")
	h.Slots.ReleaseSlot(nil)

	require.Equal(t, deltatype.ResourceStateFailed, step.State)
	require.Equal(t, []string{"timed out after 20ms: Work did not return within 30ms of the end of its context"}, errorsOf(h.row(ref)))
	before := h.row(ref)
	require.Nil(t, h.Slots.TryReserveSlot(nil), "Work still runs, but its slot is free")
	require.Len(t, limit.places, 1, "Work still runs, but its place in the namespace is free")

	close(goOn)
	_, err = h.Slots.ReserveSlot(t.Context(), nil)
	require.NoError(t, err)
	limit.places <- struct{}{} // as soon as the place is free
	require.Equal(t, before, h.row(ref), "the late result is used")
}

func TestWorkWaitsForAPlaceInItsNamespace(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(synced))
	limit := newLimit()
	h.Limit = limit
	limit.places <- struct{}{}
	o := object("a", "1")
	o.Namespace = "space"
	ref := h.inform(o)

	done := make(chan activities.Step)
	go func() {
		step, _ := h.Attempt(context.Background(), ref)
		done <- step
	}()
	require.Equal(t, "space", <-limit.asked)
	require.Zero(t, h.handler.worked.Load())
	<-limit.places
	require.Equal(t, deltatype.ResourceStateSynced, (<-done).State)
	require.Empty(t, limit.places, "the place is given back")
}

func TestAnAttemptThatStillWaitsForItsPlaceAtTheEndIsGivenBack(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	limit := newLimit()
	h.Limit = limit
	limit.places <- struct{}{}
	stopping, stop := context.WithCancel(t.Context())
	h.Stopping = stopping
	go func() {
		<-limit.asked
		stop()
	}()
	ref := h.inform(object("a", "1"))
	require.Equal(t, activities.Step{Next: activities.NextAttempt, Generation: 1, State: deltatype.ResourceStateScheduled}, h.attempt(ref))
	require.Zero(t, h.row(ref).Attempt, "Work was not called")
	require.Empty(t, h.row(ref).Errors)
}

func TestTheEndOfTheClientEndsWorkAndTheOutcomeIsWritten(t *testing.T) {
	t.Parallel()
	stopping, stop := context.WithCancel(t.Context())
	h := newHarness(t, func(ctx context.Context, _ *deltatype.ResourceRow) activities.Outcome {
		stop()
		<-ctx.Done()
		return activities.Outcome{Verdict: activities.VerdictFailed, Error: ctx.Err().Error()}
	})
	h.Stopping = stopping
	ref := h.inform(object("a", "1"))
	require.Equal(t, deltatype.ResourceStateFailed, h.attempt(ref).State)
	require.Equal(t, []string{"stopped: context canceled"}, errorsOf(h.row(ref)))
}

// limit is a namespace with one place.
type limit struct {
	places chan struct{}
	asked  chan string
}

func newLimit() limit {
	return limit{places: make(chan struct{}, 1), asked: make(chan string, 1)}
}

func (l limit) Acquire(ctx context.Context, namespace string) (release func(), err error) {
	l.asked <- namespace
	select {
	case l.places <- struct{}{}:
		return func() { <-l.places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
