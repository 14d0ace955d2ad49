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
	// queued counts resources that wait within a slot of a worker, whatever for, by kind. Members of batches are not among them.
	queued map[string]int
	// queue has a channel for each call that waits for a slot, in their order: it is closed when the call has one.
	queue []chan struct{}
	// leased are the times of leases whose rows have not asked for a slot yet, by kind. A row that went to another client is
	// forgotten when one comes from there, or after a lease. The client to which the last row came has room.
	leased map[string][]time.Time
	// withheld is set while rows are not dispatched because the namespace is full. frees counts how often it may have had room
	// again.
	withheld bool
	frees    int
}

func newNamespaceLimit(freed func()) *namespaceLimit {
	n := &namespaceLimit{freed: freed, gates: map[string]chan struct{}{}, awaitsKind: map[string]int{}, queued: map[string]int{}, leased: map[string][]time.Time{}}
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
	n.frees++
	if !n.withheld {
		return func() {}
	}
	n.withheld = false
	return n.freed
}

// arrive forgets one leased resource, which asks for a slot now.
func (n *namespaceLimit) arrive(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLeased(kind)
}

// decline forgets one leased resource, which needs no slot: another may be leased.
func (n *namespaceLimit) decline(kind string) {
	n.mu.Lock()
	n.forgetLeased(kind)
	wake := n.clearWithheld()
	n.mu.Unlock()
	wake()
}

// forgetLeased forgets the oldest lease of a kind. The lock is held.
func (n *namespaceLimit) forgetLeased(kind string) {
	if leased := n.leased[kind]; len(leased) > 0 {
		n.leased[kind] = leased[1:]
	}
}

// countLeases counts leases of all kinds. The lock is held.
func (n *namespaceLimit) countLeases() (all int) {
	since := time.Now().Add(-activities.DispatchLease)
	for kind, leased := range n.leased {
		if leased = dropBefore(leased, since); len(leased) == 0 {
			delete(n.leased, kind)
		} else {
			n.leased[kind] = leased
			all += len(leased)
		}
	}
	return all
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

const (
	// Bounds of how many rows may wait for the rate of a namespace, which are those that begin within a second.
	fewRated  = 4
	manyRated = 256
)

// room is how many more rows of a kind may be leased in a namespace.
type room struct {
	limit *namespaceLimit
	name  string
	// rows is how many may be leased, of which free need not wait. ahead counts those that are leased and will wait.
	rows, free, ahead int
	// isFirst is set where none of the kind waits, or will, in a namespace with a rate: there one always has to.
	isFirst bool
	// frees is that of the limit at that time.
	frees int
}

// readRoom returns the room for a kind; isLimited is false where the namespace is not limited.
func (n *namespaceLimit) readRoom(kind string) (r room, isLimited bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.size == 0 && n.rate == nil {
		return r, false
	}
	leased := n.countLeases()
	ofKind := len(n.leased[kind])
	r = room{limit: n, rows: math.MaxInt16, ahead: ofKind, frees: n.frees}
	if n.size > 0 {
		r.rows = 2*n.size - n.used - n.waiting - leased - n.awaitsKind[kind]
	}
	if n.rate != nil {
		most := int(min(max(math.Ceil(n.rate.Rate()), fewRated), manyRated))
		r.rows = min(r.rows, most-n.waiting-leased)
		r.isFirst = n.queued[kind]+ofKind == 0
	} else {
		free := n.size - n.used - n.countWaiters()
		r.free, r.ahead = max(free-leased, 0), min(ofKind, max(leased-free, 0))
	}
	return r, true
}

// countWaiters counts resources that wait for slots of the namespace, or will when they have one of their kind. The lock is
// held.
func (n *namespaceLimit) countWaiters() int {
	queued := 0
	for _, ofKind := range n.queued {
		queued += ofKind
	}
	return max(n.waiting, queued)
}

// noteWithheld notes that rows are not dispatched because there was no room. If there may be some again, dispatchers are woken.
func (r room) noteWithheld() {
	n := r.limit
	n.mu.Lock()
	n.withheld = true
	wake := func() {}
	if n.frees != r.frees {
		wake = n.clearWithheld()
	}
	n.mu.Unlock()
	wake()
}

// enterQueue counts a resource of a kind that waits within a slot of a worker. If the kind is crowded, it is refused unless the
// namespace has a slot for it, or it is the first of the namespace and isFull is false.
func (n *namespaceLimit) enterQueue(kind string, isCrowded, isFull bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	hasSlot := n.rate == nil && (n.size == 0 || n.used+n.countWaiters() < n.size)
	if isCrowded && !hasSlot && (isFull || n.queued[kind] > 0) {
		n.withheld = true
		return false
	}
	n.queued[kind]++
	return true
}

func (n *namespaceLimit) leaveQueue(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queued[kind]--
}

func (n *namespaceLimit) countLeased(kind string, rows int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.size == 0 && n.rate == nil {
		return
	}
	now := time.Now()
	for range rows {
		n.leased[kind] = append(n.leased[kind], now)
	}
}

// uncountLeased takes a row out of the count.
func (n *namespaceLimit) uncountLeased(kind string) {
	n.mu.Lock()
	n.leased[kind] = n.leased[kind][:max(len(n.leased[kind])-1, 0)]
	wake := n.clearWithheld()
	n.mu.Unlock()
	wake()
}
