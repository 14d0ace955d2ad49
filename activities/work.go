package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/semaphore"

	"github.com/chariot-giving/delta/db"
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

// userFunc is a function of the user's controller, with the name that errors and logs give it.
type userFunc struct {
	name string
	do   func(context.Context, []*Task) []Outcome
}

// call calls user code for resources of one namespace, within its limits, in a goroutine that spawn has for it. It returns
// even if the call does not: that call then keeps its slots, and the claim of its resources, until it ends.
// Where user code was not called, because the context ended while a slot was awaited, the resources are released.
// The tasks are the call's: what it has made of them is not looked at again.
func (e *execution) call(
	set []*claimed, tasks []*Task, user userFunc, spawn func(call func()),
) []Outcome {
	row := tasks[0].Row
	kind := row.ObjectKind
	taken, ok := e.reserved.take(row.Namespace)
	if !ok {
		e.reserved.leave()
		if taken, ok = e.enter(e.base, row.Namespace); !ok {
			return alike(tasks, Outcome{Verdict: VerdictReleased})
		}
	}
	if e.Snoozes.hold(e.base, kind, row.Namespace, set[0].takenAt) {
		taken.leave()
		return alike(tasks, Outcome{Verdict: VerdictWithheld})
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
	defer e.claim.run(ids, end)()

	done := make(chan []Outcome, 1)
	spawn(func() {
		var outcomes []Outcome
		defer func() {
			taken.leave()
			if outcomes == nil {
				// It has ended its goroutine, as a failing test assertion does.
				outcomes = alike(tasks, Outcome{Verdict: VerdictFailed, Error: user.name + " ended its goroutine (runtime.Goexit)"})
			}
			done <- outcomes
		}()
		if e.claim.isLost() { // while the call waited for a slot
			outcomes = alike(tasks, Outcome{Verdict: VerdictReleased})
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
		e.snooze(set, outcomes) // before a slot is free for another call
	})

	select {
	case outcomes := <-done:
		return e.explain(workCtx, outcomes, timeout)
	case <-workCtx.Done():
	}
	grace := time.NewTimer(e.AbandonAfter)
	defer grace.Stop()
	select {
	case outcomes := <-done:
		return e.explain(workCtx, outcomes, timeout)
	case <-grace.C:
	}

	fields := append(e.fields(set[0].worked), "resources", len(tasks), "reason", context.Cause(workCtx))
	e.Logger.Error(user.name+" ignores the end of its context; its slots stay taken, and its resources claimed, until it returns", fields...)
	returned := make(chan struct{})
	e.claim.hold()
	go func() {
		defer e.claim.release()
		e.logReturned(user, <-done, fields)
		close(returned)
	}()
	return e.explain(workCtx, alike(tasks, Outcome{
		Verdict:  VerdictFailed,
		Error:    fmt.Sprintf("%s did not return within %s of the end of its context", user.name, e.AbandonAfter),
		returned: returned,
	}), timeout)
}

// logReturned says that a call has returned whose attempt was closed before, and with what: nothing else has its errors.
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

// isGoingOn reports whether the call has not returned yet.
func (o *Outcome) isGoingOn() bool {
	if o.returned == nil {
		return false
	}
	select {
	case <-o.returned:
		return false
	default:
		return true
	}
}

// closeKept closes the claims that outcomes have left open, when their calls of Work return. It is called once the outcomes are
// written: closed before, the claim would refuse them.
func (e *execution) closeKept(written []*claimed) {
	byCall := map[<-chan struct{}][]*claimed{}
	for _, one := range written {
		if one.kept {
			byCall[one.outcome.returned] = append(byCall[one.outcome.returned], one)
		}
	}
	for returned, kept := range byCall {
		e.claim.hold()
		go func() {
			defer e.claim.release()
			<-returned
			e.closeClaims(kept)
		}()
	}
}

// closeClaims lets others have resources whose outcome was written before their call of Work returned. Those that are locked by other
// transactions are repeated.
func (e *execution) closeClaims(kept []*claimed) {
	ids := make([]int64, len(kept))
	for i, one := range kept {
		ids[i] = one.worked.ID
	}
	ctx, cancel := e.untilAbandoned(context.WithoutCancel(e.writes))
	defer cancel()
	for pauses := newLockedPauses(); ; {
		err := retry(ctx, writeTries, func(ctx context.Context) error {
			if _, err := db.New().CloseClaims(ctx, db.Planned(e.Pool, len(ids)), db.CloseClaimsParams{Ids: ids, Claim: e.claim.id}); err != nil {
				return err
			}
			open, err := db.New().OpenClaims(ctx, e.Pool, db.OpenClaimsParams{Ids: ids, WholeKind: true})
			if err != nil {
				return err
			}
			ids = ids[:0]
			for _, other := range open {
				if other.Claim != nil && *other.Claim == e.claim.id {
					ids = append(ids, other.ID)
				}
			}
			return nil
		})
		if err == nil && len(ids) == 0 {
			for _, one := range kept {
				one.kept = false
			}
			e.wakeKeys(kept)
			e.dispatchSoon()
			return
		}
		if !sleep(ctx, pauses.Delay()) {
			return // the claim passes
		}
	}
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

// slots are what a call of Work takes: one of the kind's parallelism, and one of its namespace, where these are bounded.
type slots struct {
	parallel *semaphore.Weighted
	free     func()
}

func (s slots) leave() {
	if s.parallel != nil {
		s.parallel.Release(1)
	}
	if s.free != nil {
		s.free()
	}
}

// tryEnter takes the slots of a call if they are free, and no rate may have it wait.
func (a *Activities) tryEnter(namespace string) (taken slots, ok bool) {
	if a.Rate != nil {
		return slots{}, false
	}
	if a.Limit != nil {
		if a.Limit.IsRated(namespace) {
			return slots{}, false
		}
		if taken.free, ok = a.Limit.TryAcquire(namespace); !ok {
			return slots{}, false
		}
	}
	if a.Parallel != nil && !a.Parallel.TryAcquire(1) {
		taken.leave()
		return slots{}, false
	}
	taken.parallel = a.Parallel
	return taken, true
}

// enter waits for the slots of a call, and until its rates allow it, or until ctx ends. The rate of the namespace comes first: a call that
// waits for it keeps no slot of the kind, which others could use.
func (a *Activities) enter(ctx context.Context, namespace string) (taken slots, ok bool) {
	if a.Limit != nil {
		begun, err := a.Limit.AwaitRate(ctx, a.Handler.Kind(), namespace)
		if err != nil {
			return slots{}, false
		}
		defer begun()
	}
	if taken, ok = a.awaitSlots(ctx, namespace); !ok {
		return taken, false
	}
	if err := a.Rate.Wait(ctx); err != nil {
		taken.leave()
		return slots{}, false
	}
	return taken, true
}

// awaitSlots waits for the slots of a call, until ctx ends. It keeps neither while it waits for the other: a namespace that is full keeps no
// slot of the kind, and the other way round.
func (a *Activities) awaitSlots(ctx context.Context, namespace string) (taken slots, ok bool) {
	if ctx.Err() != nil {
		return taken, false
	}
	for {
		if taken.free == nil && a.Limit != nil {
			free, err := a.Limit.Acquire(ctx, namespace)
			if err != nil {
				return slots{}, false
			}
			taken.free = free
		}
		if a.Parallel == nil || a.Parallel.TryAcquire(1) {
			taken.parallel = a.Parallel
			return taken, true
		}
		taken.leave()
		taken = slots{}
		if err := a.Parallel.Acquire(ctx, 1); err != nil {
			return slots{}, false
		}
		free, ok := func() {}, true
		if a.Limit != nil {
			free, ok = a.Limit.TryAcquire(namespace)
		}
		if ok {
			return slots{parallel: a.Parallel, free: free}, true
		}
		a.Parallel.Release(1)
	}
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
		case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
			outcome.Error = fmt.Sprintf("timed out after %s: %s", timeout, outcome.Error)
		case errors.Is(context.Cause(ctx), errClaimLost):
			// It was cut off through no fault of its own, and if others have the resource by now nothing is written at all.
			outcome.Verdict = VerdictReleased
		case isOrdered(context.Cause(ctx)):
			outcome.Error = "cancelled in Temporal: " + outcome.Error
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
