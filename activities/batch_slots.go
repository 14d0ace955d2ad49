package activities

import (
	"context"
	"sync/atomic"
	"time"
)

// turnPatience is how long a batch waits for its turn while none is given back.
const batchSlotPatience = 5 * time.Second

// Turns bound how many batches of a kind claim members and hand them to Work at once: more would not have more work done, and what
// they had claimed would fill memory. A turn is given back once all members were handed over, so a call of Work that takes long
// keeps none. It is no hard bound: where no turn changes hands, as when the place in a namespace is waited for, others go on.
type BatchSlots struct {
	slots chan struct{}
	// given counts turns that were given back.
	released atomic.Int64
}

// NewBatchSlots makes so many.
func NewBatchSlots(n int) *BatchSlots { return &BatchSlots{slots: make(chan struct{}, n)} }

// takeSlot waits for a turn until ctx ends, and returns what gives it back. On nil it does not wait.
func (t *BatchSlots) takeSlot(ctx context.Context) (giveBack func()) {
	if t == nil {
		return func() {}
	}
	patience := time.NewTicker(batchSlotPatience)
	defer patience.Stop()
	for {
		given := t.released.Load()
		select {
		case t.slots <- struct{}{}:
			return func() {
				t.released.Add(1)
				<-t.slots
			}
		case <-ctx.Done():
			return func() {}
		case <-patience.C:
			if t.released.Load() == given {
				return func() {}
			}
		}
	}
}
