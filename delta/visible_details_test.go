package delta_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/converter"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// summaryOf returns the summary of an event in the UI.
func summaryOf(t *testing.T, e *historypb.HistoryEvent) (summary string) {
	t.Helper()
	require.NoError(t, converter.GetDefaultDataConverter().FromPayload(e.GetUserMetadata().GetSummary(), &summary))
	return summary
}

// The history has the summary of a timer, so no worker is needed to read it.
func TestTemporalShowsTheReasonOfATimer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		switch r.ObjectID {
		case "hopeless":
			return delta.ResourceDegrade(errBoom)
		case "exhausted":
			return errBoom
		case "gone":
			return delta.ResourceDelete(nil)
		case "failed":
			return delta.ResourceSnooze(time.Hour)
		}
		return nil
	})
	for id, says := range map[string]struct{ timer, details string }{
		"good":      {"synced: until it expires or is removed", "when it expires or is removed"},
		"hopeless":  {"degraded: until it is removed", "when it is removed"},
		"exhausted": {"degraded: until it is tried again", "when it is tried again"},
		"gone":      {"deleted: until it is removed", "when it is removed"},
		"failed":    {"scheduled: until the next attempt", "It waits for its next attempt, until"},
	} {
		_, err := c.Inform(t.Context(), account{Name: id}, &delta.InformOpts{MaxAttempts: 1})
		require.NoError(t, err)
		workflowID := h.Prefix + "/account/" + id
		timer := h.awaitEvent(workflowID, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
		require.Equal(t, says.timer, summaryOf(t, timer), id)
		require.Contains(t, h.workflowDetails(workflowID), says.details, id)
	}
}

func TestTheDetailsOfABatchNameItsFailures(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[batched]{work: func(_ context.Context, r *delta.Resource[batched]) error {
		if strings.HasPrefix(r.ObjectID, "fails") {
			return fmt.Errorf("calling for %s: %w", r.ObjectID, errBoom)
		}
		return nil
	}})))
	_, err := c.InformMany(t.Context(), manyBatched(append(names("good", 40), names("fails", 25)...)...), nil)
	require.NoError(t, err)
	row := h.eventually("batched", "good00", synced(1))
	h.awaitTimer(row.WorkflowID)
	details := h.workflowDetails(row.WorkflowID)
	require.Contains(t, details, "failed 25")
	require.Contains(t, details, "20 of those that failed go on in workflows of their own, the others in other batches")
	require.Equal(t, 20, strings.Count(details, errBoom.Error()))
	require.Contains(t, details, "and 5 more")
	require.Contains(t, h.staticDetails(row.WorkflowID, ""), "second argument of the input")
}

// staticDetails returns the details of a workflow in Temporal's database, which the UI shows.
func (h *harness) staticDetails(workflowID, runID string) (details string) {
	h.t.Helper()
	described, err := h.Temporal.DescribeWorkflow(context.Background(), workflowID, runID)
	require.NoError(h.t, err)
	payload := described.RawResponse.GetExecutionConfig().GetUserMetadata().GetDetails()
	require.NoError(h.t, converter.GetDefaultDataConverter().FromPayload(payload, &details))
	return details
}

func TestARunOfAnInformerReportsListedAndDeletedObjects(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[mirror]{all: newMirrors(10)}
	c := h.start(h.config(with(&controller[mirror]{inform: outside.inform})))
	run := func() *delta.InformRun {
		r, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
		require.NoError(t, err)
		return r
	}
	listed := run()
	require.Contains(t, h.workflowDetails(listed.WorkflowID), "(started by request) has ended")
	// A busy machine fills a page so slowly that it is written before it is full.
	require.Regexp(t, `Listed \*\*10\*\* in \d+ pages?, of all there is\. New or changed 10, refused 0`, h.workflowDetails(listed.WorkflowID))
	outside.set(newMirrors(9)...)
	deleted := run()
	require.Contains(t, h.workflowDetails(deleted.WorkflowID), "Marked deleted, because they are not listed any more: 1. m009")
	outside.set(newMirrors(1)...)
	withheld := run()
	require.Contains(t, h.workflowDetails(withheld.WorkflowID), "(delta informs approve mirror, or dismiss): 8. m001, m002")

	// The server has the details too, if no worker answers.
	require.NoError(t, c.Stop(context.Background()))
	result := func(r *delta.InformRun) *activities.PassReport {
		var progress activities.InformProgress
		require.NoError(t, h.Temporal.GetWorkflow(t.Context(), r.WorkflowID, r.RunID).Get(t.Context(), &progress))
		return progress.Pass
	}
	require.Positive(t, result(listed).Pages)
	require.Equal(t, &activities.PassReport{Complete: true, Pages: result(listed).Pages}, result(listed))
	require.Equal(t, []string{"m009"}, result(deleted).Deleted)
	require.Len(t, result(withheld).Withheld, 8)
	require.Contains(t, h.staticDetails(listed.WorkflowID, listed.RunID), "is in its result")
}
