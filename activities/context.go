package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
)

// workerStop is closed when the worker that runs the activity begins to stop; nil outside of one.
func workerStop(ctx context.Context) <-chan struct{} {
	if !activity.IsActivity(ctx) {
		return nil
	}
	return activity.GetWorkerStopChannel(ctx)
}

// errStopping has Temporal give to another worker what this one leaves.
func errStopping(what string) error {
	return temporal.NewApplicationError("the worker stops; "+what, "delta.Stopping")
}

// writeGrace is how long after a hard stop outcomes may still be written: Work has to return before, or is abandoned.
const writeGrace = time.Second

// untilAbandoned is the context of what is written after user code. It outlives ctx, and ends some time after a hard stop.
func (a *Activities) untilAbandoned(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if a.Stopping == nil {
		return ctx, cancel
	}
	unlink := context.AfterFunc(a.Stopping, func() { time.AfterFunc(a.AbandonAfter+writeGrace, cancel) })
	return ctx, func() {
		unlink()
		cancel()
	}
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// untilStopped is the context for user code: it also ends when the client does not wait any longer.
func (a *Activities) untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.Context != nil {
		ctx = a.Context(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	if a.Stopping == nil {
		return ctx, cancel
	}
	unlink := context.AfterFunc(a.Stopping, cancel)
	return ctx, func() {
		unlink()
		cancel()
	}
}

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout < 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// withoutSilence is ctx without the cancellation that only says that Temporal did not answer: the SDK gives up on a heartbeat after
// seconds, and whether others may have the resource is for Postgres to say. What a person orders in Temporal ends it.
func withoutSilence(ctx context.Context) context.Context {
	if !activity.IsActivity(ctx) {
		return ctx
	}
	without, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); isOrdered(cause) {
			cancel(cause)
		}
	})
	return without
}

// isOrdered reports whether somebody has cancelled, paused or reset the activity.
func isOrdered(cause error) bool {
	return temporal.IsCanceledError(cause) || errors.Is(cause, activity.ErrActivityPaused) || errors.Is(cause, activity.ErrActivityReset)
}
