package activities

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// reservation is the set of slots that were taken for a row in a namespace. A nil reservation does nothing.
type reservation struct {
	slots     slots
	namespace string
	used      bool
}

// useSlots hands the slots over to a call in their namespace.
func (r *reservation) useSlots(namespace string) (taken slots, ok bool) {
	if r == nil || r.used || r.namespace != namespace {
		return slots{}, false
	}
	r.used = true
	return r.slots, true
}

// release releases the slots if no call has taken them.
func (r *reservation) release() {
	if r != nil && !r.used {
		r.used = true
		r.slots.release()
	}
}

// slots are the slots of one call of Work: one of its kind and one of its namespace, where these are limited.
type slots struct {
	kind             *semaphore.Weighted
	releaseNamespace func()
}

func (s slots) release() {
	if s.kind != nil {
		s.kind.Release(1)
	}
	if s.releaseNamespace != nil {
		s.releaseNamespace()
	}
}

// tryAcquireSlots takes the slots of a call if they are free and no rate applies.
func (a *Activities) tryAcquireSlots(namespace string) (taken slots, ok bool) {
	if a.Rate != nil || (a.Limit != nil && a.Limit.IsRated(namespace)) {
		return slots{}, false
	}
	return a.takeFreeSlots(namespace)
}

// takeFreeSlots takes the slots of a call if they are free.
func (a *Activities) takeFreeSlots(namespace string) (taken slots, ok bool) {
	if a.Limit != nil {
		if taken.releaseNamespace, ok = a.Limit.TryAcquire(namespace); !ok {
			return slots{}, false
		}
	}
	if a.WorkSlots != nil && !a.WorkSlots.TryAcquire(1) {
		taken.release()
		return slots{}, false
	}
	taken.kind = a.WorkSlots
	return taken, true
}

// acquireSlots waits until a call has its slots and its rates allow it, or ctx ends. In a limited namespace it waits for
// the rates first, because other kinds could use the slot that it would keep. If no slot is free then, another call may
// begin in its place, and it waits for the rate of the kind once more.
func (a *Activities) acquireSlots(ctx context.Context, namespace string) (taken slots, ok bool) {
	if a.Limit != nil {
		begun, hasWaited, err := a.Limit.AwaitRates(ctx, a.Handler.Kind(), namespace, a.Rate)
		if err != nil {
			return slots{}, false
		}
		defer begun()
		if hasWaited {
			if taken, ok = a.takeFreeSlots(namespace); ok {
				return taken, true
			}
			a.Rate.giveBack()
		}
	}
	if taken, ok = a.awaitSlots(ctx, namespace); !ok {
		return taken, false
	}
	if err := a.Rate.Wait(ctx); err != nil {
		taken.release()
		return slots{}, false
	}
	return taken, true
}

// awaitSlots waits for the slots of a call until ctx ends. It keeps neither slot while it waits for the other, so that
// a full namespace occupies no slots of the kind, and the other way round.
func (a *Activities) awaitSlots(ctx context.Context, namespace string) (taken slots, ok bool) {
	if ctx.Err() != nil {
		return taken, false
	}
	for {
		if taken.releaseNamespace == nil && a.Limit != nil {
			free, err := a.Limit.Acquire(ctx, namespace)
			if err != nil {
				return slots{}, false
			}
			taken.releaseNamespace = free
		}
		if a.WorkSlots == nil || a.WorkSlots.TryAcquire(1) {
			taken.kind = a.WorkSlots
			return taken, true
		}
		taken.release()
		taken = slots{}
		if err := a.WorkSlots.Acquire(ctx, 1); err != nil {
			return slots{}, false
		}
		free, ok := func() {}, true
		if a.Limit != nil {
			free, ok = a.Limit.TryAcquire(namespace)
		}
		if ok {
			return slots{kind: a.WorkSlots, releaseNamespace: free}, true
		}
		a.WorkSlots.Release(1)
	}
}
