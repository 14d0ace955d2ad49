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

// unbounded is for what the activity bounds itself, by the user's timeouts: Temporal wants a limit, and the heartbeat
// tells sooner that a worker is gone.
const unbounded = 10 * 365 * 24 * time.Hour

const attemptSummary = "attempt"

// attemptOptions repeat the activity only when it could not do its part: the error of an attempt that failed cannot be retried. A workflow that is
// cancelled waits for it: of one that has ended, the worker would only be told that it is gone, as after a termination, and Work would go on.
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

// localOptions are for an attempt that is expected to be short. It is tried once: an ordinary activity follows if it fails. The activity answers
// within [activities.MaxLocalAttempt]; the timeouts are for a process that does not get on.
var localOptions = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: 10 * time.Second,
	StartToCloseTimeout:    5 * time.Second,
	Summary:                attemptSummary,
	RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
}

// commandOptions repeat a command for as long as the database is away. It is a local activity: it does not wait behind Work.
var commandOptions = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: unbounded,
	StartToCloseTimeout:    30 * time.Second,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval:    time.Second,
		BackoffCoefficient: 2,
		MaximumInterval:    time.Minute,
	},
}

// retentionOptions repeat it for as long as the database is away. Without a bound for all tries together, the SDK takes that
// of one.
var retentionOptions = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: unbounded,
	StartToCloseTimeout:    10 * time.Second,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval:    time.Second,
		BackoffCoefficient: 2,
		MaximumInterval:    time.Minute,
	},
}

// batchRetentionOptions are retentionOptions for sets, which take longer.
var batchRetentionOptions = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: unbounded,
	StartToCloseTimeout:    time.Minute,
	RetryPolicy:            retentionOptions.RetryPolicy,
}

// informOptions repeat a pass a few times; after that the next one of the schedule has its turn.
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

// awaitOptions repeat a wait for as long as it takes: each worker that stops, or is lost, leaves it to another one.
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

// call names an activity and the types that it takes and gives: the bare ExecuteActivity takes anything.
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

// resultOf is what an activity came to. An attempt that has failed is a failed activity, so that people and metrics see it, and yet has a result, in the
// details of its error. Temporal decides nothing by such a failure: the result says what follows, as that of a success does.
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
