package delta_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// localAttempts and ordinaryAttempts count the attempts of each sort in a history. A local activity leaves a marker with its name.
func localAttempts(history []*historypb.HistoryEvent) (n int) {
	for _, e := range history {
		if namesActivity(e.GetMarkerRecordedEventAttributes(), activities.AttemptName) {
			n++
		}
	}
	return n
}

// namesActivity reports whether a marker belongs to a local activity of a name.
func namesActivity(marker *historypb.MarkerRecordedEventAttributes, name string) bool {
	for _, payload := range marker.GetDetails()["data"].GetPayloads() {
		if bytes.Contains(payload.GetData(), []byte(name)) {
			return true
		}
	}
	return false
}

func ordinaryAttempts(history []*historypb.HistoryEvent) (n int) {
	for _, e := range history {
		if e.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == activities.AttemptName {
			n++
		}
	}
	return n
}

// endsAttempt reports whether an event is the end of an attempt.
func endsAttempt(e *historypb.HistoryEvent) bool {
	marker := e.GetMarkerRecordedEventAttributes()
	return e.GetActivityTaskCompletedEventAttributes() != nil || e.GetActivityTaskFailedEventAttributes() != nil ||
		(namesActivity(marker, activities.AttemptName) && !isHandedOver(marker))
}

// isHandedOver reports whether a local activity has handed its attempt over to an ordinary activity. A failed one has no result.
func isHandedOver(marker *historypb.MarkerRecordedEventAttributes) bool {
	return marker.GetFailure() == nil && bytes.Contains(marker.GetDetails()["result"].GetPayloads()[0].GetData(), []byte("handed_over"))
}

// On a busy machine, short Work may take long: the attempt of at least one resource is entirely local.
func TestShortWorkIsALocalActivity(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(nil)
	n := 0
	until(t, func() bool {
		n++
		id := fmt.Sprint("a", n)
		_, err := c.Inform(t.Context(), account{Name: id}, nil)
		require.NoError(t, err)
		row := h.eventually("account", id, synced(1))
		h.awaitTimer(row.WorkflowID)
		history := h.history(row.WorkflowID)
		return localAttempts(history) == 1 && ordinaryAttempts(history) == 0
	})
}

func TestLongWorkDoesNotKeepSignalsFromItsWorkflow(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	proceed := make(chan struct{})
	var calls atomic.Int64
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		calls.Add(1)
		<-proceed
		return nil
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	pending := h.eventually("account", "ann", func(r *deltatype.ResourceRow) bool { return r != nil && r.State == deltatype.ResourceStatePending })
	h.signalCommand("account", "ann", "inform", map[string]any{"object": account{Name: "ann", Plan: "new"}})
	h.eventually("account", "ann", func(r *deltatype.ResourceRow) bool { return r.Generation == 2 })
	require.EqualValues(t, 1, calls.Load())
	history := h.history(pending.WorkflowID)
	require.Equal(t, 1, localAttempts(history))
	require.Equal(t, 1, ordinaryAttempts(history), "an ordinary activity waits for it")

	close(proceed)
	h.eventually("account", "ann", synced(2))
	require.EqualValues(t, 2, calls.Load())
	h.awaitEvent(pending.WorkflowID, endsAttempt)

	// By now, Work is known to be long.
	_, err = c.Inform(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "bob", synced(1))
	require.Zero(t, localAttempts(h.history(row.WorkflowID)))
}

// With a rate, Work has to wait, which a local activity must not do.
func TestWorkOfAKindWithARateIsNeverALocalActivity(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[rated]{})))
	_, err := c.Inform(t.Context(), rated{account{Name: "ann"}}, nil)
	require.NoError(t, err)
	row := h.eventually("rated", "ann", synced(1))
	h.awaitTimer(row.WorkflowID)
	history := h.history(row.WorkflowID)
	require.Zero(t, localAttempts(history))
	require.Positive(t, ordinaryAttempts(history))
}

type rated struct{ account }

func (rated) Kind() string { return "rated" }
func (rated) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 1, RateLimit: 100}
}

// A stop ends the context of Work in a local activity too.
func TestStopReachesALocalActivity(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	working, ended := make(chan struct{}), make(chan error, 1)
	config := h.config(with(&controller[account]{work: func(ctx context.Context, _ *delta.Resource[account]) error {
		close(working)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	}}))
	var logs logBuffer
	config.Logger = logs.logger()
	c := h.start(config)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	<-working // probably within the local activity
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_ = c.Stop(ctx)
	require.Error(t, <-ended)
	h.closesAttempts(&logs)
}

// Temporal gives the workflow's task to another worker, which sees the claim and waits for its end.
func TestAProcessKilledInALocalActivityIsReplaced(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(&delta.Config{}).Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.killChild("work", "working") // at once, so that the attempt is probably not handed over yet
	h.startWorker(nil)
	row := h.eventually("account", "ann", synced(1))
	require.Equal(t, 2, row.Attempt, "the lost attempt counts")
	require.Len(t, row.Errors, 1)
	require.Contains(t, row.Errors[0].Error, "the worker was lost")
}
