package delta

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/activities"
)

// namespaceLimit is the limit of one namespace.
type namespaceLimit struct {
	freed func()
	// free is release, made once: each call of Work gets it.
	free func()

	mu sync.Mutex
	// size is how many calls of Work may have a slot; 0 for no bound.
	size int
	// rate bounds how many begin a second; nil for no bound.
	rate *activities.RateLimit
	// gates let one call of a kind at a time wait for the rate, and then for its slots.
	gates map[string]chan struct{}
	// used counts calls of Work with a slot, waiting resources that wait for one, or for the rate.
	used, waiting int
	// queue has a channel for each call that waits for a slot, in their order: it is closed when the call has one.
	queue []chan struct{}
	// leased are the times of leases whose rows have not asked for a slot. A row that went to another client is forgotten
	// when one comes from there, or after a lease. The client to which the last row came has room.
	leased []time.Time
	// withheld is set while rows are not dispatched because the namespace is full.
	withheld bool
}

func newNamespaceLimit(freed func()) *namespaceLimit {
	n := &namespaceLimit{freed: freed, gates: map[string]chan struct{}{}}
	n.free = n.release
	return n
}

// setBound changes the bounds. Calls keep their slots, even beyond a lower bound.
func (n *namespaceLimit) setBound(pool *pgxpool.Pool, name string, to namespaceBound) {
	n.mu.Lock()
	n.size = to.maxWorkers
	if n.rate.Rate() != to.rate {
		n.rate = activities.NewNamespaceRateLimit(pool, name, to.rate)
	}
	n.grantSlots()
	wake := n.clearWithheld()
	n.mu.Unlock()
	wake()
}

// grantSlots gives free slots to waiting calls. The lock is held.
func (n *namespaceLimit) grantSlots() {
	for len(n.queue) > 0 && (n.size == 0 || n.used < n.size) {
		n.used++
		n.waiting--
		close(n.queue[0])
		n.queue = n.queue[1:]
	}
}

// clearWithheld returns a function that wakes dispatchers which have left rows out because the namespace was full. The lock
// is held, but must not be for the returned function.
func (n *namespaceLimit) clearWithheld() (wake func()) {
	if !n.withheld {
		return func() {}
	}
	n.withheld = false
	return n.freed
}

// noteArrival notes that a leased resource has asked for a slot. The lock is held.
func (n *namespaceLimit) noteArrival() {
	if len(n.leased) > 0 {
		n.leased = n.leased[1:]
	}
}

func (n *namespaceLimit) acquire(ctx context.Context) (release func(), err error) {
	n.mu.Lock()
	if n.rate == nil {
		n.noteArrival() // otherwise awaitRate has noted it
	}
	if n.isFree() {
		n.used++
		n.mu.Unlock()
		return n.free, nil
	}
	mine := make(chan struct{})
	n.queue = append(n.queue, mine)
	n.waiting++
	n.grantSlots()
	n.mu.Unlock()
	select {
	case <-mine:
	case <-ctx.Done():
		n.mu.Lock()
		if at := slices.Index(n.queue, mine); at >= 0 {
			n.queue = slices.Delete(n.queue, at, at+1)
			n.waiting--
		} else { // it got a slot at the same moment
			n.used--
			n.grantSlots()
		}
		wake := n.clearWithheld()
		n.mu.Unlock()
		wake()
		return nil, context.Cause(ctx)
	}
	return n.free, nil
}

func (n *namespaceLimit) tryAcquire() (release func(), ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isFree() {
		return nil, false
	}
	if n.rate == nil {
		n.noteArrival()
	}
	n.used++
	return n.free, true
}

// isFree reports whether a call has a slot at once. The lock is held.
func (n *namespaceLimit) isFree() bool { return n.size == 0 || (n.used < n.size && len(n.queue) == 0) }

func (n *namespaceLimit) release() {
	n.mu.Lock()
	n.used--
	n.grantSlots()
	wake := n.clearWithheld()
	n.mu.Unlock()
	wake()
}

func (n *namespaceLimit) rateLimit() *activities.RateLimit {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rate
}

// awaitRate waits for its turn among the calls of a kind, and until the rate lets one begin.
func (n *namespaceLimit) awaitRate(ctx context.Context, kind string) (begun func(), err error) {
	n.mu.Lock()
	if n.rate == nil {
		n.mu.Unlock()
		return func() {}, nil
	}
	n.noteArrival()
	n.waiting++
	gate := n.gates[kind]
	if gate == nil {
		gate = make(chan struct{}, 1)
		n.gates[kind] = gate
	}
	n.mu.Unlock()
	leave := func() {
		n.mu.Lock()
		n.waiting--
		wake := n.clearWithheld()
		n.mu.Unlock()
		wake()
	}
	select {
	case gate <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
	if err := n.rateLimit().Wait(ctx); err != nil {
		<-gate
		leave()
		return nil, err
	}
	return func() {
		<-gate
		leave()
	}, nil
}

func (n *namespaceLimit) isFull() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rate != nil || (n.size > 0 && n.used+n.waiting >= n.size)
}

func (n *namespaceLimit) leasableRows() (left int, isLimited bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.size == 0 && n.rate == nil {
		return 0, false
	}
	left = n.leasableLeft()
	n.withheld = n.withheld || left <= 0
	return left, true
}

const (
	// Bounds of how many rows may wait for the rate of a namespace, which are those that begin within a second.
	fewRated  = 4
	manyRated = 256
)

// leasableLeft returns how many more rows may be leased. The lock is held.
func (n *namespaceLimit) leasableLeft() int {
	n.leased = dropBefore(n.leased, time.Now().Add(-activities.DispatchLease))
	left := math.MaxInt16
	if n.size > 0 {
		left = 2*n.size - n.used - n.waiting - len(n.leased)
	}
	if n.rate != nil {
		most := int(min(max(math.Ceil(n.rate.Rate()), fewRated), manyRated))
		left = min(left, most-n.waiting-len(n.leased))
	}
	return left
}

func (n *namespaceLimit) countLeased(rows int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.size == 0 && n.rate == nil {
		return
	}
	now := time.Now()
	for range rows {
		n.leased = append(n.leased, now)
	}
}

// uncountLeased takes a row out of the count.
func (n *namespaceLimit) uncountLeased() {
	n.mu.Lock()
	n.leased = n.leased[:max(len(n.leased)-1, 0)]
	wake := n.clearWithheld()
	n.mu.Unlock()
	wake()
}
