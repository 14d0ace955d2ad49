package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
)

// workerStop returns a channel that closes when the activity's worker begins to stop; nil outside of an activity.
func workerStop(ctx context.Context) <-chan struct{} {
	if !activity.IsActivity(ctx) {
		return nil
	}
	return activity.GetWorkerStopChannel(ctx)
}

// errStopping returns an error that makes Temporal give the rest of the work to another worker.
func errStopping(what string) error {
	return temporal.NewApplicationError("the worker stops; "+what, "delta.Stopping")
}

// writeGrace is how long after a hard stop outcomes may still be written: Work returns before that, or is abandoned.
const writeGrace = time.Second

// untilAbandoned returns the context of statements after user code. It outlives ctx, and ends some time after a hard
// stop.
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

// sleep waits, and reports whether ctx is still alive.
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

// untilStopped returns the context of user code. It also ends when the client no longer waits.
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

// withoutSilence returns ctx without cancellations that only mean that Temporal did not answer. The SDK gives up on a
// heartbeat after seconds, but Postgres decides whether others may claim the resource. A person's cancellation in
// Temporal still ends it.
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

// isOrdered reports whether a person has cancelled, paused or reset the activity.
func isOrdered(cause error) bool {
	return temporal.IsCanceledError(cause) || errors.Is(cause, activity.ErrActivityPaused) || errors.Is(cause, activity.ErrActivityReset)
}
