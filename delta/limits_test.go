package delta

import (
	"context"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// Rows that cannot be started, or a Temporal that refuses all starts, take no room from other rows of the namespace.
func TestRowsThatCouldNotBeWokenTakeNoRoomInTheirNamespace(t *testing.T) {
	t.Parallel()
	woken := 0
	limits := newNamespaceLimits(nil, func() { woken++ })
	limits.setBounds(map[string]namespaceBound{"narrow": {maxWorkers: 2}})
	room := func() int {
		room := limits.room("kind")
		if len(room.rows) == 0 {
			require.Equal(t, []string{"narrow"}, room.full)
			return 0
		}
		require.Equal(t, []string{"narrow"}, room.limited)
		return int(room.rows[0])
	}
	require.Equal(t, 4, room(), "as many as there are slots, and the same number waiting")
	require.False(t, limits.countLeased(rowsIn("narrow", "wide", "narrow"), limits.room("kind")))
	require.Equal(t, 2, room())
	require.True(t, limits.countLeased(rowsIn("narrow", "narrow"), limits.room("kind")))
	require.Zero(t, room())
	require.Zero(t, woken)

	limits.uncountLeased(rowsIn("narrow", "wide"))
	require.Equal(t, 1, woken, "dispatchers read skipped rows again")
	require.Equal(t, 1, room())
	for range 100 { // retries
		limits.countLeased(rowsIn("narrow"), leaseRoom{})
		limits.uncountLeased(rowsIn("narrow"))
	}
	require.Equal(t, 1, room())
	limits.uncountLeased(rowsIn("narrow", "narrow", "narrow", "narrow"))
	require.Equal(t, 4, room())
}

// A slot that is freed, or not waited for any longer, makes room for another row at once. If it took until the call that got the slot has run, a dispatcher
// would look too early, and the namespace would have no row ready when that call ends.
func TestAFreedSlotMakesRoomAtOnce(t *testing.T) {
	t.Parallel()
	var rooms []int32
	var limits *namespaceLimits
	limits = newNamespaceLimits(nil, func() {
		rooms = append(rooms, limits.room("kind").rows...)
	})
	limits.setBounds(map[string]namespaceBound{"narrow": {maxWorkers: 1}})
	limit := limits.limitOf("narrow")
	waitForSlot := func(ctx context.Context) (ended chan func()) {
		ended = make(chan func())
		go func() {
			release, err := limits.Acquire(ctx, "narrow")
			if err != nil {
				release = nil
			}
			ended <- release
		}()
		for limit.countWaiting() == 0 {
			runtime.Gosched()
		}
		require.Equal(t, []string{"narrow"}, limits.room("kind").full)
		rooms = nil
		return ended
	}
	for range 1000 {
		release, err := limits.Acquire(t.Context(), "narrow")
		require.NoError(t, err)
		ctx, giveUp := context.WithCancel(t.Context())
		impatient := waitForSlot(ctx)
		giveUp()
		require.Nil(t, <-impatient)
		require.Equal(t, []int32{1}, rooms)

		patient := waitForSlot(t.Context())
		release()
		require.Equal(t, []int32{1}, rooms)
		(<-patient)()
	}
}

// A slot that is freed while rows are leased wakes nobody, because the lease had room for some. The dispatcher must look again by itself.
func TestALeaseThatUsedUpItsRoomIsRepeated(t *testing.T) {
	t.Parallel()
	limits := newNamespaceLimits(nil, func() { t.Error("nothing was withheld") })
	limits.setBounds(map[string]namespaceBound{"narrow": {maxWorkers: 1}})
	release, err := limits.Acquire(t.Context(), "narrow")
	require.NoError(t, err)
	room := limits.room("kind")
	require.Equal(t, []int32{1}, room.rows)
	release()
	require.True(t, limits.countLeased(rowsIn("narrow"), room))
	require.Equal(t, []int32{1}, limits.room("kind").rows)
	require.False(t, limits.countLeased(rowsIn("wide"), limits.room("kind")), "it has no more due rows")
}

// Temporal gives a row to any client. However many go to another one, some client may lease more.
func TestRowsThatOtherClientsWorkTakeNoRoom(t *testing.T) {
	t.Parallel()
	var clients []*namespaceLimits
	for range 3 {
		limits := newNamespaceLimits(nil, func() {})
		limits.setBounds(map[string]namespaceBound{"narrow": {maxWorkers: 1}})
		clients = append(clients, limits)
	}
	for i := range 1000 {
		leased := 0
		for _, leasing := range clients {
			room := leasing.room("kind")
			for _, rows := range room.rows {
				leased += int(rows)
				leasing.countLeased(rowsIn(slices.Repeat([]string{"narrow"}, int(rows))...), room)
			}
		}
		require.NotZero(t, leased, "after %d rounds", i)
		for range leased {
			working := clients[mathrand.N(len(clients))]
			working.Arrive("narrow")
			release, err := working.Acquire(t.Context(), "narrow")
			require.NoError(t, err)
			release()
		}
	}
}

// A leased row that needs no slot takes no room: neither one that is known to need none, as a deleted one, nor one that turns out not to.
func TestRowsThatNeedNoSlotTakeNoRoom(t *testing.T) {
	t.Parallel()
	woken := 0
	limits := newNamespaceLimits(nil, func() { woken++ })
	limits.setBounds(map[string]namespaceBound{"narrow": {maxWorkers: 1}})
	room := limits.room("kind")
	require.Equal(t, []int32{2}, room.rows)
	require.True(t, limits.countLeased([]db.LeaseDueRow{{Namespace: "narrow"}, {Namespace: "narrow"}, {Namespace: "narrow"}}, room), "there may be more behind them")
	require.Equal(t, room, limits.room("kind"))

	limits.countLeased(rowsIn("narrow", "narrow"), room)
	require.Equal(t, []string{"narrow"}, limits.room("kind").full)
	limits.Decline("narrow")
	require.Equal(t, 1, woken)
	require.Equal(t, []int32{1}, limits.room("kind").rows)
}

// Calls that wait for the rate of their kind take no room from another kind, and only one of them may have a slot.
func TestAKindThatWaitsForItsRateLeavesRoomToOthers(t *testing.T) {
	t.Parallel()
	limits := newNamespaceLimits(nil, func() {})
	limits.setBounds(map[string]namespaceBound{"narrow": {maxWorkers: 2}})
	slow := rateThatWaits(t)
	for range 4 {
		go func() {
			if begun, _, err := limits.AwaitRates(t.Context(), "slow", "narrow", slow); err == nil {
				begun()
			}
		}()
	}
	for limit := limits.limitOf("narrow"); limit.countAwaitingKind("slow") < 4; {
		runtime.Gosched()
	}
	require.Equal(t, []string{"narrow"}, limits.room("slow").full)
	require.Equal(t, []int32{4}, limits.room("quick").rows)
}

// rateThatWaits returns a rate that waits for an answer of Postgres.
func rateThatWaits(t *testing.T) *activities.RateLimit {
	t.Helper()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	pool, err := pgxpool.New(t.Context(), "postgres://"+silent.Addr().String()+"/?sslmode=disable")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	return activities.NewRateLimit(pool, "slow", 1)
}

// rowsIn returns leased rows of namespaces, which want slots.
func rowsIn(namespaces ...string) (rows []db.LeaseDueRow) {
	for _, namespace := range namespaces {
		rows = append(rows, db.LeaseDueRow{Namespace: namespace, WantsSlot: true})
	}
	return rows
}

func (n *namespaceLimit) countAwaitingKind(kind string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.awaitsKind[kind]
}

func (n *namespaceLimit) countWaiting() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.waiting
}

// Resources that wait for full namespaces leave slots of a worker to others of their kind. Each namespace may have one that waits.
func TestFewResourcesOfAKindWaitWithinSlotsOfAWorker(t *testing.T) {
	t.Parallel()
	woken := 0
	limits := newNamespaceLimits(nil, func() { woken++ })
	limits.setBounds(map[string]namespaceBound{"wide": {maxWorkers: 100}, "narrow": {maxWorkers: 2}, "rated": {maxWorkers: 9, rate: 4}})
	roomOf := func(kind, namespace string) int32 { return limits.room(kind).rowsOf(namespace, 1000) }
	queue := func(kind, namespace string) func() {
		leave, ok := limits.Queue(kind, namespace)
		require.True(t, ok)
		return leave
	}
	for range maxQueued {
		queue("kind", "wide") // it has room, so these do not count
		queue("kind", "unlimited")
	}
	require.EqualValues(t, 200, roomOf("kind", "wide"))
	var free func()
	for range 100 {
		var ok bool
		free, ok = limits.TryAcquire("wide")
		require.True(t, ok)
	}
	require.EqualValues(t, 100, roomOf("kind", "wide"), "as many may wait")
	var leave []func()
	for range maxQueued {
		leave = append(leave, queue("kind", "wide"))
	}
	require.Zero(t, roomOf("kind", "wide"), "that would wait too")
	require.EqualValues(t, 2, roomOf("kind", "narrow"), "those have slots")
	require.EqualValues(t, 1, roomOf("kind", "rated"))
	require.EqualValues(t, 100, roomOf("other", "wide"))
	_, ok := limits.Queue("kind", "wide")
	require.False(t, ok)
	queue("other", "wide")()

	leaveRated := queue("kind", "rated")
	require.Zero(t, roomOf("kind", "rated"))
	_, ok = limits.Queue("kind", "rated")
	require.False(t, ok)
	require.Zero(t, woken)
	leaveRated()
	require.Equal(t, 1, woken)
	require.EqualValues(t, 1, roomOf("kind", "rated"))

	require.Zero(t, roomOf("kind", "wide"))
	leave[0]()
	require.Equal(t, 3, woken, "of the namespace, and of the others that the kind held back")
	require.EqualValues(t, 100, roomOf("kind", "wide"))
	leave[1]()
	require.Equal(t, 3, woken)
	free()
}
