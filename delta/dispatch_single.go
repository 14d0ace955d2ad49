package delta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

// Prefixes of the errors of a resource whose workflow could not be started.
const (
	workflowNotStarted = "its workflow cannot be started: "
	batchNotStarted    = "its batch cannot be started: "
)

// wakeSingles wakes the single workflows of rows that were leased together. A row whose workflow cannot be started waits
// alone, ever longer, and its errors say why. Only a failure of Temporal as a whole is returned.
func (d *dispatcher) wakeSingles(ctx context.Context, due []db.LeaseDueRow) error {
	var mu sync.Mutex
	var atFault, unwoken []db.LeaseDueRow
	var answered time.Time // when Temporal last woke another
	reasons := map[int64]error{}
	var failure error
	var group errgroup.Group
	group.SetLimit(startsAtOnce)
	calls, stop := context.WithCancel(ctx)
	defer stop()
	for _, row := range due {
		group.Go(func() error {
			began := time.Now()
			err := d.wakeWorkflow(calls, row)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				answered = time.Now()
				d.clearFailures(row.ID)
				d.logDebug("a workflow was started or woken", row)
				return nil
			}
			onlyIt := isUnanswered(err) && answered.After(began)
			switch {
			case calls.Err() != nil || (isTemporalDown(err) && !onlyIt):
				if failure == nil && ctx.Err() == nil {
					failure = err
				}
				unwoken = append(unwoken, row)
				stop() // the others would wait for the same
			default:
				reasons[row.ID] = err
				atFault = append(atFault, row)
			}
			return nil
		})
	}
	_ = group.Wait()
	d.uncountRows(append(slices.Clone(atFault), unwoken...))
	d.recordWoken(DispatchSingle, len(due)-len(atFault)-len(unwoken), 1, nil)
	if failure != nil {
		d.recordWoken(DispatchSingle, len(unwoken), 1, failure)
	}
	d.noteWorkflowIDs(ctx, due)
	if len(atFault) > 0 {
		first := atFault[0]
		d.recordWoken(DispatchSingle, len(atFault), 1, reasons[first.ID])
		d.log.Warn("the workflows of some resources cannot be started; the others do not wait for them",
			append(d.logFields(first), "resources", len(atFault), "error", reasons[first.ID])...)
	}
	err := d.releaseRows(ctx, atFault, func(row db.LeaseDueRow) (time.Duration, string) {
		return d.startBackoff(row.ID), workflowNotStarted + reasons[row.ID].Error()
	})
	if releaseErr := d.releaseRowsNow(ctx, unwoken); err == nil {
		err = releaseErr
	}
	if failure != nil {
		return fmt.Errorf("%d of %d workflows were not woken: %w", len(unwoken), len(due), failure)
	}
	return err
}

// uncountRows takes rows that were not woken out of the counts of pace and limits. Call it before they are released,
// because they may be leased at once.
func (d *dispatcher) uncountRows(rows []db.LeaseDueRow) {
	d.pace.uncountWoken(len(rows))
	d.limits.uncountLeased(d.kind, rows)
}

// noteWorkflowIDs writes the ids of single workflows on waiting rows.
func (d *dispatcher) noteWorkflowIDs(ctx context.Context, rows []db.LeaseDueRow) {
	var p db.NameWorkflowsParams
	for _, row := range rows {
		if row.Unnamed && (row.DueAt == nil || row.DueAt.After(row.Now)) {
			p.Ids, p.WorkflowIds = append(p.Ids, row.ID), append(p.WorkflowIds, d.names.workflowID(refOfRow(d.ref(), row)))
		}
	}
	if len(p.Ids) == 0 || ctx.Err() != nil {
		return
	}
	if err := db.New().NameWorkflows(ctx, d.pool, p); err != nil && ctx.Err() == nil {
		d.log.Info("noting the workflows of resources failed; their rows do not name them", "kind", d.kind, "resources", len(p.Ids), "error", err)
	}
}

// logFields returns the log fields of a row.
func (d *dispatcher) logFields(row db.LeaseDueRow) []any {
	id := activities.IDField(row.ObjectID, row.HashedID, row.HashedID != nil)
	return []any{"kind", d.kind, id, "namespace", row.Namespace, "generation", row.Generation, "workflow_id", d.names.workflowID(refOfRow(d.ref(), row))}
}

// logDebug logs an event of a row at level debug.
func (d *dispatcher) logDebug(message string, row db.LeaseDueRow) {
	if d.log.Enabled(context.Background(), slog.LevelDebug) {
		d.log.Debug(message, d.logFields(row)...)
	}
}

// clearFailures resets the failures of rows.
func (d *dispatcher) clearFailures(ids ...int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		delete(d.failures, id)
	}
}

// startBackoff returns how long a row waits whose workflow could not be started.
func (d *dispatcher) startBackoff(id int64) time.Duration {
	const most = 10_000
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.failures) > most {
		clear(d.failures) // the backoffs begin again: memory is bounded
	}
	d.failures[id]++
	return deltatype.RetryPolicy{InitialInterval: firstStartBackoff, MaximumInterval: maxStartBackoff}.Backoff(d.failures[id])
}

// isTemporalDown reports whether a call failed for a reason that affects every other call too.
func isTemporalDown(err error) bool {
	if missing := new(serviceerror.NamespaceNotFound); errors.As(err, &missing) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	if exhausted := new(serviceerror.ResourceExhausted); errors.As(err, &exhausted) {
		return exhausted.Cause != enumspb.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW
	}
	switch serviceerror.ToStatus(err).Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented, codes.Canceled:
		return true
	default:
		return false
	}
}

// isUnanswered reports whether a call got no answer. If others get theirs meanwhile, only a part of Temporal is down, or only
// one workflow.
func isUnanswered(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*serviceerror.DeadlineExceeded)) || errors.As(err, new(*serviceerror.Unavailable))
}

func (d *dispatcher) wakeWorkflow(ctx context.Context, row db.LeaseDueRow) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Let a call in progress end: an eager start whose answer is lost leaves its workflow waiting for a timeout.
	call, cancel := withGrace(ctx, dispatchRPCTimeout)
	defer cancel()
	ref := d.ref()
	err := d.wakeWithRef(call, row, ref)
	if d.isWithoutAttributes(ref, err) {
		ref.SearchAttributes = false
		err = d.wakeWithRef(call, row, ref)
	}
	return err
}

// isWithoutAttributes reports whether a start with ref failed because the Temporal namespace no longer has Delta's search
// attributes. Starts leave them out from then on, until maintenance has created them again. Starts run concurrently, so
// each of them can fail this way.
func (d *dispatcher) isWithoutAttributes(ref activities.Ref, err error) bool {
	if !ref.SearchAttributes || !isRefusedInput(err, withoutAttributes) {
		return false
	}
	if d.ref().SearchAttributes {
		d.log.Warn("Temporal refuses the search attributes of Delta: workflows are started without, and the UI cannot filter by them",
			"kind", d.kind, "error", err)
	}
	d.dropAttributes()
	return true
}

// refOfRow returns the ref of a kind, completed for the resource of a row.
func refOfRow(ref activities.Ref, row db.LeaseDueRow) activities.Ref {
	ref.ID, ref.Namespace = row.ID, row.Namespace
	if row.HashedID != nil {
		ref.HashedID = *row.HashedID
	} else {
		ref.ObjectID = row.ObjectID
	}
	return ref
}

// wakeWithRef starts or signals the workflow of a row. ref is that of its kind.
func (d *dispatcher) wakeWithRef(call context.Context, row db.LeaseDueRow, ref activities.Ref) error {
	ref = refOfRow(ref, row)
	options := startOptions(d.names, ref, row.Namespace, row.State, int(row.Priority))
	if row.Generation == 1 && row.State == deltatype.ResourceStateScheduled && !d.isLate(row) {
		if done, err := d.startWorkflow(call, options, ref); done {
			return err
		}
	}
	if d.isLate(row) || row.Worked {
		if err := d.terminateStuck(call, options, row); err != nil {
			return err
		}
		if ref.SearchAttributes && !d.ref().SearchAttributes { // they blocked the workflow
			ref.SearchAttributes = false
			options = startOptions(d.names, ref, row.Namespace, row.State, int(row.Priority))
		}
	}
	_, err := d.client.SignalWithStartWorkflow(call, options.ID, workflows.WakeSignal, nil, options, workflows.ResourceName, ref)
	if isRefusedInput(err, fullOfSignals) {
		return d.replaceFull(call, options, row, ref)
	}
	return err
}

// Parts, in lower case, of the texts with which the server refuses calls. It has no codes for these reasons.
const (
	// withoutAttributes is for search attributes that the namespace does not have.
	withoutAttributes = "search attribute"
	// fullOfSignals is for a signal to a run that has had history.maximumSignalsPerExecution, 10,000 by default.
	fullOfSignals = "limit for signal events"
	// inputTooLarge is for an input over limit.blobSize.error, 2 MiB by default.
	inputTooLarge = "size exceeds limit"
)

// isRefusedInput reports whether the server refused a call as invalid, with a text that has a part.
func isRefusedInput(err error, part string) bool {
	refused := new(serviceerror.InvalidArgument)
	return errors.As(err, &refused) && strings.Contains(strings.ToLower(refused.Error()), part)
}

// replaceFull replaces a workflow whose run may get no more signals, so that none could wake it before its timer fires.
// The workflow cannot prevent that, because it cannot read the server's limit. Its row has no live claim, and has
// everything that the next workflow needs.
func (d *dispatcher) replaceFull(ctx context.Context, options client.StartWorkflowOptions, row db.LeaseDueRow, ref activities.Ref) error {
	d.log.Warn("a workflow is replaced because its run has had as many signals as Temporal allows (history.maximumSignalsPerExecution): nothing is lost",
		d.logFields(row)...)
	options.WorkflowIDConflictPolicy = enumspb.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
	_, err := d.client.ExecuteWorkflow(ctx, options, workflows.ResourceName, ref)
	return err
}

// isLate reports whether a row was due before the latest wake-ups, which had no effect.
func (d *dispatcher) isLate(row db.LeaseDueRow) bool {
	return row.DueAt != nil && row.Now.Sub(*row.DueAt) > activities.DueGrace
}

// startWorkflow starts the workflow of a new row, which most likely has none: a start costs Temporal less than a signal. If
// there is a workflow, done is false, because that needs a signal.
func (d *dispatcher) startWorkflow(ctx context.Context, options client.StartWorkflowOptions, ref activities.Ref) (done bool, err error) {
	options.WorkflowIDConflictPolicy = enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL
	options.WorkflowExecutionErrorWhenAlreadyStarted = true
	options.EnableEagerStart = d.eager
	_, err = d.client.ExecuteWorkflow(ctx, options, workflows.ResourceName, ref)
	return !temporal.IsWorkflowExecutionAlreadyStartedError(err), err
}

// terminateStuck terminates a workflow that cannot go on: it waits on a task queue that is no longer the kind's and may
// never be polled; its worker is cut off from Postgres, but not from Temporal; or it was started with search attributes
// that Temporal no longer has. The row has no live claim, and has everything that the next workflow needs.
func (d *dispatcher) terminateStuck(ctx context.Context, options client.StartWorkflowOptions, row db.LeaseDueRow) error {
	described, err := d.client.DescribeWorkflow(ctx, options.ID, "")
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	found := described.RawResponse
	there, why := found.GetExecutionConfig().GetTaskQueue().GetName(), ""
	switch {
	case found.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
	case there != options.TaskQueue:
		why = "its task queue is not the kind's any more"
	case row.Worked && hasSilentWorker(found, time.Now()):
		why = "its worker has no claim, and does not give up"
	case found.GetPendingWorkflowTask().GetAttempt() > 1:
		lacks, err := d.lacksAttributes(ctx, found.GetWorkflowExecutionInfo().GetExecution())
		if err != nil {
			return err
		}
		if lacks {
			why = "Temporal refuses the search attributes that it writes"
			d.dropAttributes()
		}
	}
	if why == "" {
		return nil
	}
	d.log.Warn("a resource was late because its workflow is stuck; it is started again",
		append(d.logFields(row), "reason", why, "task_queue", there, "instead", options.TaskQueue)...)
	return d.client.TerminateWorkflow(ctx, options.ID, found.GetWorkflowExecutionInfo().GetExecution().GetRunId(), why)
}

// lacksAttributes reports whether the latest task of a workflow failed because Temporal refuses the search attributes that
// the workflow writes. It would fail again, ever later, until somebody creates them.
func (d *dispatcher) lacksAttributes(ctx context.Context, run *commonpb.WorkflowExecution) (bool, error) {
	request := &workflowservice.GetWorkflowExecutionHistoryReverseRequest{Namespace: d.temporalNamespace, Execution: run, MaximumPageSize: 20}
	for {
		history, err := d.client.WorkflowService().GetWorkflowExecutionHistoryReverse(ctx, request)
		if err != nil {
			return false, err
		}
		for _, event := range history.GetHistory().GetEvents() {
			switch event.GetEventType() {
			case enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
				return false, nil
			case enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED:
				return event.GetWorkflowTaskFailedEventAttributes().GetCause() == enumspb.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES, nil
			default: // signals may follow, and a task that is to be tried again
			}
		}
		if request.NextPageToken = history.GetNextPageToken(); len(request.NextPageToken) == 0 {
			return false, nil
		}
	}
}

// hasSilentWorker reports whether Temporal believes that a worker executes an activity of a workflow that needs a claim. An
// activity that waits in a queue, or for its next try, is not executed; one with details of a heartbeat waits for a slot. One
// that began less than a heartbeat timeout ago may be about to claim its row: a command, such as that to resume a kind,
// dispatches rows again that were dispatched a moment ago. It is not spared if the clocks differ by more than that timeout.
func hasSilentWorker(found *workflowservice.DescribeWorkflowExecutionResponse, now time.Time) bool {
	return slices.ContainsFunc(found.GetPendingActivities(), func(pending *workflowpb.PendingActivityInfo) bool {
		hasJustBegun := now.Sub(pending.GetLastStartedTime().AsTime()).Abs() < activities.HeartbeatTimeout
		return pending.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED && pending.GetHeartbeatDetails() == nil && !hasJustBegun
	})
}
