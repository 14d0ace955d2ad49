package activities

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATurnIsWaitedForWhileTurnsChangeHands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := NewBatchSlots(2)
		first, second := turns.takeSlot(t.Context()), turns.takeSlot(t.Context())
		began := time.Now()
		taken := make(chan time.Duration)
		var batches sync.WaitGroup
		defer batches.Wait()
		for range 3 {
			batches.Go(func() {
				giveBack := turns.takeSlot(t.Context())
				taken <- time.Since(began)
				time.Sleep(4 * time.Second)
				giveBack()
			})
		}
		time.Sleep(time.Second)
		first()
		require.Equal(t, time.Second, <-taken)
		time.Sleep(3 * time.Second)
		second()
		require.Equal(t, 4*time.Second, <-taken)
		require.Equal(t, 5*time.Second, <-taken, "it did not lose patience meanwhile")
	})
}

func TestABatchGoesOnWithoutATurnWhereNoneChangesHands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := NewBatchSlots(1)
		kept := turns.takeSlot(t.Context())
		began := time.Now()
		without := turns.takeSlot(t.Context())
		require.Equal(t, batchSlotPatience, time.Since(began))
		without()
		kept()
		began = time.Now()
		turns.takeSlot(t.Context())()
		require.Zero(t, time.Since(began), "what had no turn gave none back")
	})
}

func TestWaitingForATurnEndsWithItsContext(t *testing.T) {
	t.Parallel()
	turns := NewBatchSlots(1)
	defer turns.takeSlot(t.Context())()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	turns.takeSlot(ctx)()
	var none *BatchSlots
	none.takeSlot(t.Context())()
}
