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
	// used counts calls of Work with a slot, waiting resources that wait for one, or for the rate. awaitsKind counts those
	// that wait for the rate of their kind, by kind: they take no room from other kinds.
	used, waiting int
	awaitsKind    map[string]int
	// queued counts resources that wait within a slot of a worker, by kind. Members of batches are not among them.
	queued map[string]int
	// queue has a channel for each call that waits for a slot, in their order: it is closed when the call has one.
	queue []chan struct{}
	// leased are the times of leases whose rows have not asked for a slot yet. A row that went to another client is forgotten
	// when one comes from there, or after a lease. The client to which the last row came has room.
	leased []time.Time
	// withheld is set while rows are not dispatched because the namespace is full.
	withheld bool
}

func newNamespaceLimit(freed func()) *namespaceLimit {
	n := &namespaceLimit{freed: freed, gates: map[string]chan struct{}{}, awaitsKind: map[string]int{}, queued: map[string]int{}}
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

// arrive forgets one leased resource, which asks for a slot now.
func (n *namespaceLimit) arrive() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLeased()
}

// decline forgets one leased resource, which needs no slot: another may be leased.
func (n *namespaceLimit) decline() {
	n.mu.Lock()
	n.forgetLeased()
	wake := n.clearWithheld()
	n.mu.Unlock()
	wake()
}

// forgetLeased forgets the oldest lease. The lock is held.
func (n *namespaceLimit) forgetLeased() {
	if len(n.leased) > 0 {
		n.leased = n.leased[1:]
	}
}

func (n *namespaceLimit) acquire(ctx context.Context) (release func(), err error) {
	n.mu.Lock()
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

// awaitRates waits for its turn among the calls of a kind, until the rate of the namespace lets one begin, and then the
// rate of the kind. hasWaited is false, and it has not waited, where neither matters to a limited namespace.
func (n *namespaceLimit) awaitRates(ctx context.Context, kind string, ofKind *activities.RateLimit) (begun func(), hasWaited bool, err error) {
	n.mu.Lock()
	if n.rate == nil && (n.size == 0 || ofKind == nil) {
		n.mu.Unlock()
		return func() {}, false, nil
	}
	isRated := n.rate != nil
	n.countAwaiting(kind, isRated, 1)
	gate := n.gates[kind]
	if gate == nil {
		gate = make(chan struct{}, 1)
		n.gates[kind] = gate
	}
	n.mu.Unlock()
	leave := func() {
		n.mu.Lock()
		n.countAwaiting(kind, isRated, -1)
		wake := n.clearWithheld()
		n.mu.Unlock()
		wake()
	}
	select {
	case gate <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, false, context.Cause(ctx)
	}
	begun = func() {
		<-gate
		leave()
	}
	for _, rate := range []*activities.RateLimit{n.rateLimit(), ofKind} {
		if err := rate.Wait(ctx); err != nil {
			begun()
			return nil, false, err
		}
	}
	return begun, true, nil
}

// countAwaiting counts calls that wait for the rate of the namespace or else for that of their kind. The lock is held.
func (n *namespaceLimit) countAwaiting(kind string, isRated bool, calls int) {
	if isRated {
		n.waiting += calls
	} else {
		n.awaitsKind[kind] += calls
	}
}

func (n *namespaceLimit) isFull() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rate != nil || (n.size > 0 && n.used+n.waiting >= n.size)
}

func (n *namespaceLimit) isWithholding() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.withheld && n.rate == nil
}

// leasableRows returns how many more rows of a kind may be leased; fewer where the kind is crowded, so that none has to wait
// within a slot of a worker.
func (n *namespaceLimit) leasableRows(kind string, isCrowded bool) (left int, isLimited, isLess bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.size == 0 && n.rate == nil {
		return 0, false, false
	}
	left = n.leasableLeft(kind)
	if isCrowded {
		most := left
		if n.size > 0 {
			most = n.size - n.used - n.waiting - len(n.leased)
		}
		if n.rate != nil {
			most = min(most, 1-n.queued[kind]-len(n.leased))
		}
		left, isLess = min(left, most), most < left
	}
	n.withheld = n.withheld || left <= 0
	return left, true, isLess
}

// enterQueue counts a resource of a kind that waits within a slot of a worker. Where the kind is crowded it is refused,
// unless it is the only one of the namespace.
func (n *namespaceLimit) enterQueue(kind string, isCrowded bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if isCrowded && n.queued[kind] > 0 {
		return false
	}
	n.queued[kind]++
	return true
}

// leaveQueue undoes enterQueue. Where the kind was crowded, the namespace may have room again.
func (n *namespaceLimit) leaveQueue(kind string, wasCrowded bool) {
	n.mu.Lock()
	n.queued[kind]--
	wake := func() {}
	if wasCrowded {
		wake = n.clearWithheld()
	}
	n.mu.Unlock()
	wake()
}

const (
	// Bounds of how many rows may wait for the rate of a namespace, which are those that begin within a second.
	fewRated  = 4
	manyRated = 256
)

// leasableLeft returns how many more rows of a kind may be leased. The lock is held.
func (n *namespaceLimit) leasableLeft(kind string) int {
	n.leased = dropBefore(n.leased, time.Now().Add(-activities.DispatchLease))
	left := math.MaxInt16
	if n.size > 0 {
		left = 2*n.size - n.used - n.waiting - len(n.leased) - n.awaitsKind[kind]
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
