package delta_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// leaseDue leases due rows, as a dispatcher does, for a batch, or for singles if batch is empty.
func (h *harness) leaseDue(kind, batch string, lease time.Duration) []db.LeaseDueRow {
	h.t.Helper()
	due, err := db.New().LeaseDue(h.t.Context(), h.Pool, db.LeaseDueParams{
		Kind: kind, Batch: 100, Lease: lease, Longest: lease, BatchPrefix: h.Prefix + "/" + kind + ":batch/", BatchID: batch, Largest: 1 << 20,
		MostLost: 2, Priorities: []int16{1, 2, 3, 4, 5}, PassedBy: []string{},
	})
	require.NoError(h.t, err)
	return due
}

// leaseBatch leases a batch, as a dispatcher does, but does not start its workflow.
func (h *harness) leaseBatch(kind string, lease time.Duration) activities.Batch {
	h.t.Helper()
	batch := activities.Batch{Kind: kind, WorkflowID: h.Prefix + "/" + kind + ":batch/gone"}
	require.NoError(h.t, h.Pool.QueryRow(h.t.Context(), "SELECT id::text FROM delta_installation").Scan(&batch.Installation))
	var ids []int64
	for _, row := range h.leaseDue(kind, batch.WorkflowID, lease) {
		require.True(h.t, row.Batched)
		ids = append(ids, row.ID)
	}
	batch.IDs = activities.PackNumbers(ids)
	return batch
}

// A worker whose workflow is lost releases its claims, and another batch gets the members at once.
func TestMembersOfABatchWithoutAWorkflowAreDispatchedAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var gone atomic.Bool
	begun := make(chan struct{}, 100)
	work := func(ctx context.Context, _ *delta.Resource[batched]) error {
		if !gone.Load() {
			begun <- struct{}{}
			<-ctx.Done()
		}
		return ctx.Err()
	}
	c := h.client(h.config(with(&controller[batched]{work: work})))
	_, err := c.InformMany(t.Context(), manyBatched(names("ok", 30)...), nil)
	require.NoError(t, err)
	batch := h.leaseBatch("batched", time.Hour)
	require.Equal(t, 30, batch.IDs.Len())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.ActivitiesOf(batch.Installation, "batched").AttemptBatch(ctx, batch)
		ended <- err
	}()
	for range 8 {
		<-begun
	}
	gone.Store(true)
	cancel() // as the answer to a heartbeat does
	require.Error(t, <-ended)

	h.start(h.config(with(&controller[batched]{work: work})))
	untouched := 0
	for _, name := range names("ok", 30) {
		if row := h.eventually("batched", name, synced(1)); row.Attempt == 1 {
			require.Empty(t, row.Errors)
			untouched++
		}
	}
	require.Equal(t, 30-8, untouched, "only members that had begun lost an attempt")
}

// If a dispatcher dies between its lease and the start of the batch, another one starts the batch when the lease expires.
func TestABatchThatWasLeasedAndNeverStartedIsStartedByAnother(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(&delta.Config{}).InformMany(t.Context(), manyBatched(names("ok", 20)...), nil)
	require.NoError(t, err)
	require.Equal(t, 20, h.leaseBatch("batched", 2*time.Second).IDs.Len())
	leased := *h.row("batched", "ok00").DispatchAt
	c := h.client(h.config(with(&controller[batched]{})))
	c.SetTiming(0, 50*time.Millisecond, 0)
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // the test is over
	for _, name := range names("ok", 20) {
		row := h.eventually("batched", name, synced(1))
		require.NotContains(t, row.WorkflowID, "gone")
		require.False(t, row.AttemptedAt.Before(leased), "not before the lease has run out")
	}
}

// If Temporal refuses a start once, the batch is dispatched again at once.
func TestABatchWhoseStartIsRefusedOnceIsStartedAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var refuse atomic.Bool
	config := h.config(with(&controller[batched]{}))
	config.Temporal = h.dialRefusing(func(method string) error {
		if strings.HasSuffix(method, "/StartWorkflowExecution") && refuse.CompareAndSwap(true, false) {
			return status.Error(codes.PermissionDenied, "not this time")
		}
		return nil
	})
	c := h.client(config)
	c.SetTiming(time.Hour, 0, 0)
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // the test is over
	refuse.Store(true)
	_, err := c.InformMany(t.Context(), manyBatched(names("some", 50)...), nil)
	require.NoError(t, err)
	for _, name := range names("some", 50) {
		require.Empty(t, h.eventually("batched", name, synced(1)).Errors)
	}
	require.False(t, refuse.Load())
}
