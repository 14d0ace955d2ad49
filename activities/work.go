package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/semaphore"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// HeartbeatTimeout is how long a worker may be silent before an attempt or a pass is given to another one.
const HeartbeatTimeout = 10 * time.Second

// heartbeat reports that the worker lives until the function is called. The SDK sends no more of them than the timeout
// needs.
func (a *Activities) heartbeat(ctx context.Context, details ...any) (stop func()) {
	return a.heartbeatWith(ctx, func() []any { return details })
}

// heartbeatWith is heartbeat with details that change. A heartbeat that is under way when the activity ends arrives before its
// result: cut off with the activity's context, it would be a warning in the SDK's log.
func (a *Activities) heartbeatWith(ctx context.Context, details func() []any) (stop func()) {
	if !activity.IsActivity(ctx) {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(beat(ctx))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				activity.RecordHeartbeat(context.WithoutCancel(ctx), details()...)
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// beat is how often a sign of life is due.
func beat(ctx context.Context) time.Duration {
	timeout := HeartbeatTimeout
	if activity.IsActivity(ctx) && activity.GetInfo(ctx).HeartbeatTimeout > 0 {
		timeout = activity.GetInfo(ctx).HeartbeatTimeout
	}
	return timeout / 4
}

// work calls the user's Work for one resource.
func (a *Activities) work(ctx context.Context, row *deltatype.ResourceRow, completeTx CompleteTx) Outcome {
	ctx, unlink := a.untilStopped(ctx)
	defer unlink()
	tasks := []*Task{{Row: row, CompleteTx: completeTx}}
	outcomes := a.call(ctx, tasks, a.workOne, func(call func()) { go call() })
	if outcomes == nil {
		return Outcome{Verdict: VerdictSnoozed} // given back: an attempt is a call of Work
	}
	return outcomes[0]
}

// workOne calls Work for the one task.
func (a *Activities) workOne(ctx context.Context, tasks []*Task) []Outcome {
	return []Outcome{a.Handler.Work(ctx, tasks[0])}
}

// call calls user code for resources of one namespace, within its limits, in a goroutine that spawn has for it. It returns
// even if the call does not: that call then keeps its place in the kind's parallelism, and in its namespace, until it ends.
// It returns nil where user code was not called, because the context ended while its place was waited for.
// The tasks are the call's: what it has made of them is not looked at again.
func (a *Activities) call(
	ctx context.Context, tasks []*Task, do func(context.Context, []*Task) []Outcome, spawn func(call func()),
) []Outcome {
	row := tasks[0].Row
	kind, objectID, attempt := row.Kind, row.ObjectID, row.Attempt
	held, ok := a.enter(ctx, row.Namespace)
	if !ok {
		return nil
	}

	timeout := a.timeoutOf(tasks)
	workCtx, cancel := withTimeout(ctx, timeout)
	defer cancel()

	done := make(chan []Outcome, 1)
	spawn(func() {
		var outcomes []Outcome
		defer func() {
			held.leave()
			if outcomes == nil {
				// Work has ended its goroutine, as a failing test assertion does.
				outcomes = alike(tasks, Outcome{Verdict: VerdictFailed, Error: "Work ended its goroutine (runtime.Goexit)"})
			}
			done <- outcomes
		}()
		outcomes = do(workCtx, tasks)
	})

	select {
	case outcomes := <-done:
		return a.explain(workCtx, outcomes, timeout)
	case <-workCtx.Done():
	}
	grace := time.NewTimer(a.AbandonAfter)
	defer grace.Stop()
	select {
	case outcomes := <-done:
		return a.explain(workCtx, outcomes, timeout)
	case <-grace.C:
	}

	a.Logger.Error("Work ignores the end of its context; its places stay taken until it returns",
		"kind", kind, "object_id", objectID, "attempt", attempt, "resources", len(tasks), "reason", context.Cause(workCtx))
	free := a.Slots.Retain()
	go func() {
		<-done
		free()
		a.Logger.Warn("Work returned after its attempt was closed; the result is not used",
			"kind", kind, "object_id", objectID, "attempt", attempt, "resources", len(tasks))
	}()
	return a.explain(workCtx, alike(tasks, Outcome{
		Verdict: VerdictFailed,
		Error:   fmt.Sprintf("Work did not return within %s of the end of its context", a.AbandonAfter),
	}), timeout)
}

func alike(tasks []*Task, outcome Outcome) []Outcome {
	return slices.Repeat([]Outcome{outcome}, len(tasks))
}

// timeoutOf is the longest that one of the tasks has; negative where one has no bound.
func (a *Activities) timeoutOf(tasks []*Task) (longest time.Duration) {
	for _, task := range tasks {
		timeout := a.Handler.WorkTimeout(task)
		if timeout == 0 {
			timeout = a.WorkTimeout
		}
		if timeout < 0 {
			return timeout
		}
		longest = max(longest, timeout)
	}
	return longest
}

// places are what a call of Work takes: one in the kind's parallelism, and one in its namespace, where these are bounded.
type places struct {
	parallel *semaphore.Weighted
	free     func()
}

func (p places) leave() {
	if p.parallel != nil {
		p.parallel.Release(1)
	}
	if p.free != nil {
		p.free()
	}
}

// enter waits for the places of a call, until ctx ends.
func (a *Activities) enter(ctx context.Context, namespace string) (held places, ok bool) {
	if a.Parallel != nil {
		if err := a.Parallel.Acquire(ctx, 1); err != nil {
			return held, false
		}
		held.parallel = a.Parallel
	}
	if a.Limit != nil {
		free, err := a.Limit.Acquire(ctx, namespace)
		if err != nil {
			held.leave()
			return places{}, false
		}
		held.free = free
	}
	return held, true
}

// explain adds to failures why their context had ended, if it had.
func (a *Activities) explain(ctx context.Context, outcomes []Outcome, timeout time.Duration) []Outcome {
	if ctx.Err() == nil {
		return outcomes
	}
	for i := range outcomes {
		outcome := &outcomes[i]
		switch {
		case outcome.Verdict != VerdictFailed:
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			outcome.Error = fmt.Sprintf("timed out after %s: %s", timeout, outcome.Error)
		default:
			outcome.Error = "stopped: " + outcome.Error
		}
	}
	return outcomes
}

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
