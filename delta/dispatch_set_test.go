package delta

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Rows that one statement made due are leased to batches at once if they fill half a batch, or are more than become singles.
func TestALargeSetIsLeasedToBatchesAtOnce(t *testing.T) {
	t.Parallel()
	const never = 1 << 30
	for batchSize, fewest := range map[int]int{0: 32, 1: never, 2: 2, 3: 2, 50: 25, 1000: 500} {
		d := &dispatcher{kind: "account", batchSize: batchSize, pace: newPace(8, false), wakes: make(chan struct{}, 1)}
		for _, due := range []int{0, 1, fewest - 1} {
			d.wake(due)
			require.False(t, d.hasMany.Load(), "%d of a BatchSize of %d", due, batchSize)
			require.Len(t, d.wakes, 1)
		}
		d.wake(fewest)
		require.Equal(t, fewest != never, d.hasMany.Load(), "%d of a BatchSize of %d", fewest, batchSize)
		d.wake(1)
		require.Equal(t, fewest != never, d.hasMany.Load(), "a few more rows do not change that")
	}
}

func TestOnlyAFewResourcesGetTheirOwnWorkflowInAutomaticMode(t *testing.T) {
	t.Parallel()
	d := &dispatcher{kind: "account", pace: newPace(8, false)}
	batch, size := d.planLease(false)
	require.Empty(t, batch)
	require.Equal(t, 16, size)
	batch, size = d.planLease(true)
	require.Contains(t, batch, "account:batch/")
	require.Equal(t, 100, size)
}
