package workflows_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

// runInforms runs the inform workflow with a pass that is answered by a function of its number, and returns when the
// passes ran.
func runInforms(t *testing.T, in activities.InformInput, pass func(n int) (activities.InformProgress, error)) (
	env *testsuite.TestWorkflowEnvironment, at []time.Duration, info activity.Info,
) {
	t.Helper()
	env = newEnvironment()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	env.SetStartTime(start)
	workflows.RegisterInform(env, workflow.VersioningBehaviorAutoUpgrade)
	env.RegisterActivityWithOptions(func(ctx context.Context, got activities.InformInput) (activities.InformProgress, error) {
		if !equalInputs(in, got) {
			t.Errorf("the pass is told %+v, not %+v", got, in)
		}
		at, info = append(at, env.Now().Sub(start)), activity.GetInfo(ctx)
		return pass(len(at))
	}, activity.RegisterOptions{Name: activities.InformPassName})
	env.ExecuteWorkflow(workflows.InformName, in)
	require.True(t, env.IsWorkflowCompleted())
	return env, at, info
}

func equalInputs(a, b activities.InformInput) bool {
	return a.Installation == b.Installation && a.Kind == b.Kind && a.ProcessExisting == b.ProcessExisting &&
		a.Options.Limit == b.Options.Limit && a.Options.Labels["k"] == b.Options.Labels["k"] &&
		(a.Options.After == nil) == (b.Options.After == nil) && (a.Options.After == nil || a.Options.After.Equal(*b.Options.After))
}

func TestAnInformRunsOnePassAndTellsWhatItListed(t *testing.T) {
	t.Parallel()
	after := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	in := activities.InformInput{
		Installation: ref.Installation, Kind: "account", ProcessExisting: true,
		Options: deltatype.InformOptions{Labels: map[string]string{"k": "v"}, After: &after, Limit: 7},
	}
	progress := activities.InformProgress{Listed: 3, Scheduled: 2}
	env, at, info := runInforms(t, in, func(int) (activities.InformProgress, error) { return progress, nil })
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []time.Duration{0}, at)
	var got activities.InformProgress
	require.NoError(t, env.GetWorkflowResult(&got))
	require.Equal(t, progress, got)
	require.Equal(t, activities.HeartbeatTimeout, info.HeartbeatTimeout)
	require.Greater(t, info.StartToCloseTimeout, 365*day, "the user's timeout bounds the pass")
}

func TestAPassThatFailsIsRepeatedAFewTimes(t *testing.T) {
	t.Parallel()
	in := activities.InformInput{Installation: ref.Installation, Kind: "account"}
	failing := func(times int) func(int) (activities.InformProgress, error) {
		return func(n int) (activities.InformProgress, error) {
			if n <= times {
				return activities.InformProgress{}, errors.New("the registry is down")
			}
			return activities.InformProgress{Listed: 1}, nil
		}
	}
	env, at, _ := runInforms(t, in, failing(2))
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []time.Duration{0, 5 * time.Second, 15 * time.Second}, at)

	env, at, _ = runInforms(t, in, failing(9))
	require.ErrorContains(t, env.GetWorkflowError(), "the registry is down")
	require.Len(t, at, 3, "then the next scheduled pass takes over")
}

func TestAPassWhoseErrorIsFinalIsNotRepeated(t *testing.T) {
	t.Parallel()
	env, at, _ := runInforms(t, activities.InformInput{Kind: "account"}, func(int) (activities.InformProgress, error) {
		return activities.InformProgress{}, temporal.NewNonRetryableApplicationError("8 of 10", activities.NoInformer, nil)
	})
	var failure *temporal.ApplicationError
	require.ErrorAs(t, env.GetWorkflowError(), &failure)
	require.Equal(t, activities.NoInformer, failure.Type())
	require.Len(t, at, 1)
}

// Temporal's schedules know whole seconds: the run waits for the rest of an interval of 2.9 s.
func TestAnInformWaitsForThePartOfASecond(t *testing.T) {
	t.Parallel()
	const every = 2900 * time.Millisecond
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var waits []time.Duration
	for i := range 11 {
		exact := time.Unix(0, (start.UnixNano()/int64(every)+int64(i)+1)*int64(every))
		for name, nominal := range map[string]time.Time{"scheduled": exact.Truncate(time.Second), "asked for": {}} {
			env := newEnvironment()
			env.SetStartTime(exact.Truncate(time.Second))
			if name == "scheduled" {
				key := temporal.NewSearchAttributeKeyTime("TemporalScheduledStartTime")
				require.NoError(t, env.SetTypedSearchAttributesOnStart(temporal.NewSearchAttributes(key.ValueSet(nominal))))
			}
			workflows.RegisterInform(env, workflow.VersioningBehaviorAutoUpgrade)
			var began time.Time
			env.RegisterActivityWithOptions(func(context.Context, activities.InformInput) (activities.InformProgress, error) {
				began = env.Now()
				return activities.InformProgress{}, nil
			}, activity.RegisterOptions{Name: activities.InformPassName})
			env.ExecuteWorkflow(workflows.InformName, activities.InformInput{Kind: "account", Every: every})
			require.NoError(t, env.GetWorkflowError())
			if name == "asked for" {
				require.Equal(t, exact.Truncate(time.Second).UTC(), began.UTC())
				continue
			}
			require.Equal(t, exact.UTC(), began.UTC())
			waits = append(waits, exact.Sub(nominal))
		}
	}
	require.Len(t, waits, 11)
	require.Contains(t, waits, 900*time.Millisecond)
	require.Contains(t, waits, time.Duration(0))
}
