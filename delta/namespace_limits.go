package delta

import (
	"context"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// namespaceLimits bounds Work by namespace, across kinds. The bounds may change while Work runs.
type namespaceLimits struct {
	pool *pgxpool.Pool
	// freed is called when a namespace whose rows were not dispatched has free slots again.
	freed func()

	// queueMu is locked before mu. queued counts resources of limited namespaces that wait within slots of a worker, by kind.
	// heldBack has the kinds of which rows are not dispatched because of those.
	queueMu  sync.Mutex
	queued   map[string]int
	heldBack map[string]bool

	mu sync.RWMutex
	// byName has the namespaces that are limited, or were.
	byName map[string]*namespaceLimit
}

// namespaceBound is the bounds of a namespace; its zero value is no limit.
type namespaceBound struct {
	maxWorkers int
	rate       float64
}

func newNamespaceLimits(pool *pgxpool.Pool, freed func()) *namespaceLimits {
	return &namespaceLimits{pool: pool, freed: freed, byName: map[string]*namespaceLimit{}, queued: map[string]int{}, heldBack: map[string]bool{}}
}

// setBounds sets the bounds of all namespaces. A namespace that is not among them has none.
func (l *namespaceLimits) setBounds(bounds map[string]namespaceBound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, bound := range bounds {
		if l.byName[name] == nil && bound != (namespaceBound{}) {
			l.byName[name] = newNamespaceLimit(l.freed)
		}
	}
	for name, limit := range l.byName {
		limit.setBound(l.pool, name, bounds[name])
	}
}

// limitOf returns the limit of a namespace; nil if it never had one.
func (l *namespaceLimits) limitOf(namespace string) *namespaceLimit {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byName[namespace]
}

// Acquire waits for a slot of a namespace, unless the namespace is not limited.
func (l *namespaceLimits) Acquire(ctx context.Context, namespace string) (release func(), err error) {
	limit := l.limitOf(namespace)
	if limit == nil {
		return func() {}, nil
	}
	return limit.acquire(ctx)
}

// TryAcquire takes a slot of a namespace if one is free.
func (l *namespaceLimits) TryAcquire(namespace string) (release func(), ok bool) {
	limit := l.limitOf(namespace)
	if limit == nil {
		return func() {}, true
	}
	return limit.tryAcquire()
}

// AwaitRates waits until the rates of a namespace and of a kind let a call begin. See [activities.NamespaceLimit].
func (l *namespaceLimits) AwaitRates(ctx context.Context, kind, namespace string, ofKind *activities.RateLimit) (begun func(), hasWaited bool, err error) {
	limit := l.limitOf(namespace)
	if limit == nil {
		return func() {}, false, nil
	}
	return limit.awaitRates(ctx, kind, ofKind)
}

const (
	// maxQueued is how many resources of a kind may wait within slots of a worker because of limited namespaces, and another
	// one of each namespace, but no more than allQueued. The other slots are for those that need not wait.
	maxQueued = waitingSlots / 2
	allQueued = waitingSlots * 7 / 8
)

// Queue asks for a place to wait in. See [activities.NamespaceLimit].
func (l *namespaceLimits) Queue(kind, namespace string) (leave func(), ok bool) {
	limit := l.limitOf(namespace)
	if limit == nil {
		return func() {}, true
	}
	l.queueMu.Lock()
	defer l.queueMu.Unlock()
	if queued := l.queued[kind]; !limit.enterQueue(kind, queued >= maxQueued, queued >= allQueued) {
		return nil, false
	}
	l.queued[kind]++
	return func() { l.leaveQueue(kind, limit) }, true
}

// leaveQueue undoes Queue, and wakes dispatchers that have held rows back.
func (l *namespaceLimits) leaveQueue(kind string, limit *namespaceLimit) {
	l.queueMu.Lock()
	l.queued[kind]--
	limit.leaveQueue(kind)
	wakes := l.heldBack[kind]
	delete(l.heldBack, kind)
	l.queueMu.Unlock()
	if wakes {
		l.freed()
	}
}

// KeyedRoom returns the room for a kind with limit keys. See [activities.NamespaceLimit].
func (l *namespaceLimits) KeyedRoom(kind string) (limited []string, rooms []int32, full []string) {
	room := l.room(kind, true)
	return room.limited, room.rows, room.full
}

// Arrive notes that a leased resource asks for a slot.
func (l *namespaceLimits) Arrive(kind, namespace string) {
	if limit := l.limitOf(namespace); limit != nil {
		limit.arrive(kind)
	}
}

// Decline notes that a leased resource needs no slot.
func (l *namespaceLimits) Decline(kind, namespace string) {
	if limit := l.limitOf(namespace); limit != nil {
		limit.decline(kind)
	}
}

// IsRated reports whether a namespace has a rate.
func (l *namespaceLimits) IsRated(namespace string) bool {
	limit := l.limitOf(namespace)
	return limit != nil && limit.rateLimit() != nil
}

// IsFull reports whether a call would wait.
func (l *namespaceLimits) IsFull(namespace string) bool {
	limit := l.limitOf(namespace)
	return limit != nil && limit.isFull()
}

// isWithholding reports whether rows of a namespace are not dispatched because this client has no room for them, although
// another client may have some: a rate is that of all clients.
func (l *namespaceLimits) isWithholding() bool {
	l.queueMu.Lock()
	isHeldBack := len(l.heldBack) > 0
	l.queueMu.Unlock()
	if isHeldBack {
		return true
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, limit := range l.byName {
		if limit.isWithholding() {
			return true
		}
	}
	return false
}

// leaseRoom is how many rows of namespaces a lease may have.
type leaseRoom struct {
	// limited are the limited namespaces that have room, and rows how many rows each may have. full are those without any.
	limited []string
	rows    []int32
	full    []string
}

// rowsOf returns how many rows of a namespace a lease of size rows may have.
func (r leaseRoom) rowsOf(namespace string, size int32) int32 {
	if slices.Contains(r.full, namespace) {
		return 0
	}
	if at := slices.Index(r.limited, namespace); at >= 0 {
		return min(r.rows[at], size)
	}
	return size
}

// room returns the room for a lease of a kind: each limited namespace may have as many rows as can be worked, and as many again that
// wait for slots, so that no slot is idle. But no more of a kind wait, of all namespaces together, than have a place to wait in.
// freed is called when there is room again. If rows of the kind have limit keys none waits, because each would keep a slot of
// its key meanwhile; of a namespace with a rate, one does.
func (l *namespaceLimits) room(kind string, keyed bool) leaseRoom {
	l.queueMu.Lock()
	defer l.queueMu.Unlock()
	places := maxQueued - l.queued[kind]
	if keyed {
		places = 0
	}
	var all []room
	l.mu.RLock()
	for name, limit := range l.byName {
		if r, isLimited := limit.readRoom(kind); isLimited {
			r.name = name
			all = append(all, r)
			places -= r.ahead
		}
	}
	l.mu.RUnlock()
	total := leaseRoom{limited: []string{}, rows: []int32{}, full: []string{}}
	for _, r := range all { // the order of a map is random, so none always comes first
		waiting := max(min(r.rows-r.free, places), 0)
		places -= waiting
		if waiting == 0 && r.isFirst && l.queued[kind] < allQueued {
			waiting = 1
		}
		rows := min(r.rows, r.free+waiting)
		if rows < r.rows {
			l.heldBack[kind] = true
		}
		if rows > 0 {
			total.limited, total.rows = append(total.limited, r.name), append(total.rows, int32(rows)) //nolint:gosec // at most 20,000
		} else {
			r.noteWithheld()
			total.full = append(total.full, r.name)
		}
	}
	return total
}

// without returns the room without that of some namespaces.
func (r leaseRoom) without(namespaces []string) leaseRoom {
	for _, name := range namespaces {
		if at := slices.Index(r.limited, name); at >= 0 {
			r.limited, r.rows = slices.Delete(r.limited, at, at+1), slices.Delete(r.rows, at, at+1)
			r.full = append(r.full, name)
		}
	}
	return r
}

// countLeased counts rows that were leased for single workflows and want a slot. It returns the namespaces that have used up
// their room: the lease may have left out rows of them, and others behind those.
func (l *namespaceLimits) countLeased(kind string, rows []db.LeaseDueRow, room leaseRoom) (usedUp []string) {
	leased, wanting := map[string]int{}, map[string]int{}
	for _, row := range rows {
		leased[row.Namespace]++
		if row.WantsSlot {
			wanting[row.Namespace]++
		}
	}
	for name, n := range leased {
		if limit := l.limitOf(name); limit != nil {
			limit.countLeased(kind, wanting[name])
		}
		if at := slices.Index(room.limited, name); at >= 0 && n >= int(room.rows[at]) {
			usedUp = append(usedUp, name)
		}
	}
	return usedUp
}

// uncountLeased takes rows out of the counts whose workflows could not be woken, because they are leased, and counted,
// again.
func (l *namespaceLimits) uncountLeased(kind string, rows []db.LeaseDueRow) {
	for _, row := range rows {
		if limit := l.limitOf(row.Namespace); limit != nil && row.WantsSlot {
			limit.uncountLeased(kind)
		}
	}
}
