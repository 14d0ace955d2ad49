package activities_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

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
func TestWorkThatIgnoresItsContextKeepsItsSlotsAndItsClaim(t *testing.T) {
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
	h.Limit, h.WorkSlots = limit, semaphore.NewWeighted(1)
	h.handler.workTimeout, h.AbandonAfter = 20*time.Millisecond, 30*time.Millisecond
	ref := h.inform(object("a", "1"))

	started := time.Now()
	step := h.attempt(ref)
	require.GreaterOrEqual(t, time.Since(started), 50*time.Millisecond, "Work has its timeout and some grace")

	require.Equal(t, deltatype.ResourceStateFailed, step.State)
	require.Equal(t, []string{"timed out after 20ms: Work did not return within 30ms of the end of its context"}, errorsOf(h.row(ref)))
	before := h.row(ref)
	require.NotNil(t, before.ClaimedUntil, "Work still runs, but the resource is not claimed")
	require.False(t, h.WorkSlots.TryAcquire(1), "Work still runs, but its slot is free")
	require.Len(t, limit.places, 1, "Work still runs, but its place in the namespace is free")
	h.set(ref, "due_at = now()")
	waiting := h.attempt(ref)
	require.Equal(t, activities.NextAttempt, waiting.Next, "another call begins beside the first")
	require.Positive(t, waiting.Wait)
	require.EqualValues(t, 1, h.handler.worked.Load())

	close(goOn)
	require.NoError(t, h.WorkSlots.Acquire(t.Context(), 1))
	limit.places <- struct{}{} // as soon as the place is free
	require.Eventually(t, func() bool { return h.row(ref).ClaimedUntil == nil }, patience, 10*time.Millisecond, "the claim is never closed")
	after := h.row(ref)
	require.False(t, after.DispatchAt.After(h.now()), "what came due meanwhile is dispatched")
	before.ClaimedUntil, before.DueAt, before.DispatchAt = nil, after.DueAt, after.DispatchAt
	require.Equal(t, before, after, "the late result is used")
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
	require.Equal(t, activities.Step{
		Next: activities.NextAttempt, Wait: 100 * time.Millisecond, Generation: 1, State: deltatype.ResourceStateScheduled,
	}, h.attempt(ref))
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

func (limit) AwaitRates(context.Context, string, string, *activities.RateLimit) (begun func(), hasWaited bool, err error) {
	return func() {}, false, nil
}

func (limit) Arrive(string, string) {}

func (limit) Decline(string, string) {}

func (limit) KeyedRoom(string) (limited []string, rooms []int32, full []string) {
	return nil, nil, []string{}
}

func (limit) Queue(string, string) (func(), bool) { return func() {}, true }

func (limit) IsRated(string) bool { return false }

func (l limit) IsFull(string) bool { return len(l.places) == cap(l.places) }

func (l limit) TryAcquire(string) (release func(), ok bool) {
	select {
	case l.places <- struct{}{}:
		return func() { <-l.places }, true
	default:
		return nil, false
	}
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
