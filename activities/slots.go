package activities

import (
	"context"
	"sync"

	"go.temporal.io/sdk/worker"
	"golang.org/x/sync/semaphore"
)

// Slots is a [worker.SlotSupplier] of a fixed size that can keep a slot when its activity has ended: a call of Work
// that ignores its context still counts against the kind's parallelism.
type Slots struct {
	size int
	sem  *semaphore.Weighted

	mu sync.Mutex
	// owed counts calls that go on although their activity is about to end; kept counts slots that stayed taken for
	// such calls. Slots are alike, so it does not matter which one is kept for which call.
	owed, kept int
}

var _ worker.SlotSupplier = (*Slots)(nil)

// NewSlots makes a supplier of size slots.
func NewSlots(size int) *Slots {
	return &Slots{size: size, sem: semaphore.NewWeighted(int64(size))}
}

// ReserveSlot waits for a slot.
func (s *Slots) ReserveSlot(ctx context.Context, _ worker.SlotReservationInfo) (*worker.SlotPermit, error) {
	if err := s.sem.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return &worker.SlotPermit{}, nil
}

// TryReserveSlot takes a slot if one is free.
func (s *Slots) TryReserveSlot(worker.SlotReservationInfo) *worker.SlotPermit {
	if !s.sem.TryAcquire(1) {
		return nil
	}
	return &worker.SlotPermit{}
}

// borrow takes up to most slots that are free, for calls of an activity that has one already, until the function is called.
func (s *Slots) borrow(most int) (n int, free func()) {
	for n < most && s.sem.TryAcquire(1) {
		n++
	}
	return n, func() {
		for range n {
			s.ReleaseSlot(nil)
		}
	}
}

// MarkSlotUsed does nothing.
func (s *Slots) MarkSlotUsed(worker.SlotMarkUsedInfo) {}

// ReleaseSlot frees a slot, or keeps it for a call that goes on.
func (s *Slots) ReleaseSlot(worker.SlotReleaseInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owed > 0 {
		s.owed--
		s.kept++
		return
	}
	s.sem.Release(1)
}

// MaxSlots is the size.
func (s *Slots) MaxSlots() int { return s.size }

// Retain keeps the next slot that is released taken until the function is called. On nil it does nothing.
func (s *Slots) Retain() (free func()) {
	if s == nil {
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.kept > 0 {
			s.kept--
			s.sem.Release(1)
			return
		}
		s.owed--
	}
}
