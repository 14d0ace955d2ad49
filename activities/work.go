package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/chariot-giving/delta/internal/shorten"
)

// workOne calls Work for the one task.
func (a *Activities) workOne(ctx context.Context, tasks []*Task) []Outcome {
	return []Outcome{a.Handler.Work(ctx, tasks[0])}
}

// finalizeOne calls Finalize for the one task.
func (a *Activities) finalizeOne(ctx context.Context, tasks []*Task) []Outcome {
	return []Outcome{a.Handler.Finalize(ctx, tasks[0])}
}

// userFunc is a function of the user's controller, with its name for errors and logs.
type userFunc struct {
	name string
	do   func(context.Context, []*Task) []Outcome
}

// callUser calls user code for resources of one namespace, within its limits, in a goroutine that spawn starts. It
// returns even if the call does not. That call keeps its slots, and the claim of its resources, until it ends.
//
// If the context ends before a slot is free, user code is not called and the resources are released. The call owns the
// tasks: nothing reads what it made of them.
func (e *execution) callUser(
	set []*claimed, tasks []*Task, user userFunc, spawn func(call func()),
) []Outcome {
	row := tasks[0].Row
	kind := row.ObjectKind
	taken, ok := e.reserved.useSlots(row.Namespace)
	if !ok {
		e.reserved.release()
		if taken, ok = e.acquireSlots(e.base, row.Namespace); !ok {
			return repeatOutcome(tasks, Outcome{Verdict: VerdictReleased})
		}
	}
	if e.Snoozes.isSnoozed(e.base, kind, row.Namespace, set[0].takenAt) {
		taken.release()
		return repeatOutcome(tasks, Outcome{Verdict: VerdictWithheld})
	}

	timeout := e.timeoutOf(tasks)
	workCtx, cancel := withTimeout(e.base, timeout)
	defer cancel()
	workCtx, end := context.WithCancelCause(workCtx)
	defer end(nil)
	defer func() { e.observeLost(context.Cause(workCtx), set) }()
	ids := make([]int64, len(set))
	for i, one := range set {
		ids[i] = one.worked.ID
	}
	defer e.claim.registerCall(ids, end)()

	done := make(chan []Outcome, 1)
	spawn(func() {
		var outcomes []Outcome
		defer func() {
			taken.release()
			if outcomes == nil {
				// The call ended its goroutine, as a failing test assertion does.
				outcomes = repeatOutcome(tasks, Outcome{Verdict: VerdictFailed, Error: user.name + " ended its goroutine (runtime.Goexit)"})
			}
			done <- outcomes
		}()
		if e.claim.isLost() { // while the call waited for a slot
			outcomes = repeatOutcome(tasks, Outcome{Verdict: VerdictReleased})
			return
		}
		began := time.Now()
		outcomes = user.do(workCtx, tasks)
		took := time.Since(began)
		if e.Pace != nil {
			e.Pace.Called(took)
		}
		for i := range outcomes {
			outcomes[i].Took = took
		}
		e.writeSnoozes(set, outcomes) // before the slot is released, so that no other call begins
	})

	select {
	case outcomes := <-done:
		return e.explainOutcomes(workCtx, outcomes, timeout)
	case <-workCtx.Done():
	}
	grace := time.NewTimer(e.AbandonAfter)
	defer grace.Stop()
	select {
	case outcomes := <-done:
		return e.explainOutcomes(workCtx, outcomes, timeout)
	case <-grace.C:
	}

	fields := append(e.logFields(set[0].worked), "resources", len(tasks), "reason", context.Cause(workCtx))
	e.Logger.Error(user.name+" ignores the end of its context; its slots stay taken, and its resources claimed, until it returns", fields...)
	returned := make(chan struct{})
	e.claim.retain()
	go func() {
		defer e.claim.release()
		e.logReturned(user, <-done, fields)
		close(returned)
	}()
	return e.explainOutcomes(workCtx, repeatOutcome(tasks, Outcome{
		Verdict:  VerdictFailed,
		Error:    fmt.Sprintf("%s did not return within %s of the end of its context", user.name, e.AbandonAfter),
		returned: returned,
	}), timeout)
}

// logReturned logs a call that returned after its attempt was closed, because its errors are recorded nowhere else.
func (e *execution) logReturned(user userFunc, outcomes []Outcome, fields []any) {
	level := slog.LevelWarn
	for i := range outcomes {
		if outcomes[i].Error != "" {
			fields = append(fields, "error", shorten.Text(outcomes[i].Error, maxShownError))
			if trace := outcomes[i].Trace; trace != "" {
				level, fields = slog.LevelError, append(fields, "stack", trace)
			}
			break
		}
	}
	e.Logger.Log(context.Background(), level, user.name+" returned after its attempt was closed; the result is not used", fields...)
}

func repeatOutcome(tasks []*Task, outcome Outcome) []Outcome {
	return slices.Repeat([]Outcome{outcome}, len(tasks))
}

// timeoutOf returns the longest timeout of the tasks; negative where one has none.
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

// explainOutcomes adds to failures why their context ended.
func (a *Activities) explainOutcomes(ctx context.Context, outcomes []Outcome, timeout time.Duration) []Outcome {
	if ctx.Err() == nil {
		return outcomes
	}
	for i := range outcomes {
		outcome := &outcomes[i]
		switch {
		case outcome.Verdict != VerdictFailed:
		case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
			outcome.Error = fmt.Sprintf("timed out after %s: %s", timeout, outcome.Error)
		case errors.Is(context.Cause(ctx), errClaimLost):
			// The call is not at fault. If others have the resource by now, nothing is written at all.
			outcome.Verdict = VerdictReleased
		case errors.Is(context.Cause(ctx), errDeleted):
			outcome.Error = "ended because the resource was deleted: " + outcome.Error
		case isOrdered(context.Cause(ctx)):
			outcome.Error = "cancelled in Temporal: " + outcome.Error
		default:
			outcome.Error = "stopped: " + outcome.Error
		}
	}
	return outcomes
}
