package delta_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestSyncWaitsUntilTheGenerationHasSettled(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, hash := range map[string]bool{"plain": false, "hashed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			var calls atomic.Int64
			config := h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
				calls.Add(1)
				switch {
				case r.ObjectID == "bad":
					return delta.ResourceDegrade(errors.New("hopeless"))
				case r.ObjectID == "shaky" && r.Attempt == 1:
					return errors.New("try again")
				}
				time.Sleep(50 * time.Millisecond)
				return nil
			}}))
			config.HashObjectIDs = hash
			c := h.start(config)

			row, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
			require.NoError(t, err)
			require.Equal(t, deltatype.ResourceStateSynced, row.State)
			require.NotEmpty(t, row.WorkflowID)
			require.Equal(t, h.row("account", "ann"), row)
			require.EqualValues(t, 1, calls.Load())

			row, err = c.Sync(t.Context(), account{Name: "ann"}, nil)
			require.NoError(t, err)
			require.EqualValues(t, 1, row.SyncCount, "it is synced already")
			row, err = c.Sync(t.Context(), account{Name: "ann", Plan: "gold"}, nil)
			require.NoError(t, err)
			require.EqualValues(t, 2, row.SyncedGeneration)

			row, err = c.Sync(t.Context(), account{Name: "shaky"}, nil)
			require.NoError(t, err, "a failure with a retry does not end Sync")
			require.Equal(t, 2, row.Attempt)

			row, err = c.Sync(t.Context(), account{Name: "bad"}, nil)
			require.ErrorIs(t, err, delta.ErrNotSynced)
			require.ErrorContains(t, err, "degraded: resource degraded: hopeless")
			require.Equal(t, deltatype.ResourceStateDegraded, row.State)

			require.NoError(t, c.PauseKind(t.Context(), "account"))
			// Once the row exists, the context may also cancel the inform, which waits for its answer, or the last read.
			cancelled := func(id string) (row *deltatype.ResourceRow, err error) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				answered := make(chan struct{})
				go func() {
					defer close(answered)
					row, err = c.Sync(ctx, account{Name: id}, nil)
				}()
				h.eventually("account", id, func(r *deltatype.ResourceRow) bool { return r != nil })
				cancel()
				<-answered
				return row, err
			}
			id := "paused"
			until(t, func() bool {
				id += "-again"
				row, err = cancelled(id)
				return err == nil || strings.Contains(err.Error(), "sync account/")
			})
			require.ErrorContains(t, err, "sync account/paused")
			require.NotNil(t, row)
			require.NotNil(t, h.row("account", id), "the object is informed in any case")
		})
	}
}

// If ids are hashed, Temporal stores none of them.
func TestHashedObjectIDsDoNotReachTemporal(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
		if r.Attempt == 1 {
			return errors.New("no luck with " + r.ObjectID)
		}
		return nil
	}}))
	config.HashObjectIDs = true
	c := h.start(config)
	const id = "ann.secret@example.com"
	_, err := c.Inform(t.Context(), account{Name: id}, nil)
	require.NoError(t, err)
	row := h.eventually("account", id, synced(1))
	require.Len(t, row.HashedID, 64)
	require.Equal(t, h.Prefix+"/account/"+row.HashedID, row.WorkflowID)

	// The row has the result before Temporal has the whole history: the timer comes last.
	h.awaitEvent(row.WorkflowID, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
	for _, event := range h.history(row.WorkflowID) {
		require.NotContains(t, event.String(), "secret")
	}
	described, err := h.Temporal.WorkflowService().DescribeWorkflowExecution(t.Context(), &workflowservice.DescribeWorkflowExecutionRequest{
		Namespace: h.TemporalNamespace, Execution: &commonpb.WorkflowExecution{WorkflowId: row.WorkflowID},
	})
	require.NoError(t, err)
	require.NotContains(t, described.String(), "secret")
}

// The workflow of the plain id still waits for its timer while the one of the hash runs Work. It leaves the resource alone.
func TestHashedObjectIDsCanBeSwitchedOn(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	first := h.startWorker(func(context.Context, *delta.Resource[account]) error { return delta.ResourceSnooze(time.Hour) })
	_, err := first.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", func(r *deltatype.ResourceRow) bool { return r != nil && r.Snoozes == 1 })
	require.NoError(t, first.Stop(t.Context()))
	_, err = h.Pool.Exec(t.Context(), "UPDATE delta_installation SET hash_object_ids = NULL")
	require.NoError(t, err)

	// The workflow of the plain id was not terminated, and still waits.
	var calls atomic.Int64
	working, proceed := make(chan struct{}, 10), make(chan struct{})
	config := withLongClaims(h.config(with(&controller[account]{work: func(ctx context.Context, _ *delta.Resource[account]) error {
		calls.Add(1)
		working <- struct{}{}
		select {
		case <-proceed:
		case <-ctx.Done():
		}
		return ctx.Err()
	}})), "account")
	config.HashObjectIDs = true
	c := h.start(config)
	_, err = c.Inform(t.Context(), account{Name: "ann", Plan: "new"}, nil)
	require.NoError(t, err)
	<-working
	// Now its timer fires: a wake-up makes it read the row, as the timer does. It waits for the end of the claim.
	looks := func() (n int) {
		for _, e := range h.history(h.Prefix + "/account/ann") {
			if endsAttempt(e) {
				n++
			}
		}
		return n
	}
	before := looks()
	h.signal("account", "ann")
	until(t, func() bool { return looks() > before })
	close(proceed)
	row := h.eventually("account", "ann", synced(2))
	h.signalIfRunning("account", "ann") // so that it does not wait for the end of a claim that is closed by now
	h.awaitResourceEnd("account", "ann")
	require.EqualValues(t, 1, calls.Load())
	require.Empty(t, row.Errors)
	require.Equal(t, h.Prefix+"/account/"+row.HashedID, row.WorkflowID)
}
