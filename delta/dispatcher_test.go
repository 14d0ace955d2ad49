package delta_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/chariot-giving/delta/delta"
)

// startAttributes returns the attributes with which the latest run of a resource's workflow was started.
func (h *harness) startAttributes(kind, id string) *historypb.WorkflowExecutionStartedEventAttributes {
	h.t.Helper()
	events := h.history(h.Prefix + "/" + kind + "/" + id)
	require.NotEmpty(h.t, events)
	return events[0].GetWorkflowExecutionStartedEventAttributes()
}

// beganUnsignalled asserts that the first attempt of a resource's workflow ended before any signal. Later signals may come from a dispatcher that did
// not learn in time that the workflow runs.
func (h *harness) beganUnsignalled(kind, id string) {
	h.t.Helper()
	workflowID := h.Prefix + "/" + kind + "/" + id
	h.awaitEvent(workflowID, endsAttempt) // the row has the outcome earlier than the history
	events := h.history(workflowID)
	require.False(h.t, slices.ContainsFunc(events[:slices.IndexFunc(events, endsAttempt)], isSignal))
}

// isFirstTask matches an event of the first task of a workflow. Later tasks may time out if their worker was stopped.
func isFirstTask(became enumspb.EventType) func(*historypb.HistoryEvent) bool {
	return func(e *historypb.HistoryEvent) bool {
		scheduled := max(e.GetWorkflowTaskCompletedEventAttributes().GetScheduledEventId(), e.GetWorkflowTaskTimedOutEventAttributes().GetScheduledEventId())
		return e.GetEventType() == became && scheduled == 2
	}
}

// The workflow of a new row begins without a signal and without a task from Temporal's queue.
func TestTheWorkflowOfANewResourceBeginsWhereItIsStarted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(nil)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(1))
	require.True(t, h.startAttributes("account", "ann").GetEagerExecutionAccepted())
	h.beganUnsignalled("account", "ann")
	run := h.startAttributes("account", "ann").GetOriginalExecutionRunId()

	// An inform of an existing resource wakes its waiting workflow.
	_, err = c.Inform(t.Context(), account{Name: "ann", Plan: "new"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(2))
	require.Equal(t, run, h.startAttributes("account", "ann").GetOriginalExecutionRunId())
	require.True(t, slices.ContainsFunc(h.history(h.Prefix+"/account/ann"), isSignal))
}

// A new row may have a workflow, for example if the old row was removed by hand.
func TestANewRowWhoseWorkflowRunsIsSynced(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	works := make(chan string, 10)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		works <- r.Object.Plan
		return nil
	})
	_, err := c.Inform(t.Context(), account{Name: "ann", Plan: "old"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(1))
	require.Equal(t, "old", <-works)
	run := h.startAttributes("account", "ann").GetOriginalExecutionRunId()

	_, err = h.Pool.Exec(t.Context(), "DELETE FROM delta_resource WHERE kind = 'account' AND object_id = 'ann'")
	require.NoError(t, err)
	_, err = c.Inform(t.Context(), account{Name: "ann", Plan: "new"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(1))
	require.Equal(t, "new", <-works)
	require.Equal(t, run, h.startAttributes("account", "ann").GetOriginalExecutionRunId(), "the running workflow is used")
	require.True(t, slices.ContainsFunc(h.history(h.Prefix+"/account/ann"), isSignal))
}

// The answer to an eager start has the first task: a lost one would come again only after Temporal's timeout of 10 s.
func TestStopLeavesNoStartUnanswered(t *testing.T) {
	t.Parallel()
	var temporal starts
	h := temporal.harness(t)
	config := h.config(with(&controller[account]{}))
	c := h.client(config)
	require.NoError(t, c.Start(t.Context()))
	temporal.late.Store(true)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	until(t, func() bool { return temporal.begun.Load() > 0 })
	require.NoError(t, c.Stop(t.Context()))
	temporal.late.Store(false)
	require.True(t, h.startAttributes("account", "ann").GetEagerExecutionAccepted())
	require.True(t, slices.ContainsFunc(h.history(h.Prefix+"/account/ann"), isFirstTask(enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)),
		"the task was done before Stop returned")
	h.start(config)
	h.eventually("account", "ann", synced(1))
}
