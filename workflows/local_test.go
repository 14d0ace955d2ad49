package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
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
