package delta_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestSyncsWhatIsInformed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	worked := make(chan delta.Resource[account], 10)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		worked <- *r
		return nil
	})

	result, err := c.Inform(t.Context(), account{Name: "ann", Plan: "free"}, nil)
	require.NoError(t, err)
	require.False(t, result.AlreadyExists)
	require.True(t, result.Scheduled)
	require.Equal(t, deltatype.ResourceStateScheduled, result.Resource.State)

	row := h.eventually("account", "ann", synced(1))
	require.Equal(t, 1, row.Attempt)
	require.NotNil(t, row.SyncedAt)
	require.Equal(t, h.Prefix+"/account/ann", row.WorkflowID)
	got := <-worked
	require.Equal(t, account{Name: "ann", Plan: "free"}, got.Object)

	// Unchanged: left alone.
	result, err = c.Inform(t.Context(), account{Name: "ann", Plan: "free"}, nil)
	require.NoError(t, err)
	require.True(t, result.AlreadyExists)
	require.False(t, result.Scheduled)
	require.EqualValues(t, 1, result.Resource.Generation)

	// Changed: a new generation.
	result, err = c.Inform(t.Context(), account{Name: "ann", Plan: "paid"}, nil)
	require.NoError(t, err)
	require.True(t, result.Scheduled)
	h.eventually("account", "ann", synced(2))
	require.Equal(t, account{Name: "ann", Plan: "paid"}, (<-worked).Object)
	require.Empty(t, worked)
}
