package delta

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/chariot-giving/delta/activities"
)

// namespaceLimits bound concurrent Work by namespace, across kinds.
type namespaceLimits struct {
	byName map[string]*namespaceLimit
	// freed is called when there is room again in a namespace whose rows were not dispatched.
	freed func()
}

type namespaceLimit struct {
	slots *semaphore.Weighted
	size  int

	mu sync.Mutex
	// used and waiting count calls of Work that have a slot, and resources that wait for one.
	used, waiting int
	// leased are the times at which rows were leased that have not come for a slot. One that comes to another client is forgotten after a
	// lease.
	leased []time.Time
	// withheld is set while rows are not dispatched for want of room.
	withheld bool
}

func newNamespaceLimits(namespaces map[string]NamespaceConfig, freed func()) *namespaceLimits {
	limits := &namespaceLimits{byName: map[string]*namespaceLimit{}, freed: freed}
	for name, n := range namespaces {
		limits.byName[name] = &namespaceLimit{slots: semaphore.NewWeighted(int64(n.MaxWorkers)), size: n.MaxWorkers}
	}
	return limits
}

// Acquire waits for a slot of a namespace; one that is not configured has no bound.
func (l *namespaceLimits) Acquire(ctx context.Context, namespace string) (release func(), err error) {
	limit, ok := l.byName[namespace]
	if !ok {
		return func() {}, nil
	}
	limit.comes(1)
	if err := limit.slots.Acquire(ctx, 1); err != nil {
		limit.comes(-1)
		return nil, err
	}
	return l.enter(limit, 1), nil
}

// TryAcquire takes a slot of a namespace if one is free.
func (l *namespaceLimits) TryAcquire(namespace string) (release func(), ok bool) {
	limit, ok := l.byName[namespace]
	if !ok {
		return func() {}, true
	}
	if !limit.slots.TryAcquire(1) {
		return nil, false
	}
	limit.comes(0)
	return l.enter(limit, 0), true
}

// comes counts a resource that begins to wait for a slot, or has given up, and is no longer one that was leased and has not come.
func (n *namespaceLimit) comes(waiting int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting += waiting
	if waiting >= 0 && len(n.leased) > 0 {
		n.leased = n.leased[1:]
	}
}

// enter counts a slot that was taken, by one that had waited or not.
func (l *namespaceLimits) enter(limit *namespaceLimit, waited int) (release func()) {
	limit.mu.Lock()
	defer limit.mu.Unlock()
	limit.waiting -= waited
	limit.used++
	return func() {
		limit.slots.Release(1)
		limit.mu.Lock()
		limit.used--
		wake := limit.withheld
		limit.withheld = false
		limit.mu.Unlock()
		if wake {
			l.freed()
		}
	}
}

// IsFull reports whether Acquire would wait.
func (l *namespaceLimits) IsFull(namespace string) bool {
	limit, ok := l.byName[namespace]
	if !ok {
		return false
	}
	limit.mu.Lock()
	defer limit.mu.Unlock()
	return limit.used+limit.waiting >= limit.size
}

// room is how many rows of each limited namespace may be leased: as many as can be worked, and as many again to wait for their slots, so
// that none is idle. Those without room are full; freed is called when that is over for one of them.
func (l *namespaceLimits) room() (limited []string, rooms []int32, full []string) {
	limited, rooms, full = []string{}, []int32{}, []string{}
	for name, limit := range l.byName {
		if room := limit.room(); room > 0 {
			limited, rooms = append(limited, name), append(rooms, int32(room)) //nolint:gosec // at most 20,000
		} else {
			full = append(full, name)
		}
	}
	return limited, rooms, full
}

func (n *namespaceLimit) room() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leased = since(n.leased, time.Now().Add(-activities.DispatchLease))
	room := 2*n.size - n.used - n.waiting - len(n.leased)
	n.withheld = n.withheld || room <= 0
	return room
}

// lease counts rows that were leased for workflows of their own, and reports whether there may be more that there was no room for.
func (l *namespaceLimits) lease(namespaces []string) (more bool) {
	slices.Sort(namespaces)
	for len(namespaces) > 0 {
		name, n := namespaces[0], 1
		for n < len(namespaces) && namespaces[n] == name {
			n++
		}
		namespaces = namespaces[n:]
		if limit, ok := l.byName[name]; ok {
			more = limit.lease(n) || more
		}
	}
	return more
}

func (n *namespaceLimit) lease(rows int) (isFull bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for range rows {
		n.leased = append(n.leased, now)
	}
	return 2*n.size-n.used-n.waiting-len(n.leased) <= 0
}
