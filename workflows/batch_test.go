package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/workflows"
)

var six = activities.Batch{
	Installation: ref.Installation, Kind: ref.Kind, WorkflowID: "account/batch/1", IDs: activities.PackNumbers([]int64{1, 2, 3, 5, 8, 13}),
}

// batchScene is one call of an activity of a batch, as a test expects it, and its answer.
type batchScene struct {
	// at is when it is to be called, on the workflow's clock, counted from its start.
	at time.Duration
	// retention is true where EndBatchRetention is to be called, false where AttemptBatch is.
	retention bool
	step      activities.BatchStep
}

// playBatch runs the batch workflow on a clock that skips all waiting. before may change the environment.
func playBatch(t *testing.T, before func(*testsuite.TestWorkflowEnvironment), scenes ...batchScene) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	env := newEnvironment()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	env.SetStartTime(start)
	workflows.Kinds{}.RegisterResource(env)
	type call struct {
		at        time.Duration
		retention bool
		in        activities.Batch
		local     bool
	}
	var got, want []call
	for _, s := range scenes {
		want = append(want, call{at: s.at, retention: s.retention, in: six, local: s.retention})
	}
	// The batch calls its activities one after the other.
	enter := func(ctx context.Context, in activities.Batch, retention bool) (step activities.BatchStep, err error) {
		c := call{at: env.Now().Sub(start), retention: retention, in: in, local: activity.GetInfo(ctx).IsLocalActivity}
		got = append(got, c)
		if len(got) > len(scenes) {
			return step, temporal.NewNonRetryableApplicationError("a call more than expected", "unexpected", nil)
		}
		return scenes[len(got)-1].step, nil
	}
	env.RegisterActivityWithOptions(func(ctx context.Context, in activities.Batch) (activities.BatchStep, error) {
		return enter(ctx, in, false)
	}, activity.RegisterOptions{Name: activities.AttemptBatchName})
	env.RegisterActivityWithOptions(func(ctx context.Context, in activities.Batch) (activities.BatchStep, error) {
		return enter(ctx, in, true)
	}, activity.RegisterOptions{Name: activities.EndBatchRetentionName})
	if before != nil {
		before(env)
	}
	env.ExecuteWorkflow(workflows.BatchName, &six)
	require.True(t, env.IsWorkflowCompleted(), "the workflow hangs")
	require.Equal(t, want, got)
	return env
}

func TestABatchRestsUntilItHasNoMembers(t *testing.T) {
	t.Parallel()
	env := playBatch(
		t, nil,
		batchScene{step: activities.BatchStep{Resting: 6, Wait: day}},
		batchScene{at: day, retention: true, step: activities.BatchStep{Resting: 2, Wait: hour}},
		batchScene{at: day + hour, retention: true},
	)
	require.NoError(t, env.GetWorkflowError())
}

// Another worker, which Temporal took for dead, may have claimed members and go on: they are not lost, nor worked twice.
func TestABatchWaitsForMembersThatOthersHaveClaimed(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]activities.BatchStep{
		"all of them":  {Claimed: 6, Wait: 20 * time.Second},
		"some of them": {Claimed: 2, Resting: 4, Wait: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := playBatch(
				t, nil,
				batchScene{step: first},
				batchScene{at: 20 * time.Second, step: activities.BatchStep{Claimed: 1, Resting: 5, Wait: 3 * time.Second}},
				batchScene{at: 23 * time.Second, step: activities.BatchStep{Resting: 6, Wait: day}},
				batchScene{at: 23*time.Second + day, retention: true},
			)
			require.NoError(t, env.GetWorkflowError())
		})
	}
	t.Run("and none rests in the end", func(t *testing.T) {
		t.Parallel()
		env := playBatch(
			t, nil,
			batchScene{step: activities.BatchStep{Claimed: 6, Wait: time.Minute}},
			batchScene{at: time.Minute},
		)
		require.NoError(t, env.GetWorkflowError())
	})
}

// Each attempt tells of the members that it has worked itself. A person wants to see all.
func TestABatchAddsUpWhatItsAttemptsCameTo(t *testing.T) {
	t.Parallel()
	bob, eve := activities.BatchFailure{ID: "bob", Error: "not yet"}, activities.BatchFailure{ID: "eve", Error: "never"}
	env := playBatch(
		t, nil,
		batchScene{step: activities.BatchStep{Claimed: 2, Resting: 3, Wait: time.Second, Progress: activities.Progress{
			Synced: 1, Failed: 1, Snoozed: 1, Deleted: 1, Left: 1, Failures: []activities.BatchFailure{bob},
		}}},
		batchScene{at: time.Second, step: activities.BatchStep{Resting: 4, Wait: day, Progress: activities.Progress{
			Synced: 2, Degraded: 1, Failures: []activities.BatchFailure{eve},
		}}},
		batchScene{at: time.Second + day, retention: true},
	)
	require.NoError(t, env.GetWorkflowError())
	value, err := env.QueryWorkflow(workflows.StateQuery)
	require.NoError(t, err)
	var state activities.BatchStep
	require.NoError(t, value.Get(&state))
	require.Equal(t, activities.BatchStep{Progress: activities.Progress{
		Synced: 3, Failed: 1, Degraded: 1, Snoozed: 1, Deleted: 1, Left: 1, Failures: []activities.BatchFailure{bob, eve},
	}}, state)
}

func TestALongHistoryOfABatchIsContinuedAsANewRun(t *testing.T) {
	t.Parallel()
	for name, scenes := range map[string][]batchScene{
		"while it rests": {
			{step: activities.BatchStep{Resting: 6, Wait: day}},
			{at: day, retention: true, step: activities.BatchStep{Resting: 2, Wait: hour}},
		},
		"while others have claimed members": { // for as long as their Work takes
			{step: activities.BatchStep{Claimed: 6, Wait: time.Minute}},
			{at: time.Minute, step: activities.BatchStep{Claimed: 6, Wait: time.Minute}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := playBatch(t, func(env *testsuite.TestWorkflowEnvironment) { env.SetContinueAsNewSuggested(true) }, scenes...)
			var continued *workflow.ContinueAsNewError
			require.ErrorAs(t, env.GetWorkflowError(), &continued)
			require.Equal(t, workflows.BatchName, continued.WorkflowType.Name)
			var input activities.Batch
			require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(continued.Input, &input))
			require.Equal(t, six, input)
		})
	}
	t.Run("not at its end", func(t *testing.T) {
		t.Parallel()
		env := playBatch(
			t, func(env *testsuite.TestWorkflowEnvironment) { env.SetContinueAsNewSuggested(true) },
			batchScene{step: activities.BatchStep{Claimed: 1, Wait: time.Second}},
			batchScene{at: time.Second},
		)
		require.NoError(t, env.GetWorkflowError())
	})
}
