package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// FailedShards is the type of the error of a run in which the passes of some shards failed.
const FailedShards = "delta.FailedShards"

const (
	// requestedPasses is how many shards a run that was started by request lists at once.
	requestedPasses = 10
	// maxShardGap is the longest time between the starts of two shards, so that a kind with few shards does not spread
	// them over most of its interval.
	maxShardGap = time.Minute
	// maxShardsNamed is how many shards an error names, maxShardsShown how many the details name.
	maxShardsNamed = 5
	maxShardsShown = 20
)

// scheduledByID is the id of the schedule that started a run.
var scheduledByID = temporal.NewSearchAttributeKeyKeyword("TemporalScheduledById")

// informShards starts a child workflow for each shard.
func informShards(ctx workflow.Context, in activities.InformInput, run activities.ShardRun) (activities.InformProgress, error) {
	if in.Trigger == activities.TriggerSchedule {
		return activities.InformProgress{}, scheduleShards(ctx, in, run)
	}
	return awaitShards(ctx, in, run)
}

// scheduleShards starts the passes of a scheduled run one after the other, spread over time, and waits for none of
// them, so that a shard that hangs or fails delays neither the others nor the next run. Where the earlier pass of a
// shard still runs, none is started, as for a kind without shards.
func scheduleShards(ctx workflow.Context, in activities.InformInput, run activities.ShardRun) error {
	base := workflow.GetInfo(ctx).WorkflowExecution.ID
	if schedule, ok := workflow.GetTypedSearchAttributes(ctx).GetKeyword(scheduledByID); ok {
		base = schedule
	}
	gap := shardGap(run)
	var running []string
	tell := func(started int) {
		more := ""
		if len(running) > 0 {
			more = "Not started, because their pass of an earlier run still goes on: " + describeFirst(running[:min(len(running), maxShardsShown)], int64(len(running)))
		}
		showInformDetails(ctx, in, fmt.Sprintf("has begun the passes of %d of %d shards, each in its own workflow", started-len(running), len(run.Passes)), more)
	}
	for i, pass := range run.Passes {
		tell(i)
		if i > 0 {
			if err := workflow.Sleep(ctx, gap); err != nil {
				return err
			}
		}
		child := startShard(ctx, in, pass, base, enumspb.PARENT_CLOSE_POLICY_ABANDON)
		err := child.GetChildWorkflowExecution().Get(ctx, nil)
		if isRunning := new(temporal.ChildWorkflowExecutionAlreadyStartedError); errors.As(err, &isRunning) {
			running = append(running, fmt.Sprintf("%q", pass.Shard))
			run := workflow.GetInfo(ctx).WorkflowExecution
			workflow.GetLogger(ctx).Warn("a shard is not listed: its pass of an earlier run still goes on",
				"kind", in.Kind, "shard", pass.Shard, "workflow_id", run.ID, "run_id", run.RunID)
			continue
		}
		if err != nil {
			return fmt.Errorf("starting the pass of shard %q: %w", pass.Shard, err)
		}
	}
	tell(len(run.Passes))
	return nil
}

// shardGap returns the time between the starts of two shards.
func shardGap(run activities.ShardRun) time.Duration {
	return min(run.Spread/time.Duration(max(len(run.Passes), 1)), maxShardGap)
}

// awaitShards lists the shards of a run that was started by request, several at once, and waits for all of them even if
// some fail.
func awaitShards(ctx workflow.Context, in activities.InformInput, run activities.ShardRun) (sum activities.InformProgress, err error) {
	slots, all := workflow.NewSemaphore(ctx, requestedPasses), workflow.NewWaitGroup(ctx)
	base := workflow.GetInfo(ctx).WorkflowExecution.ID
	var failed []string
	ended := 0
	tell := func() {
		showInformDetails(ctx, in, fmt.Sprintf("has listed %d of %d shards, each in its own workflow; %d failed", ended, len(run.Passes), len(failed)),
			describeProgress(in.Kind, sum)...)
	}
	tell()
	for _, pass := range run.Passes {
		if err := slots.Acquire(ctx, 1); err != nil {
			failed = append(failed, fmt.Sprintf("%q: %s", pass.Shard, err))
			continue
		}
		all.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer all.Done()
			defer slots.Release(1)
			progress, err := awaitShard(ctx, in, pass, base)
			sum = sum.Add(progress)
			ended++
			if err != nil {
				failed = append(failed, fmt.Sprintf("%q: %s", pass.Shard, err))
			}
			tell()
		})
	}
	all.Wait(ctx)
	if len(failed) == 0 {
		return sum, nil
	}
	if ctx.Err() != nil {
		return sum, ctx.Err()
	}
	return sum, temporal.NewApplicationError(fmt.Sprintf("%d of %d shards failed: %s", len(failed), len(run.Passes),
		strings.Join(failed[:min(len(failed), maxShardsNamed)], "; ")), FailedShards, sum)
}

// awaitShard lists one shard. A pass that failed reports its progress, if it can.
func awaitShard(ctx workflow.Context, in activities.InformInput, pass activities.ShardPass, base string) (progress activities.InformProgress, err error) {
	err = startShard(ctx, in, pass, base, enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL).Get(ctx, &progress)
	if err == nil {
		return progress, nil
	}
	application := new(temporal.ApplicationError)
	if errors.As(err, &application) {
		if application.HasDetails() {
			_ = application.Details(&progress)
		}
		return progress, application // unwrapped, because Temporal's wrapper only adds ids
	}
	return progress, err
}

func startShard(
	ctx workflow.Context, in activities.InformInput, pass activities.ShardPass, base string, policy enumspb.ParentClosePolicy,
) workflow.ChildWorkflowFuture {
	in.Options.Shard, in.Named, in.Gone, in.Every, in.Pass = pass.Shard, true, pass.Gone, 0, ""
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        ShortenID(base+"/shard:"+EscapeID(pass.Shard), MaxID),
		ParentClosePolicy: policy,
		StaticSummary:     listSummary(in),
	})
	return workflow.ExecuteChildWorkflow(ctx, InformName, in)
}
