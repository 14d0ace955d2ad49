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
		turns := NewTurns(2)
		first, second := turns.take(t.Context()), turns.take(t.Context())
		began := time.Now()
		taken := make(chan time.Duration)
		var batches sync.WaitGroup
		defer batches.Wait()
		for range 3 {
			batches.Go(func() {
				giveBack := turns.take(t.Context())
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
		turns := NewTurns(1)
		kept := turns.take(t.Context())
		began := time.Now()
		without := turns.take(t.Context())
		require.Equal(t, turnPatience, time.Since(began))
		without()
		kept()
		began = time.Now()
		turns.take(t.Context())()
		require.Zero(t, time.Since(began), "what had no turn gave none back")
	})
}

func TestWaitingForATurnEndsWithItsContext(t *testing.T) {
	t.Parallel()
	turns := NewTurns(1)
	defer turns.take(t.Context())()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	turns.take(ctx)()
	var none *Turns
	none.take(t.Context())()
}
