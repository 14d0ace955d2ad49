package delta

import (
	"context"
	"fmt"
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
		room := limits.room("kind", false)
		if len(room.rows) == 0 {
			require.Equal(t, []string{"narrow"}, room.full)
			return 0
		}
		require.Equal(t, []string{"narrow"}, room.limited)
		return int(room.rows[0])
	}
	require.Equal(t, 4, room(), "as many as there are slots, and the same number waiting")
	require.Empty(t, limits.countLeased("kind", rowsIn("narrow", "wide", "narrow"), limits.room("kind", false)))
	require.Equal(t, 2, room())
	require.NotEmpty(t, limits.countLeased("kind", rowsIn("narrow", "narrow"), limits.room("kind", false)))
	require.Zero(t, room())
	require.Zero(t, woken)

	limits.uncountLeased("kind", rowsIn("narrow", "wide"))
	require.Equal(t, 1, woken, "dispatchers read skipped rows again")
	require.Equal(t, 1, room())
	for range 100 { // retries
		limits.countLeased("kind", rowsIn("narrow"), leaseRoom{})
		limits.uncountLeased("kind", rowsIn("narrow"))
	}
	require.Equal(t, 1, room())
	limits.uncountLeased("kind", rowsIn("narrow", "narrow", "narrow", "narrow"))
	require.Equal(t, 4, room())
}

// A slot that is freed, or not waited for any longer, makes room for another row at once. If it took until the call that got the slot has run, a dispatcher
// would look too early, and the namespace would have no row ready when that call ends.
func TestAFreedSlotMakesRoomAtOnce(t *testing.T) {
	t.Parallel()
	var rooms []int32
	var limits *namespaceLimits
	limits = newNamespaceLimits(nil, func() {
		rooms = append(rooms, limits.room("kind", false).rows...)
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
		require.Equal(t, []string{"narrow"}, limits.room("kind", false).full)
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
	room := limits.room("kind", false)
	require.Equal(t, []int32{1}, room.rows)
	release()
	require.NotEmpty(t, limits.countLeased("kind", rowsIn("narrow"), room))
	require.Equal(t, []int32{1}, limits.room("kind", false).rows)
	require.Empty(t, limits.countLeased("kind", rowsIn("wide"), limits.room("kind", false)), "it has no more due rows")
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
			room := leasing.room("kind", false)
			for _, rows := range room.rows {
				leased += int(rows)
				leasing.countLeased("kind", rowsIn(slices.Repeat([]string{"narrow"}, int(rows))...), room)
			}
		}
		require.NotZero(t, leased, "after %d rounds", i)
		for range leased {
			working := clients[mathrand.N(len(clients))]
			working.Arrive("kind", "narrow")
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
	room := limits.room("kind", false)
	require.Equal(t, []int32{2}, room.rows)
	require.NotEmpty(t, limits.countLeased("kind", []db.LeaseDueRow{{Namespace: "narrow"}, {Namespace: "narrow"}, {Namespace: "narrow"}}, room), "there may be more behind them")
	require.Equal(t, room, limits.room("kind", false))

	limits.countLeased("kind", rowsIn("narrow", "narrow"), room)
	require.Equal(t, []string{"narrow"}, limits.room("kind", false).full)
	limits.Decline("kind", "narrow")
	require.Equal(t, 1, woken)
	require.Equal(t, []int32{1}, limits.room("kind", false).rows)
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
	require.Equal(t, []string{"narrow"}, limits.room("slow", false).full)
	require.Equal(t, []int32{4}, limits.room("quick", false).rows)
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

// Resources that wait because of limited namespaces leave slots of a worker to others of their kind. Each namespace may have one that waits, as long as there
// are places.
func TestFewResourcesOfAKindWaitWithinSlotsOfAWorker(t *testing.T) {
	t.Parallel()
	woken := 0
	limits := newNamespaceLimits(nil, func() { woken++ })
	bounds := map[string]namespaceBound{"wide": {maxWorkers: 100}, "next": {maxWorkers: 100}, "narrow": {maxWorkers: 2}, "rated": {maxWorkers: 9, rate: 4}}
	for i := range allQueued {
		bounds[fmt.Sprint("one", i)] = namespaceBound{maxWorkers: 1}
	}
	limits.setBounds(bounds)
	roomOf := func(kind, namespace string) int32 { return limits.room(kind, false).rowsOf(namespace, 1000) }
	queue := func(kind, namespace string) func() {
		leave, ok := limits.Queue(kind, namespace)
		require.True(t, ok)
		return leave
	}
	isRefused := func(kind, namespace string) bool {
		_, ok := limits.Queue(kind, namespace)
		return !ok
	}
	for _, name := range []string{"wide", "next"} {
		for range 100 {
			_, ok := limits.TryAcquire(name)
			require.True(t, ok)
		}
	}
	require.LessOrEqual(t, roomOf("kind", "wide")+roomOf("kind", "next"), int32(maxQueued)*2)
	limits.countLeased("kind", rowsIn("next", "next", "next"), leaseRoom{})
	var leave []func()
	for range maxQueued - 4 {
		queue("kind", "unlimited")
		leave = append(leave, queue("kind", "wide"))
	}
	room := limits.room("kind", false)
	require.LessOrEqual(t, room.rowsOf("wide", 9)+room.rowsOf("next", 9)+room.rowsOf("narrow", 9)-2+room.rowsOf("rated", 9)-1, int32(1),
		"one place is left, but no slots are wasted")
	require.EqualValues(t, 2, min(room.rowsOf("narrow", 9), 2))
	require.GreaterOrEqual(t, room.rowsOf("rated", 9), int32(1))
	require.Contains(t, room.limited, "one0")
	leave = append(leave, queue("kind", "wide"), queue("kind", "wide"), queue("kind", "wide"), queue("kind", "wide"))
	require.True(t, isRefused("kind", "wide"))
	require.Zero(t, roomOf("kind", "wide"))
	require.EqualValues(t, 2, roomOf("kind", "narrow"), "those have slots")
	require.False(t, isRefused("kind", "narrow"))
	require.False(t, isRefused("kind", "narrow"))
	require.True(t, isRefused("kind", "narrow"))
	require.Zero(t, limits.queued["other"])
	require.False(t, isRefused("other", "wide"))

	require.EqualValues(t, 1, roomOf("kind", "rated"))
	leaveRated := queue("kind", "rated")
	require.Zero(t, roomOf("kind", "rated"))
	require.True(t, isRefused("kind", "rated"))
	require.True(t, limits.isWithholding())
	before := woken
	leaveRated()
	require.Equal(t, before+1, woken)
	require.EqualValues(t, 1, roomOf("kind", "rated"))
	leave[0]()
	require.Equal(t, before+2, woken)
	leave[1]()
	require.Equal(t, before+2, woken, "nothing has been held back since")

	for i := range allQueued {
		name := fmt.Sprint("one", i)
		_, ok := limits.TryAcquire(name)
		require.True(t, ok)
		leave, ok := limits.Queue("kind", name)
		if !ok {
			require.Equal(t, allQueued, limits.queued["kind"])
			require.Zero(t, roomOf("kind", "rated"))
			return
		}
		defer leave()
	}
	require.Fail(t, "there are always places")
}

// What is freed between the look at the room and the note that there is none is not lost.
func TestRoomThatComesWhileItIsLookedForWakes(t *testing.T) {
	t.Parallel()
	woken := 0
	limit := newNamespaceLimit(func() { woken++ })
	limit.size = 1
	release, ok := limit.tryAcquire()
	require.True(t, ok)
	_, err := limit.acquire(canceled(t))
	require.ErrorIs(t, err, context.Canceled)
	r, isLimited := limit.readRoom("kind")
	require.True(t, isLimited)
	r.noteWithheld()
	require.Zero(t, woken)
	release()
	require.Equal(t, 1, woken)
	r, _ = limit.readRoom("kind")
	limit.free()
	r.noteWithheld()
	require.Equal(t, 2, woken)
}

func canceled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
