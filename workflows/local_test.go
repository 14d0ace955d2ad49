package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
)

// newLocalPlay is a play of a workflow whose first attempt is a local activity.
func newLocalPlay(t *testing.T, scenes ...scene) *play {
	t.Helper()
	p := newPlay(t, scenes...)
	p.ref.Local = true
	return p
}

// local is a step after which the next attempt is a local activity.
func local(s activities.Step) activities.Step {
	s.Local = true
	return s
}

var handedOver = activities.Step{Next: activities.NextAttempt, HandedOver: true}

func TestAttemptsAreLocalForAsLongAsTheyAreShort(t *testing.T) {
	t.Parallel()
	require.NoError(t, newLocalPlay(
		t,
		scene{local: true, step: local(again(time.Second))},
		scene{at: time.Second, local: true, step: local(rest(1, day))},
		scene{at: time.Second + day, retention: true, step: again(0)},
		scene{at: time.Second + day, local: true, step: again(time.Second)}, // attempts have become long
		scene{at: 2*time.Second + day, step: local(again(time.Second))},
		scene{at: 3*time.Second + day, local: true, step: none},
	).run())
}

func TestAnAttemptThatIsHandedOverIsFollowedByAnOrdinaryActivityAtOnce(t *testing.T) {
	t.Parallel()
	require.NoError(t, newLocalPlay(
		t,
		scene{local: true, step: handedOver},
		scene{step: rest(1, hour)},
		scene{at: hour, retention: true, step: none},
	).run())
}

// failed is the error of an attempt that has failed, with its step.
func failed(s activities.Step) error {
	return temporal.NewApplicationErrorWithOptions("attempt 1 of 10: not yet", activities.AttemptFailed,
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{s}})
}

func TestAnAttemptThatFailedGoesOnAsItsStepSays(t *testing.T) {
	t.Parallel()
	require.NoError(t, newLocalPlay(
		t,
		scene{local: true, err: failed(local(again(time.Second)))},
		scene{at: time.Second, local: true, err: failed(again(time.Second))}, // attempts have become long
		scene{at: 2 * time.Second, err: failed(local(again(time.Second)))},
		scene{at: 3 * time.Second, local: true, err: failed(rest(1, day))}, // degraded
		scene{at: 3*time.Second + day, retention: true, step: none},
	).run())
}

func TestALocalActivityThatFailsIsTriedOnceAndFollowedByAnOrdinaryActivity(t *testing.T) {
	t.Parallel()
	require.NoError(t, newLocalPlay(
		t,
		scene{local: true, err: errors.New("the database is away")},
		scene{step: none},
	).run())
}
