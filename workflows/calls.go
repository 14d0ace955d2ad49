package workflows

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// unbounded is the timeout of activities that the user's own timeouts bound: Temporal requires one, and the heartbeat
// notices a lost worker sooner.
const unbounded = 10 * 365 * 24 * time.Hour

const attemptSummary = "attempt"

// attemptOptions retry the activity only where it could not do its part: the error of a failed attempt is not
// retryable. A cancelled workflow waits for the activity. Otherwise the worker would only learn that the workflow is
// gone, as after a termination, and Work would go on.
func attemptOptions(kind Kind) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		StartToCloseTimeout: unbounded,
		HeartbeatTimeout:    cmp.Or(kind.HeartbeatTimeout, activities.HeartbeatTimeout),
		WaitForCancellation: true,
		Summary:             attemptSummary,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval:    time.Second,
			BackoffCoefficient: 2,
			MaximumInterval:    time.Minute,
		},
	}
}

// localOptions are for an attempt that is expected to be short. It is tried once, and an ordinary activity follows if
// it fails. The activity answers within [activities.MaxLocalAttempt], so the timeouts matter only for a process that
// hangs.
var localOptions = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: 10 * time.Second,
	StartToCloseTimeout:    5 * time.Second,
	Summary:                attemptSummary,
	RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
}

// commandOptions retry a command until the database answers. A command is a local activity so that it does not queue
// behind Work.
var commandOptions = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: unbounded,
	StartToCloseTimeout:    30 * time.Second,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval:    time.Second,
		BackoffCoefficient: 2,
		MaximumInterval:    time.Minute,
	},
}

// retentionOptions retry until the database answers. ScheduleToCloseTimeout is set because the SDK otherwise bounds all
// tries together by StartToCloseTimeout.
var retentionOptions = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: unbounded,
	StartToCloseTimeout:    10 * time.Second,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval:    time.Second,
		BackoffCoefficient: 2,
		MaximumInterval:    time.Minute,
	},
}

// batchRetentionOptions are retentionOptions for sets of rows, which take longer.
var batchRetentionOptions = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: unbounded,
	StartToCloseTimeout:    time.Minute,
	RetryPolicy:            retentionOptions.RetryPolicy,
}

// informOptions retry a pass a few times; after that the next scheduled pass takes over.
var informOptions = workflow.ActivityOptions{
	StartToCloseTimeout: unbounded,
	HeartbeatTimeout:    activities.HeartbeatTimeout,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval:    5 * time.Second,
		BackoffCoefficient: 2,
		MaximumInterval:    time.Minute,
		MaximumAttempts:    3,
	},
}

// awaitOptions retry a wait for as long as it takes: a worker that stops, or is lost, leaves it to another one.
var awaitOptions = workflow.ActivityOptions{
	StartToCloseTimeout: unbounded,
	HeartbeatTimeout:    activities.HeartbeatTimeout,
	Summary:             "wait until all has settled",
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval:    time.Second,
		BackoffCoefficient: 2,
		MaximumInterval:    time.Minute,
	},
}

// call names an activity and its types, because the bare ExecuteActivity accepts any argument.
type call[In, Out any] struct{ name string }

var (
	attempt      = call[activities.Ref, activities.Step]{activities.AttemptName}
	endRetention = call[activities.Ref, activities.Step]{activities.EndRetentionName}
	runCommand   = call[activities.CommandInput, activities.CommandResult]{activities.CommandName}
	awaitSettled = call[activities.AwaitInput, activities.AwaitResult]{activities.AwaitSettledName}

	attemptBatch      = call[activities.Batch, activities.BatchStep]{activities.AttemptBatchName}
	endBatchRetention = call[activities.Batch, activities.BatchStep]{activities.EndBatchRetentionName}
	forgetListing     = call[activities.AwaitInput, struct{}]{activities.ForgetListingName}
	informPass        = call[activities.InformInput, activities.InformProgress]{activities.InformPassName}

	runSource = call[activities.SourceInput, struct{}]{activities.RunSourceName}
)

func (c call[In, Out]) run(ctx workflow.Context, options workflow.ActivityOptions, in In) (out Out, err error) {
	err = workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), c.name, in).Get(ctx, &out)
	return resultOf(out, err)
}

func (c call[In, Out]) runLocal(ctx workflow.Context, options workflow.LocalActivityOptions, in In) (out Out, err error) {
	err = workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(ctx, options), c.name, in).Get(ctx, &out)
	return resultOf(out, err)
}

// resultOf returns the result of an activity. An attempt that failed is a failed activity, so that people and metrics
// see it, but its error carries a [activities.Step] in its details. Temporal decides nothing by that failure: the
// workflow goes on by the step, as after a success.
func resultOf[Out any](out Out, err error) (Out, error) {
	failed := new(temporal.ApplicationError)
	if !errors.As(err, &failed) || !activities.HasStep(failed.Type()) {
		return out, err
	}
	if err := failed.Details(&out); err != nil {
		return out, fmt.Errorf("reading the result of a failed attempt: %w", err)
	}
	return out, nil
}
