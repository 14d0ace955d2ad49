package activities

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABatchWaitsForASlotWhileSlotsAreReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := NewBatchSlots(2)
		first, second := slots.takeSlot(t.Context()), slots.takeSlot(t.Context())
		began := time.Now()
		taken := make(chan time.Duration)
		var batches sync.WaitGroup
		defer batches.Wait()
		for range 3 {
			batches.Go(func() {
				giveBack := slots.takeSlot(t.Context())
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

func TestABatchGoesOnWithoutASlotWhileNoneIsReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := NewBatchSlots(1)
		kept := slots.takeSlot(t.Context())
		began := time.Now()
		without := slots.takeSlot(t.Context())
		require.Equal(t, batchSlotPatience, time.Since(began))
		without()
		kept()
		began = time.Now()
		slots.takeSlot(t.Context())()
		require.Zero(t, time.Since(began), "a batch without a slot released one")
	})
}

func TestWaitingForABatchSlotEndsWithItsContext(t *testing.T) {
	t.Parallel()
	slots := NewBatchSlots(1)
	defer slots.takeSlot(t.Context())()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	slots.takeSlot(ctx)()
	var none *BatchSlots
	none.takeSlot(t.Context())()
}
