package activities

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
)

// MaxLocalAttempt is how long an attempt may take as a local activity. A local activity is part of the workflow's task,
// and Temporal holds back signals, queries and cancellations of a workflow while its task is under way.
const MaxLocalAttempt = 500 * time.Millisecond

// Pace measures the attempts of a kind on one client.
type Pace interface {
	// Called records how long a call of Work took.
	Called(took time.Duration)
	// Attempted records that an attempt of a single workflow has ended.
	Attempted()
	// GivenBack records that a resource was given back to dispatchers, without an attempt.
	GivenBack()
	// HandedOver records that an attempt was too long for a local activity.
	HandedOver()
	// IsLocal reports whether attempts are short enough for local activities.
	IsLocal() bool
}

// localAttempts are attempts that began as local activities and are under way, by their workflow's run. The zero value
// has none.
type localAttempts struct {
	mu    sync.Mutex
	byRun map[string]*localAttempt
	// unreported are the steps of attempts that failed after they were handed over and before the ordinary activity
	// came, by their workflow's run.
	unreported map[string]Step
}

// maxUnreported bounds unreported: an activity that comes to another worker never asks for its step.
const maxUnreported = 1000

// localAttempt is one of them. It goes on after its activity has ended, and an ordinary activity waits for it.
type localAttempt struct {
	cancel context.CancelCauseFunc
	// done is closed when step and err are set.
	done chan struct{}
	step Step
	err  error
	// handedOver is set when an ordinary activity should wait for the attempt, joined when one does.
	joined, handedOver bool
}

// beginAttempt adds an attempt; nil if the run has one under way.
func (l *localAttempts) beginAttempt(runID string, cancel context.CancelCauseFunc) *localAttempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byRun[runID] != nil {
		return nil
	}
	if l.byRun == nil {
		l.byRun = map[string]*localAttempt{}
	}
	one := &localAttempt{cancel: cancel, done: make(chan struct{})}
	l.byRun[runID] = one
	return one
}

// endAttempt removes an attempt, and reports whether it was handed over to an activity that has not come.
func (l *localAttempts) endAttempt(runID string, one *localAttempt) (missed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byRun, runID)
	close(one.done)
	missed = one.handedOver && !one.joined
	if missed && one.step.failure != nil {
		if l.unreported == nil || len(l.unreported) >= maxUnreported {
			l.unreported = map[string]Step{}
		}
		l.unreported[runID] = one.step
	}
	return missed
}

// addUnreported returns the step of an ordinary activity, with the failure of the handed-over attempt that it did not
// join, if nothing was attempted since.
func (l *localAttempts) addUnreported(runID string, step Step) Step {
	l.mu.Lock()
	defer l.mu.Unlock()
	missed, ok := l.unreported[runID]
	delete(l.unreported, runID)
	if ok && step.failure == nil && step.Generation == missed.Generation && step.Attempt == missed.Attempt && step.State == missed.State {
		step.failure = missed.failure
	}
	return step
}

// handOver leaves an attempt to an ordinary activity. It returns false if the attempt has ended meanwhile.
func (l *localAttempts) handOver(one *localAttempt) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-one.done:
		return false
	default:
		one.handedOver = true
		return true
	}
}

// joinAttempt returns the run's attempt that is under way; nil if there is none.
func (l *localAttempts) joinAttempt(runID string) *localAttempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.byRun[runID]
	if one != nil {
		one.joined = true
	}
	return one
}

// awaitEnd waits for the end of an attempt, and forwards a person's cancellation in Temporal.
func (one *localAttempt) awaitEnd(ctx context.Context) (Step, error) {
	defer context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); isOrdered(cause) {
			one.cancel(cause)
		}
	})()
	<-one.done
	return one.step, one.err
}

// handedOver is a step that makes the workflow call an ordinary activity.
var handedOver = Step{Next: NextAttempt, HandedOver: true}

// attemptLocally makes an attempt within a local activity while it is short. After that the attempt goes on beside the
// activity, and the ordinary activity that follows waits for it: most likely on this worker, because the SDK asks for
// that.
func (a *Activities) attemptLocally(ctx context.Context, ref Ref) (Step, error) {
	id := RunID(ctx)
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	one := a.local.beginAttempt(id, cancel)
	if one == nil {
		cancel(nil)
		return handedOver, nil // Temporal gave up the workflow's task, and has started it again
	}
	a.Claims.runBeside(func() {
		defer cancel(nil)
		one.step, one.err = a.attemptRecovered(ctx, ref)
		if a.local.endAttempt(id, one) {
			a.wakeUnjoined(ctx, ref, one.err)
		}
	})
	timer := time.NewTimer(MaxLocalAttempt)
	defer timer.Stop()
	select {
	case <-one.done:
	case <-timer.C:
		if a.local.handOver(one) {
			if a.Pace != nil {
				a.Pace.HandedOver()
			}
			return handedOver, nil
		}
	}
	return one.step, one.err
}

// attemptRecovered is attemptResource for a goroutine of this package, because the SDK recovers panics only in its own
// goroutines.
func (a *Activities) attemptRecovered(ctx context.Context, ref Ref) (step Step, err error) {
	defer func() {
		if v := recover(); v != nil {
			a.Logger.Error("an attempt panicked", append(refFields(ctx, ref), "panic", v, "stack", string(debug.Stack()))...)
			err = temporal.NewApplicationError(fmt.Sprintf("panic: %v", v), "delta.Panic")
		}
	}()
	return a.attemptResource(ctx, ref)
}

// wakeUnjoined makes a dispatcher wake the workflow of a handed-over attempt that ended and that no activity has joined
// here: the activity came to another worker, found the claim, and waits for its end.
func (a *Activities) wakeUnjoined(ctx context.Context, ref Ref, failure error) {
	if failure != nil {
		a.Logger.Warn("an attempt failed after its local activity; the ordinary one that follows makes another", append(refFields(ctx, ref), "error", failure)...)
		return
	}
	ref, err := a.resolveRef(ctx, ref)
	if err == nil {
		err = db.New().DispatchSoon(ctx, a.Pool, db.DispatchSoonParams{Kind: ref.Kind, ObjectID: ref.ObjectID})
	}
	if err != nil {
		a.Logger.Info("waking the workflow of an attempt failed; it wakes up when it sees the end of the claim", append(refFields(ctx, ref), "error", err)...)
		return
	}
	a.dispatchSoon()
}
