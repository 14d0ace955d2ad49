package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/workflows"
)

const (
	day  = 24 * time.Hour
	hour = time.Hour
)

func TestASyncedResourceIsRemovedAfterItsRestAndItsLifecycleEnds(t *testing.T) {
	t.Parallel()
	p := newPlay(
		t,
		scene{step: settledStep(1, day)},
		scene{at: day, retention: true, step: none},
	)
	require.NoError(t, p.run())
}

func TestAResourceThatExpiresIsWorkedAgainAtOnce(t *testing.T) {
	t.Parallel()
	p := newPlay(
		t,
		scene{step: settledStep(1, day)},
		scene{at: day, retention: true, step: retryAfter(0)},
		scene{at: day, step: settledStep(2, day)},
		scene{at: 2 * day, retention: true, step: retryAfter(0)},
		scene{at: 2 * day, step: settledStep(3, 30*day)},
		scene{at: 32 * day, retention: true, step: none},
	)
	require.NoError(t, p.run())
}

func TestAFailedAttemptIsFollowedByAnotherAfterItsWait(t *testing.T) {
	t.Parallel()
	p := newPlay(
		t,
		scene{step: retryAfter(time.Second)},
		scene{at: time.Second, step: retryAfter(1234 * time.Millisecond)},
		scene{at: 2234 * time.Millisecond, step: retryAfter(10 * time.Minute)},
		scene{at: 2234*time.Millisecond + 10*time.Minute, step: none},
	)
	require.NoError(t, p.run())
}

func TestAResourceThatRestsForEverEndsItsLifecycleAtOnce(t *testing.T) {
	t.Parallel()
	timers := 0
	p := newPlay(t, scene{step: none})
	p.SetOnTimerScheduledListener(func(string, time.Duration) { timers++ })
	require.NoError(t, p.run())
	require.Zero(t, timers)
}

func TestAWakeUpInterruptsTheBackoffAtOnce(t *testing.T) {
	t.Parallel()
	cancelled := 0
	p := newPlay(
		t,
		scene{step: retryAfter(10 * time.Minute)},
		scene{at: 3 * time.Second, step: settledStep(2, hour)},
		scene{at: 3*time.Second + hour, retention: true, step: none},
	)
	p.SetOnTimerCanceledListener(func(string) { cancelled++ })
	p.wakeAfter(3*time.Second, 1)
	require.NoError(t, p.run())
	require.Equal(t, 1, cancelled, "the timer of the backoff is not left behind")
}

func TestAWakeUpInterruptsTheRestWithAnAttemptAndEndsNoRetention(t *testing.T) {
	t.Parallel()
	cancelled := 0
	p := newPlay(
		t,
		scene{step: settledStep(1, day)},
		scene{at: 5 * hour, step: settledStep(2, day)},
		scene{at: 5*hour + day, retention: true, step: none},
	)
	p.SetOnTimerCanceledListener(func(string) { cancelled++ })
	p.wakeAfter(5*hour, 1)
	require.NoError(t, p.run())
	require.Equal(t, 1, cancelled)
}

func TestAWakeUpDuringAnAttemptCausesOneMore(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]activities.Step{
		"that synced": settledStep(1, day), "that failed": retryAfter(hour), "that found nothing to do": none, "that found more to do": retryAfter(0),
		"that found its rest over": settledStep(1, 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlay(
				t,
				scene{step: step, wakes: 1},
				scene{step: none},
			)
			require.NoError(t, p.run())
		})
	}
}

func TestWakeUpsThatArriveTogetherCauseOneAttempt(t *testing.T) {
	t.Parallel()
	t.Run("during an attempt", func(t *testing.T) {
		t.Parallel()
		p := newPlay(
			t,
			scene{step: settledStep(1, day), wakes: 3},
			scene{step: settledStep(1, day)},
			scene{at: day, retention: true, step: none},
		)
		require.NoError(t, p.run())
	})
	t.Run("during the rest", func(t *testing.T) {
		t.Parallel()
		p := newPlay(
			t,
			scene{step: settledStep(1, day)},
			scene{at: hour, step: none},
		)
		p.wakeAfter(hour, 2)
		require.NoError(t, p.run())
	})
	t.Run("at the start", func(t *testing.T) {
		t.Parallel()
		p := newPlay(t, scene{step: none})
		p.wakeAfter(0, 2) // as signal-with-start does
		require.NoError(t, p.run())
	})
}

// An object that is informed while its row is removed gets a new row, which is this workflow's to work.
func TestAWakeUpThatArrivesWhileTheRowIsRemovedIsNotLost(t *testing.T) {
	t.Parallel()
	p := newPlay(
		t,
		scene{step: settledStep(7, day)},
		scene{at: day, retention: true, step: none, wakes: 1},
		scene{at: day, step: settledStep(1, day)},
		scene{at: 2 * day, retention: true, step: none},
	)
	require.NoError(t, p.run())
}

func TestARetentionThatIsNotOverGoesOn(t *testing.T) {
	t.Parallel()
	p := newPlay(
		t,
		scene{step: settledStep(1, day)},
		scene{at: day, retention: true, step: settledStep(1, time.Minute)},
		scene{at: day + time.Minute, retention: true, step: settledStep(3, hour)}, // others worked it meanwhile
		scene{at: day + time.Minute + hour, retention: true, step: settledStep(3, 0)},
		scene{at: day + time.Minute + hour, retention: true, step: none},
	)
	require.NoError(t, p.run())
}

func TestTheEndOfARetentionCanBeFollowedByABackoff(t *testing.T) {
	t.Parallel()
	p := newPlay(
		t,
		scene{step: settledStep(1, day)},
		scene{at: day, retention: true, step: retryAfter(time.Minute)},
		scene{at: day + time.Minute, step: none},
	)
	require.NoError(t, p.run())
}

func TestAWorkflowThatIsCancelledEndsAndTouchesNothing(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]activities.Step{"during the rest": settledStep(1, day), "during the backoff": retryAfter(day)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlay(t, scene{step: step})
			p.RegisterDelayedCallback(p.CancelWorkflow, hour)
			var cancelled *temporal.CanceledError
			require.ErrorAs(t, p.run(), &cancelled)
		})
	}
}

func TestALongHistoryIsContinuedAsANewRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		suggested bool
		length    int
	}{"suggested by the server": {suggested: true}, "by its length": {length: 5001}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlay(t, scene{step: retryAfter(time.Minute)})
			p.SetContinueAsNewSuggested(c.suggested)
			p.SetCurrentHistoryLength(c.length)
			requireContinued(t, p.run())
			require.Equal(t, time.Minute, p.Now().Sub(p.start), "the wait is over before")
		})
	}
	t.Run("not before", func(t *testing.T) {
		t.Parallel()
		p := newPlay(t, scene{step: retryAfter(time.Minute)}, scene{at: time.Minute, step: none})
		p.SetCurrentHistoryLength(5000)
		require.NoError(t, p.run())
	})
	t.Run("not at its end", func(t *testing.T) {
		t.Parallel()
		p := newPlay(t, scene{step: none})
		p.SetContinueAsNewSuggested(true)
		require.NoError(t, p.run())
	})
	t.Run("after an expiry", func(t *testing.T) {
		t.Parallel()
		p := newPlay(t, scene{step: settledStep(1, day)}, scene{at: day, retention: true, step: retryAfter(0)})
		p.SetContinueAsNewSuggested(true)
		requireContinued(t, p.run())
	})
}

// What a wake-up asks for is an attempt, and that is how a run begins.
func TestWakeUpsBeforeANewRunAreNotLost(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]struct {
		scene scene
		later bool
	}{
		"during an attempt that failed":           {scene: scene{step: retryAfter(hour), wakes: 2}},
		"during an attempt that synced":           {scene: scene{step: settledStep(1, day), wakes: 1}},
		"during an attempt that found it at rest": {scene: scene{step: none, wakes: 1}},
		"during the rest":                         {scene: scene{step: settledStep(1, day)}, later: true},
		"during the backoff":                      {scene: scene{step: retryAfter(day)}, later: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlay(t, s.scene)
			p.SetContinueAsNewSuggested(true)
			if s.later {
				p.wakeAfter(hour, 1)
			}
			requireContinued(t, p.run())
			require.NoError(t, newPlay(t, scene{step: none}).run(), "a run begins with an attempt")
		})
	}
}

func requireContinued(t *testing.T, err error) {
	t.Helper()
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	require.Equal(t, workflows.ResourceName, continued.WorkflowType.Name)
	var input activities.Ref
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(continued.Input, &input))
	require.Equal(t, ref, input)
}

func TestAnErrorThatIsFinalEndsTheWorkflow(t *testing.T) {
	t.Parallel()
	final := temporal.NewNonRetryableApplicationError("another database's", activities.WrongInstallation, nil)
	for name, scenes := range map[string][]scene{
		"of an attempt":          {{err: final}},
		"of an end of retention": {{step: settledStep(1, day)}, {at: day, retention: true, err: final}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var failure *temporal.ApplicationError
			require.ErrorAs(t, newPlay(t, scenes...).run(), &failure)
			require.Equal(t, activities.WrongInstallation, failure.Type())
		})
	}
}

// However long it takes: a database that is away for an hour ends no lifecycle.
func TestAnActivityThatCannotDoItsPartIsRepeatedUntilItCan(t *testing.T) {
	t.Parallel()
	down := errors.New("the database is down")
	failures := func(n int) (scenes []scene, at time.Duration) {
		wait := time.Second
		for range n {
			scenes = append(scenes, scene{at: at, err: down})
			at += wait
			wait = min(2*wait, time.Minute)
		}
		return scenes, at
	}
	t.Run("attempt", func(t *testing.T) {
		t.Parallel()
		// The environment itself ends it after ten tries, where a server has no bound; see TestAttemptsInHistoriesAreUnbounded.
		scenes, at := failures(9)
		require.NoError(t, newPlay(t, append(scenes, scene{at: at, step: none})...).run())
	})
	t.Run("end of retention", func(t *testing.T) {
		t.Parallel()
		scenes, at := failures(60)
		require.Greater(t, at, hour-10*time.Minute)
		retentions := []scene{{step: settledStep(1, day)}}
		for _, s := range append(scenes, scene{at: at, step: none}) {
			s.at, s.retention = s.at+day, true
			retentions = append(retentions, s)
		}
		require.NoError(t, newPlay(t, retentions...).run())
	})
}

func TestAnAttemptIsHeartbeatedAndBoundedByNothingElse(t *testing.T) {
	t.Parallel()
	p := newPlay(t, scene{step: settledStep(1, day)}, scene{at: day, retention: true, step: none})
	require.NoError(t, p.run())
	attempt, retention := p.infos[0], p.infos[1]
	require.Equal(t, activities.HeartbeatTimeout, attempt.HeartbeatTimeout)
	require.Greater(t, attempt.StartToCloseTimeout, 365*day, "the user's timeouts bound Work")
	require.False(t, attempt.IsLocalActivity)
	require.True(t, retention.IsLocalActivity, "the end of a retention is a statement: it needs no task of its own")
}
