package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"
)

// temporalFacts holds the facts about a resource that only Temporal knows.
type temporalFacts struct {
	// taskQueue is where it is worked; pollers are the clients that have polled it lately.
	taskQueue string
	pollers   []string
	// unrouted is why none of them gets its tasks, and routingRemedy what to do about it; empty if they do.
	unrouted, routingRemedy string
	// workflowID names the workflow of the resource; isBatch reports whether it is a batch.
	workflowID string
	isBatch    bool
	// described is that workflow; nil if Temporal has none with the id.
	described *workflowservice.DescribeWorkflowExecutionResponse
	// worker is the client that has the workflow's task, or executes its activity; empty if none does.
	worker string
}

// readTemporalFacts asks Temporal, within explainPatience.
func (c *Client) readTemporalFacts(ctx context.Context, f *facts) (*temporalFacts, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, explainPatience, fmt.Errorf("it did not answer within %s", explainPatience))
	defer cancel()
	e, err := c.reachTemporal(ctx)
	if err != nil {
		return nil, explainTemporalError(ctx, err)
	}
	t := &temporalFacts{taskQueue: e.names.withTaskQueue(f.TaskQueue).taskQueue(f.row.ObjectKind), workflowID: f.row.WorkflowID}
	if t.workflowID == "" {
		if t.workflowID, err = c.WorkflowID(ctx, f.row.ObjectKind, f.row.ObjectID); err != nil {
			return nil, explainTemporalError(ctx, err)
		}
	}
	t.isBatch = e.names.isBatch(f.row.ObjectKind, t.workflowID)
	var both errgroup.Group
	both.Go(func() error {
		found, err := e.readPollers(ctx, t.taskQueue)
		t.pollers = found.identities
		t.unrouted, t.routingRemedy = found.routing.findGap(e.temporalNamespace())
		return err
	})
	both.Go(func() error { return t.readWorkflow(ctx, e) })
	if err := both.Wait(); err != nil {
		return nil, explainTemporalError(ctx, err)
	}
	return t, nil
}

// explainTemporalError returns the cause of ctx if it has ended, because the SDK's error is less clear than a timeout.
func explainTemporalError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readWorkflow reads the workflow.
func (t *temporalFacts) readWorkflow(ctx context.Context, e *engine) error {
	found, err := e.temporal.DescribeWorkflow(ctx, t.workflowID, "")
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("describing the workflow %s: %w", t.workflowID, err)
	}
	t.described = found.RawResponse
	for _, pending := range t.described.GetPendingActivities() {
		if pending.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED {
			t.worker = pending.GetLastWorkerIdentity()
		}
	}
	if t.worker != "" || t.described.GetPendingWorkflowTask().GetState() != enumspb.PENDING_WORKFLOW_TASK_STATE_STARTED {
		return nil
	}
	t.worker, err = e.taskWorker(ctx, t.described)
	return err
}

// taskWorker returns the client that has the task of a workflow, which includes its local activity.
func (e *engine) taskWorker(ctx context.Context, described *workflowservice.DescribeWorkflowExecutionResponse) (string, error) {
	const latest = 10
	history, err := e.temporal.WorkflowService().GetWorkflowExecutionHistoryReverse(ctx, &workflowservice.GetWorkflowExecutionHistoryReverseRequest{
		Namespace: e.temporalNamespace(), Execution: described.GetWorkflowExecutionInfo().GetExecution(), MaximumPageSize: latest,
	})
	if err != nil {
		return "", fmt.Errorf("reading the history of the workflow %s: %w", described.GetWorkflowExecutionInfo().GetExecution().GetWorkflowId(), err)
	}
	for _, event := range history.GetHistory().GetEvents() {
		if started := event.GetWorkflowTaskStartedEventAttributes(); started != nil {
			return started.GetIdentity(), nil
		}
	}
	return "", nil
}

// workflowStatus returns the status of the workflow; unspecified if there is none.
func (t *temporalFacts) workflowStatus() enumspb.WorkflowExecutionStatus {
	return t.described.GetWorkflowExecutionInfo().GetStatus()
}

func (t *temporalFacts) isRunning() bool {
	return t.workflowStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// wasEnded returns how the workflow was ended before it was done, and when; empty if it was not.
func (t *temporalFacts) wasEnded() (how string, at *time.Time) {
	switch t.workflowStatus() {
	case enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		how = "was terminated"
	case enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED:
		how = "was cancelled"
	case enumspb.WORKFLOW_EXECUTION_STATUS_FAILED:
		how = "has failed"
	case enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		how = "has timed out"
	default:
		return "", nil
	}
	if closed := t.described.GetWorkflowExecutionInfo().GetCloseTime(); closed != nil {
		ended := closed.AsTime().UTC()
		at = &ended
	}
	return how, at
}

// pendingAttempt returns the activity that works the resource; nil if none is pending.
func (t *temporalFacts) pendingAttempt() *workflowpb.PendingActivityInfo {
	if all := t.described.GetPendingActivities(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// isExecuted reports whether a worker executes the activity, or the task with the local activity.
func (t *temporalFacts) isExecuted() bool { return t.worker != "" }

// failureText describes how tasks of the workflow fail; empty if they do not.
func (t *temporalFacts) failureText() string {
	if task := t.described.GetPendingWorkflowTask(); task.GetAttempt() > 1 {
		return fmt.Sprintf("tasks of its workflow %s fail or time out: this is try %d", t.workflowID, task.GetAttempt())
	}
	pending := t.pendingAttempt()
	if pending == nil || pending.GetAttempt() <= 1 || pending.GetLastFailure() == nil {
		return ""
	}
	return fmt.Sprintf("the attempt activity of its workflow %s fails, before Work is called or after: %s",
		t.workflowID, cmp.Or(pending.GetLastFailure().GetMessage(), "without a message"))
}
