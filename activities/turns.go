package activities

import (
	"context"
	"sync/atomic"
	"time"
)

// turnPatience is how long a batch waits for its turn while none is given back.
const turnPatience = 5 * time.Second

// Turns bound how many batches of a kind claim members and hand them to Work at once: more would not have more work done, and what
// they had claimed would fill memory. A turn is given back once all members were handed over, so a call of Work that takes long
// keeps none. It is no hard bound: where no turn changes hands, as when the place in a namespace is waited for, others go on.
type Turns struct {
	places chan struct{}
	// given counts turns that were given back.
	given atomic.Int64
}

// NewTurns makes so many.
func NewTurns(n int) *Turns { return &Turns{places: make(chan struct{}, n)} }

// takeSlot waits for a turn until ctx ends, and returns what gives it back. On nil it does not wait.
func (t *Turns) takeSlot(ctx context.Context) (giveBack func()) {
	if t == nil {
		return func() {}
	}
	patience := time.NewTicker(turnPatience)
	defer patience.Stop()
	for {
		given := t.given.Load()
		select {
		case t.places <- struct{}{}:
			return func() {
				t.given.Add(1)
				<-t.places
			}
		case <-ctx.Done():
			return func() {}
		case <-patience.C:
			if t.given.Load() == given {
				return func() {}
			}
		}
	}
}
