package activities_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
)

// free tells how many slots can be taken, and gives them back.
func free(s *activities.Slots) (n int) {
	for s.TryReserveSlot(nil) != nil {
		n++
	}
	for range n {
		s.ReleaseSlot(nil)
	}
	return n
}

func TestThereAreAsManySlotsAsTheParallelism(t *testing.T) {
	t.Parallel()
	s := activities.NewSlots(3)
	require.Equal(t, 3, s.MaxSlots())
	require.Equal(t, 3, free(s))
	for range 3 {
		permit, err := s.ReserveSlot(t.Context(), nil)
		require.NoError(t, err)
		require.NotNil(t, permit)
		s.MarkSlotUsed(nil)
	}
	require.Nil(t, s.TryReserveSlot(nil))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.ReserveSlot(ended, nil)
	require.ErrorIs(t, err, context.Canceled)
	s.ReleaseSlot(nil)
	require.Equal(t, 1, free(s))
}

func TestASlotThatIsWaitedForIsGivenWhenOneIsReleased(t *testing.T) {
	t.Parallel()
	s := activities.NewSlots(1)
	require.NotNil(t, s.TryReserveSlot(nil))
	got := make(chan error)
	go func() {
		_, err := s.ReserveSlot(context.Background(), nil)
		got <- err
	}()
	s.ReleaseSlot(nil)
	require.NoError(t, <-got)
	require.Zero(t, free(s))
}

func TestARetainedSlotStaysTakenUntilItIsFreed(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"the only one": 1, "one of three": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("freed after the release", func(t *testing.T) {
				t.Parallel()
				s := activities.NewSlots(size)
				require.NotNil(t, s.TryReserveSlot(nil))
				freeIt := s.Retain()
				s.ReleaseSlot(nil)
				require.Equal(t, size-1, free(s), "the slot is kept")
				freeIt()
				require.Equal(t, size, free(s))
			})
			t.Run("freed before the release", func(t *testing.T) {
				t.Parallel()
				s := activities.NewSlots(size)
				require.NotNil(t, s.TryReserveSlot(nil))
				s.Retain()()
				require.Equal(t, size-1, free(s), "its activity still runs")
				s.ReleaseSlot(nil)
				require.Equal(t, size, free(s))
			})
		})
	}
}

func TestWithoutSlotsThereIsNothingToRetain(t *testing.T) {
	t.Parallel()
	var s *activities.Slots
	require.NotPanics(t, s.Retain())
}

func TestNoMoreRunThanThereAreSlotsWhateverIsRetained(t *testing.T) {
	t.Parallel()
	const size, many = 4, 400
	s := activities.NewSlots(size)
	var running, most atomic.Int64
	var all, left sync.WaitGroup
	for i := range many {
		all.Go(func() {
			_, err := s.ReserveSlot(context.Background(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			now := running.Add(1)
			for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
			}
			if i%3 > 0 {
				running.Add(-1)
				s.ReleaseSlot(nil)
				return
			}
			// This one goes on when its activity has ended: it counts until it returns.
			freeIt := s.Retain()
			returned := make(chan struct{})
			left.Go(func() {
				<-returned
				running.Add(-1)
				freeIt()
			})
			if i%2 == 0 {
				close(returned)
				s.ReleaseSlot(nil)
			} else {
				s.ReleaseSlot(nil)
				close(returned)
			}
		})
	}
	all.Wait()
	left.Wait()
	require.LessOrEqual(t, most.Load(), int64(size))
	require.Equal(t, size, free(s), "every slot is back")
}
