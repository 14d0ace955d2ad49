package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

// newLocalPlay returns a play of a workflow that begins with a local activity.
func newLocalPlay(t *testing.T, scenes ...scene) *play {
	t.Helper()
	p := newPlay(t, scenes...)
	p.ref.Local = true
	return p
}

// localStep is a step after which the next attempt is a local activity.
func localStep(s activities.Step) activities.Step {
	s.Local = true
	return s
}

var handedOver = activities.Step{Next: activities.NextAttempt, HandedOver: true}

func TestAttemptsAreLocalForAsLongAsTheyAreShort(t *testing.T) {
	t.Parallel()
	require.NoError(t, newLocalPlay(
		t,
		scene{local: true, step: localStep(retryAfter(time.Second))},
		scene{at: time.Second, local: true, step: localStep(settledStep(1, day))},
		scene{at: time.Second + day, retention: true, step: retryAfter(0)},
		scene{at: time.Second + day, local: true, step: retryAfter(time.Second)}, // attempts have become long
		scene{at: 2*time.Second + day, step: localStep(retryAfter(time.Second))},
		scene{at: 3*time.Second + day, local: true, step: none},
	).run())
}

func TestAnOrdinaryActivityFollowsAHandOverAtOnce(t *testing.T) {
	t.Parallel()
	require.NoError(t, newLocalPlay(
		t,
		scene{local: true, step: handedOver},
		scene{step: settledStep(1, hour)},
		scene{at: hour, retention: true, step: none},
	).run())
}

// withState gives a step a state, which a workflow shows in search attributes.
func withState(state deltatype.ResourceState, s activities.Step) activities.Step {
	s.State, s.Namespace = state, "default"
	return s
}

// An attempt that is a local activity ends in the task in which its resource has expired, so nobody could see that state,
// and it costs an action of Temporal Cloud. Work that takes long is seen.
func TestAStateThatNobodyCanSeeIsNotWritten(t *testing.T) {
	t.Parallel()
	const synced, expired, failed = deltatype.ResourceStateSynced, deltatype.ResourceStateExpired, deltatype.ResourceStateFailed
	begin := scene{local: true, step: withState(synced, localStep(settledStep(1, day)))}
	expiry := scene{at: day, retention: true, step: withState(expired, retryAfter(0))}
	end := scene{at: 2 * day, retention: true, step: none}
	for name, c := range map[string]struct {
		scenes []scene
		shown  []deltatype.ResourceState
	}{
		"that ends as it began": {
			[]scene{begin, expiry, {at: day, local: true, step: withState(synced, localStep(settledStep(2, day)))}, end},
			[]deltatype.ResourceState{synced},
		},
		"that ends otherwise": {
			[]scene{begin, expiry, {at: day, local: true, step: withState(failed, localStep(retryAfter(day)))}, {at: 2 * day, local: true, step: none}},
			[]deltatype.ResourceState{synced, failed},
		},
		"that is handed over": {
			[]scene{begin, expiry, {at: day, local: true, step: handedOver}, {at: day, step: withState(synced, settledStep(2, day))}, end},
			[]deltatype.ResourceState{synced, expired, synced},
		},
		"with Work that takes long": {
			[]scene{
				{local: true, step: withState(synced, settledStep(1, day))}, expiry, {at: day, step: withState(synced, settledStep(2, day))}, end,
			},
			[]deltatype.ResourceState{synced, expired, synced},
		},
		"that waits": {
			[]scene{begin, {at: day, retention: true, step: withState(expired, retryAfter(day))}, {at: 2 * day, local: true, step: none}},
			[]deltatype.ResourceState{synced, expired},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newLocalPlay(t, c.scenes...)
			p.ref.SearchAttributes = true
			var shown []deltatype.ResourceState
			p.OnUpsertTypedSearchAttributes(mock.Anything).Run(func(args mock.Arguments) {
				state, _ := args.Get(0).(temporal.SearchAttributes).GetKeyword(workflows.StateAttribute)
				shown = append(shown, deltatype.ResourceState(state))
			}).Return(nil)
			require.NoError(t, p.run())
			require.Equal(t, c.shown, shown)
		})
	}
}

// failedAttempt is the error of an attempt that has failed, with its step.
func failedAttempt(s activities.Step) error {
	return temporal.NewApplicationErrorWithOptions("attempt 1 of 10: not yet", activities.AttemptFailed,
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{s}})
}

func TestAnAttemptThatFailedGoesOnAsItsStepSays(t *testing.T) {
	t.Parallel()
	require.NoError(t, newLocalPlay(
		t,
		scene{local: true, err: failedAttempt(localStep(retryAfter(time.Second)))},
		scene{at: time.Second, local: true, err: failedAttempt(retryAfter(time.Second))}, // attempts have become long
		scene{at: 2 * time.Second, err: failedAttempt(localStep(retryAfter(time.Second)))},
		scene{at: 3 * time.Second, local: true, err: failedAttempt(settledStep(1, day))}, // degraded
		scene{at: 3*time.Second + day, retention: true, step: none},
	).run())
}

func TestAnOrdinaryActivityFollowsAFailedLocalOne(t *testing.T) {
	t.Parallel()
	require.NoError(t, newLocalPlay(
		t,
		scene{local: true, err: errors.New("the database is away")},
		scene{step: none},
	).run())
}
