package activities

import (
	"context"
	"sync/atomic"
	"time"
)

// batchSlotPatience is how long a batch waits for a slot while none is released.
const batchSlotPatience = 5 * time.Second

// BatchSlots bound how many batches of a kind claim members and hand them to Work at once: more would get no more work
// done, and the rows that they had claimed would fill memory. A batch releases its slot once all members were handed
// over, so a long call of Work keeps none. It is no hard bound: while no slot is released, as when a namespace is full,
// other batches go on without one.
type BatchSlots struct {
	slots chan struct{}
	// released counts slots that were released.
	released atomic.Int64
}

// NewBatchSlots makes n slots.
func NewBatchSlots(n int) *BatchSlots { return &BatchSlots{slots: make(chan struct{}, n)} }

// takeSlot waits for a slot until ctx ends, and returns a function that releases it. On nil it does not wait.
func (s *BatchSlots) takeSlot(ctx context.Context) (giveBack func()) {
	if s == nil {
		return func() {}
	}
	patience := time.NewTicker(batchSlotPatience)
	defer patience.Stop()
	for {
		given := s.released.Load()
		select {
		case s.slots <- struct{}{}:
			return func() {
				s.released.Add(1)
				<-s.slots
			}
		case <-ctx.Done():
			return func() {}
		case <-patience.C:
			if s.released.Load() == given {
				return func() {}
			}
		}
	}
}
