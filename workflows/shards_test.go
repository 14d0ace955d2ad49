package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
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

// shardRuns runs the inform workflow of a kind that is listed by shards.
type shardRuns struct {
	*testsuite.TestWorkflowEnvironment
	start time.Time

	mu sync.Mutex
	// given are the inputs of the passes of shards in their order, at when each began, and ids the workflows that they were of.
	given []activities.InformInput
	at    []time.Duration
	ids   []string
}

// newShardRuns answers the first call with a plan, and each pass of a shard by a function.
func newShardRuns(t *testing.T, plan activities.ShardRun, pass func(ctx context.Context, in activities.InformInput) (activities.InformProgress, error)) *shardRuns {
	t.Helper()
	r := &shardRuns{TestWorkflowEnvironment: newEnvironment(), start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	r.SetStartTime(r.start)
	workflows.RegisterInform(r, workflow.VersioningBehaviorAutoUpgrade)
	r.RegisterActivityWithOptions(func(ctx context.Context, in activities.InformInput) (activities.InformProgress, error) {
		if !in.Named {
			return activities.InformProgress{Shards: &plan}, nil
		}
		r.mu.Lock()
		r.given, r.at = append(r.given, in), append(r.at, r.Now().Sub(r.start))
		r.ids = append(r.ids, activity.GetInfo(ctx).WorkflowExecution.ID)
		r.mu.Unlock()
		return pass(ctx, in)
	}, activity.RegisterOptions{Name: activities.InformPassName})
	return r
}

// shards are the shards of the passes so far.
func (r *shardRuns) shards() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, in := range r.given {
		names = append(names, in.Options.Shard)
	}
	return names
}

func planOf(spread time.Duration, shards ...string) activities.ShardRun {
	run := activities.ShardRun{Spread: spread}
	for _, s := range shards {
		run.Passes = append(run.Passes, activities.ShardPass{Shard: s})
	}
	return run
}

func numberShards(n int) (shards []string) {
	for i := range n {
		shards = append(shards, fmt.Sprintf("s%02d", i))
	}
	return shards
}

func finalError(message string, progress activities.InformProgress) error {
	return temporal.NewNonRetryableApplicationError(message, "test", nil, progress)
}

func TestARunThatWasAskedForListsTenShardsAtOnceAndAddsThemUp(t *testing.T) {
	t.Parallel()
	const shards, atOnce = 25, 10
	var mu sync.Mutex
	running, most, ended := 0, 0, 0
	full := make(chan struct{}) // closed when as many run as may
	r := newShardRuns(t, planOf(0, numberShards(shards)...), func(context.Context, activities.InformInput) (activities.InformProgress, error) {
		mu.Lock()
		running++
		most = max(most, running)
		if running == atOnce && ended == 0 {
			close(full)
		}
		mu.Unlock()
		select {
		case <-full:
		case <-time.After(patience):
			return activities.InformProgress{}, finalError("fewer shards are listed at once", activities.InformProgress{})
		}
		time.Sleep(50 * time.Millisecond) // for one too many to come, if it does
		mu.Lock()
		running, ended = running-1, ended+1
		mu.Unlock()
		return activities.InformProgress{Listed: 2, Scheduled: 1, Withheld: 3}, nil
	})
	in := activities.InformInput{
		Installation: ref.Installation, Kind: "account", Trigger: activities.TriggerRequest, ProcessExisting: true, FullListing: true,
		Options: deltatype.InformOptions{Limit: 7}, Every: time.Second,
	}
	r.ExecuteWorkflow(workflows.InformName, in)
	require.NoError(t, r.GetWorkflowError())
	var sum activities.InformProgress
	require.NoError(t, r.GetWorkflowResult(&sum))
	require.Equal(t, activities.InformProgress{Listed: 2 * shards, Scheduled: shards, Withheld: 3 * shards}, sum)
	require.Equal(t, atOnce, most)
	require.Equal(t, numberShards(shards), slices.Sorted(slices.Values(r.shards())), "each once")
	for _, given := range r.given {
		require.True(t, given.Named && given.ProcessExisting && given.FullListing && !given.Gone)
		require.Equal(t, 7, given.Options.Limit)
		require.Equal(t, activities.TriggerRequest, given.Trigger)
		require.Zero(t, given.Every, "it has waited once")
	}
}

// All shards are listed, whatever becomes of some. The error names these, and says how far the run came.
func TestShardsThatFailAreNamedWhenAllHaveEnded(t *testing.T) {
	t.Parallel()
	r := newShardRuns(t, planOf(0, numberShards(20)...), func(_ context.Context, in activities.InformInput) (activities.InformProgress, error) {
		if in.Options.Shard < "s07" {
			return activities.InformProgress{}, finalError(in.Options.Shard+" is down", activities.InformProgress{Listed: 1})
		}
		return activities.InformProgress{Listed: 10}, nil
	})
	r.ExecuteWorkflow(workflows.InformName, activities.InformInput{Kind: "account", Trigger: activities.TriggerRequest})
	var failure *temporal.ApplicationError
	require.ErrorAs(t, r.GetWorkflowError(), &failure)
	require.Equal(t, workflows.FailedShards, failure.Type())
	require.Contains(t, failure.Message(), "7 of 20 shards failed: ")
	require.Equal(t, 5, strings.Count(failure.Message(), "is down"), "the first of them are named")
	require.NotContains(t, failure.Message(), "workflowID")
	var sum activities.InformProgress
	require.NoError(t, failure.Details(&sum))
	require.Equal(t, 13*10+7, sum.Listed, "what those had listed that failed counts")
	require.Len(t, r.shards(), 20)
}

func TestARunThatIsCancelledCancelsItsShards(t *testing.T) {
	t.Parallel()
	var r *shardRuns
	var once sync.Once
	r = newShardRuns(t, planOf(0, numberShards(15)...), func(ctx context.Context, _ activities.InformInput) (activities.InformProgress, error) {
		once.Do(r.CancelWorkflow)
		select {
		case <-ctx.Done():
			return activities.InformProgress{}, ctx.Err()
		case <-time.After(patience):
			return activities.InformProgress{}, finalError("it was not cancelled", activities.InformProgress{})
		}
	})
	r.ExecuteWorkflow(workflows.InformName, activities.InformInput{Kind: "account", Trigger: activities.TriggerRequest})
	require.True(t, temporal.IsCanceledError(r.GetWorkflowError()), "%v", r.GetWorkflowError())
	require.LessOrEqual(t, len(r.shards()), 10, "none of the others begins")
}

// A scheduled run spreads the starts of its shards over three quarters of the interval, and ends without waiting for them.
func TestAScheduledRunStartsItsShardsOneAfterTheOther(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]struct {
		spread time.Duration
		shards int
		gap    time.Duration
	}{
		"an interval": {3 * time.Minute, 6, 30 * time.Second}, "a long one": {18 * time.Hour, 3, time.Minute}, "one shard": {time.Hour, 1, 0}, "none": {time.Hour, 0, 0},
	} {
		r := newShardRuns(t, planOf(given.spread, numberShards(given.shards)...), func(_ context.Context, in activities.InformInput) (activities.InformProgress, error) {
			if in.Options.Shard == "s01" {
				return activities.InformProgress{}, finalError("s01 is down", activities.InformProgress{})
			}
			return activities.InformProgress{Listed: 1}, nil
		})
		key := temporal.NewSearchAttributeKeyKeyword("TemporalScheduledById")
		require.NoError(t, r.SetTypedSearchAttributesOnStart(temporal.NewSearchAttributes(key.ValueSet("app/inform:account"))))
		r.ExecuteWorkflow(workflows.InformName, activities.InformInput{Kind: "account", Trigger: activities.TriggerSchedule})
		require.NoError(t, r.GetWorkflowError(), "%s: a shard that fails fails itself", name)
		for i := range given.shards {
			require.Equal(t, time.Duration(i)*given.gap, r.at[i], name)
			require.Equal(t, fmt.Sprintf("app/inform:account/shard:s%02d", i), r.ids[i], "by the schedule: one that goes on is found by the next run")
		}
		require.Len(t, r.at, given.shards)
	}
}

// What is left of a shard that is gone is looked at by a pass that says so, and an id that is long or has spaces makes a workflow id.
func TestThePassOfAShardThatIsGoneSaysSo(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 255)
	plan := activities.ShardRun{Passes: []activities.ShardPass{{Shard: "gone away", Gone: true}, {Shard: long}}}
	r := newShardRuns(t, plan, func(context.Context, activities.InformInput) (activities.InformProgress, error) {
		return activities.InformProgress{}, nil
	})
	r.ExecuteWorkflow(workflows.InformName, activities.InformInput{Kind: "account", Trigger: activities.TriggerRequest})
	require.NoError(t, r.GetWorkflowError())
	at := slices.Index(r.shards(), "gone away")
	require.True(t, r.given[at].Gone)
	require.True(t, strings.HasSuffix(r.ids[at], "/shard:gone%20away"), r.ids[at])
	other := 1 - at
	require.False(t, r.given[other].Gone)
	require.Len(t, r.ids[other], workflows.MaxID)
}
