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

	// queueMu is locked before mu. queued counts resources that wait within slots of a worker for full namespaces, by kind.
	// heldBack has the crowded kinds of which rows are not dispatched for that reason.
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

// maxQueued is how many resources of a kind may wait within slots of a worker for full namespaces, and one more of each
// namespace. The other slots are for those that need not wait.
const maxQueued = waitingSlots / 2

// Queue asks for a place to wait in for a full namespace. See [activities.NamespaceLimit].
func (l *namespaceLimits) Queue(kind, namespace string) (leave func(), ok bool) {
	limit := l.limitOf(namespace)
	if limit == nil || !limit.isFull() {
		return func() {}, true
	}
	l.queueMu.Lock()
	defer l.queueMu.Unlock()
	if !limit.enterQueue(kind, l.queued[kind] >= maxQueued) {
		return nil, false
	}
	l.queued[kind]++
	return func() { l.leaveQueue(kind, limit) }, true
}

// leaveQueue undoes Queue, and wakes dispatchers that have left rows of a crowded kind out.
func (l *namespaceLimits) leaveQueue(kind string, limit *namespaceLimit) {
	l.queueMu.Lock()
	wasCrowded := l.queued[kind] >= maxQueued
	l.queued[kind]--
	wakes := l.heldBack[kind] && l.queued[kind] < maxQueued
	if wakes {
		delete(l.heldBack, kind)
	}
	l.queueMu.Unlock()
	limit.leaveQueue(kind, wasCrowded)
	if wakes {
		l.freed()
	}
}

// Arrive notes that a leased resource asks for a slot.
func (l *namespaceLimits) Arrive(namespace string) {
	if limit := l.limitOf(namespace); limit != nil {
		limit.arrive()
	}
}

// Decline notes that a leased resource needs no slot.
func (l *namespaceLimits) Decline(namespace string) {
	if limit := l.limitOf(namespace); limit != nil {
		limit.decline()
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
// wait for slots, so that no slot is idle. freed is called when a full one has room again.
func (l *namespaceLimits) room(kind string) leaseRoom {
	room := leaseRoom{limited: []string{}, rows: []int32{}, full: []string{}}
	l.queueMu.Lock()
	defer l.queueMu.Unlock()
	isCrowded := l.queued[kind] >= maxQueued
	l.mu.RLock()
	defer l.mu.RUnlock()
	for name, limit := range l.byName {
		rows, isLimited, isLess := limit.leasableRows(kind, isCrowded)
		if isLess {
			l.heldBack[kind] = true
		}
		switch {
		case !isLimited:
		case rows > 0:
			room.limited, room.rows = append(room.limited, name), append(room.rows, int32(rows)) //nolint:gosec // at most 20,000
		default:
			room.full = append(room.full, name)
		}
	}
	return room
}

// countLeased counts rows that were leased for single workflows and want a slot. It reports whether a namespace has used up
// its room: then the lease may have left out rows of it, and others behind them.
func (l *namespaceLimits) countLeased(rows []db.LeaseDueRow, room leaseRoom) (usedUp bool) {
	leased, wanting := map[string]int{}, map[string]int{}
	for _, row := range rows {
		leased[row.Namespace]++
		if row.WantsSlot {
			wanting[row.Namespace]++
		}
	}
	for name, n := range leased {
		if limit := l.limitOf(name); limit != nil {
			limit.countLeased(wanting[name])
		}
		if at := slices.Index(room.limited, name); at >= 0 && n >= int(room.rows[at]) {
			usedUp = true
		}
	}
	return usedUp
}

// uncountLeased takes rows out of the counts whose workflows could not be woken, because they are leased, and counted,
// again.
func (l *namespaceLimits) uncountLeased(rows []db.LeaseDueRow) {
	for _, row := range rows {
		if limit := l.limitOf(row.Namespace); limit != nil && row.WantsSlot {
			limit.uncountLeased()
		}
	}
}
