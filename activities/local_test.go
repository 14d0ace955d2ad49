package activities_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// paced is a pace that counts what is handed over.
type paced struct{ handedOver atomic.Int64 }

func (*paced) Called(time.Duration) {}
func (*paced) Attempted()           {}
func (p *paced) HandedOver()        { p.handedOver.Add(1) }
func (p *paced) GivenBack()         {}
func (p *paced) IsLocal() bool      { return p.handedOver.Load() == 0 }

// local is an activity environment for local activities, and ordinary ones, of one workflow.
type local struct {
	*testsuite.TestActivityEnvironment
}

func newLocal() local {
	var suite testsuite.WorkflowTestSuite
	return local{suite.NewTestActivityEnvironment()}
}

func (l local) attempt(t *testing.T, h *harness, ref activities.Ref) (step activities.Step) {
	t.Helper()
	value, err := l.ExecuteLocalActivity(h.Attempt, ref)
	require.NoError(t, err)
	require.NoError(t, value.Get(&step))
	return step
}

func (l local) attemptOrdinarily(t *testing.T, a *activities.Activities, ref activities.Ref) (step activities.Step) {
	t.Helper()
	l.RegisterActivityWithOptions(a.Attempt, activity.RegisterOptions{Name: activities.AttemptName, DisableAlreadyRegisteredCheck: true})
	value, err := l.ExecuteActivity(activities.AttemptName, ref)
	require.NoError(t, err)
	require.NoError(t, value.Get(&step))
	return step
}

// startLong begins an attempt as a local activity. Its Work goes on until proceed is closed, and then returns outcome.
func startLong(t *testing.T, outcome activities.Outcome) (h *harness, l local, ref activities.Ref, proceed chan struct{}) {
	t.Helper()
	proceed = make(chan struct{})
	h = newHarness(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		<-proceed
		return outcome
	})
	pace := &paced{}
	h.Pace, h.Claims = pace, activities.NewClaims(h.Pool, h.Logger)
	ref, l = h.inform(object("a", "1")), newLocal()
	step := l.attempt(t, h, ref)
	require.Equal(t, activities.Step{Next: activities.NextAttempt, HandedOver: true}, step)
	require.EqualValues(t, 1, pace.handedOver.Load())
	h.awaitState(ref, deltatype.ResourceStatePending)
	return h, l, ref, proceed
}

func TestTheOrdinaryAttemptWaitsForALongLocalOne(t *testing.T) {
	t.Parallel()
	h, l, ref, proceed := startLong(t, synced)
	defer time.AfterFunc(100*time.Millisecond, func() { close(proceed) }).Stop()
	step := l.attemptOrdinarily(t, h.Activities, ref)
	require.Equal(t, activities.NextRetention, step.Next)
	require.Equal(t, deltatype.ResourceStateSynced, step.State)
	require.False(t, step.Local, "the next attempt is an ordinary one")
	require.EqualValues(t, 1, h.handler.worked.Load())
	require.Equal(t, 1, h.row(ref).Attempt)
}

// The ordinary activity has come to another worker: it finds the claim, and waits for its end. What follows does not.
func TestALongLocalAttemptWakesItsWorkflowOnAnotherWorker(t *testing.T) {
	t.Parallel()
	h, l, ref, proceed := startLong(t, failed)
	other := &activities.Activities{Pool: h.Pool, Installation: h.Installation, Handler: h.handler, Logger: h.Logger, AbandonAfter: time.Minute}
	step := l.attemptOrdinarily(t, other, ref)
	require.Equal(t, activities.NextAttempt, step.Next)
	require.Greater(t, step.Wait, time.Second)
	close(proceed)
	h.awaitState(ref, deltatype.ResourceStateFailed)
	h.Claims.Wait()
	row := h.row(ref)
	require.False(t, row.DispatchAt.After(h.now()), "a dispatcher wakes the workflow for its next attempt, which is due at %s", row.DueAt)
	require.EqualValues(t, 1, h.handler.worked.Load())
}

// The ordinary activity comes when the attempt has ended: it makes no other one, and shows its failure.
func TestALocalFailureBeforeTheOrdinaryActivityIsShown(t *testing.T) {
	t.Parallel()
	h, l, ref, proceed := startLong(t, failed)
	close(proceed)
	h.awaitState(ref, deltatype.ResourceStateFailed)
	h.Claims.Wait()
	h.set(ref, "due_at = now() + interval '1 hour'")
	l.RegisterActivityWithOptions(activities.Kinds{kind: h.Activities}.Attempt, activity.RegisterOptions{Name: activities.AttemptName})
	_, err := l.ExecuteActivity(activities.AttemptName, ref)
	application := new(temporal.ApplicationError)
	require.ErrorAs(t, err, &application)
	require.Equal(t, activities.AttemptFailed, application.Type())
	var step activities.Step
	require.NoError(t, application.Details(&step))
	require.Equal(t, activities.NextAttempt, step.Next)
	require.Greater(t, step.Wait, time.Minute, "the step is that of the row as it is")
	require.EqualValues(t, 1, h.handler.worked.Load())

	value, err := l.ExecuteActivity(activities.AttemptName, ref)
	require.NoError(t, err, "it is shown once")
	require.NoError(t, value.Get(&step))
}

func TestALocalAttemptDoesNotWaitForASlot(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil) // Work must not be called
	limit := &fullLimit{}
	h.Limit = limit
	for _, namespace := range []string{"", "default"} { // known from the dispatcher, or read
		ref := h.inform(object("a"+namespace, "1"))
		ref.Namespace = namespace
		before := h.row(ref)
		require.Equal(t, activities.Step{Next: activities.NextAttempt, HandedOver: true}, newLocal().attempt(t, h, ref))
		require.Equal(t, before, h.row(ref), "it is not claimed")
	}
	require.Zero(t, limit.waits.Load())
}

// fullLimit has no slot.
type fullLimit struct{ waits atomic.Int64 }

func (l *fullLimit) Acquire(ctx context.Context, _ string) (release func(), err error) {
	l.waits.Add(1)
	<-ctx.Done()
	return nil, ctx.Err()
}

func (l *fullLimit) TryAcquire(string) (release func(), ok bool) { return nil, false }
func (l *fullLimit) IsFull(string) bool                          { return true }
func (l *fullLimit) IsRated(string) bool                         { return false }
func (l *fullLimit) Arrive(string, string)                       {}
func (l *fullLimit) Decline(string, string)                      {}
func (l *fullLimit) KeyedRoom(string) (limited []string, rooms []int32, full []string) {
	return nil, nil, []string{}
}
func (l *fullLimit) Queue(string, string) (func(), bool) { return func() {}, true }
func (l *fullLimit) AwaitRates(context.Context, string, string, *activities.RateLimit) (func(), bool, error) {
	return func() {}, false, nil
}
