package delta

import (
	"context"
	mathrand "math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Rows that cannot be started, or a Temporal that refuses all starts, take no room from other rows of the namespace.
func TestRowsThatCouldNotBeWokenTakeNoRoomInTheirNamespace(t *testing.T) {
	t.Parallel()
	woken := 0
	limits := newNamespaceLimits(nil, func() { woken++ })
	limits.setBounds(map[string]namespaceBound{"narrow": {maxWorkers: 2}})
	room := func() int {
		room := limits.room()
		if len(room.rows) == 0 {
			require.Equal(t, []string{"narrow"}, room.full)
			return 0
		}
		require.Equal(t, []string{"narrow"}, room.limited)
		return int(room.rows[0])
	}
	require.Equal(t, 4, room(), "as many as there are slots, and the same number waiting")
	require.False(t, limits.countLeased([]string{"narrow", "wide", "narrow"}, limits.room()))
	require.Equal(t, 2, room())
	require.True(t, limits.countLeased([]string{"narrow", "narrow"}, limits.room()))
	require.Zero(t, room())
	require.Zero(t, woken)

	limits.uncountLeased([]string{"narrow", "wide"})
	require.Equal(t, 1, woken, "dispatchers read skipped rows again")
	require.Equal(t, 1, room())
	for range 100 { // retries
		limits.countLeased([]string{"narrow"}, leaseRoom{})
		limits.uncountLeased([]string{"narrow"})
	}
	require.Equal(t, 1, room())
	limits.uncountLeased([]string{"narrow", "narrow", "narrow", "narrow"})
	require.Equal(t, 4, room())
}

// A slot that is freed, or not waited for any longer, makes room for another row at once. If it took until the call that got the slot has run, a dispatcher
// would look too early, and the namespace would have no row ready when that call ends.
func TestAFreedSlotMakesRoomAtOnce(t *testing.T) {
	t.Parallel()
	var rooms []int32
	var limits *namespaceLimits
	limits = newNamespaceLimits(nil, func() {
		rooms = append(rooms, limits.room().rows...)
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
		require.Equal(t, []string{"narrow"}, limits.room().full)
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
	room := limits.room()
	require.Equal(t, []int32{1}, room.rows)
	release()
	require.True(t, limits.countLeased([]string{"narrow"}, room))
	require.Equal(t, []int32{1}, limits.room().rows)
	require.False(t, limits.countLeased([]string{"wide"}, limits.room()), "it has no more due rows")
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
			room := leasing.room()
			for _, rows := range room.rows {
				leased += int(rows)
				leasing.countLeased(slices.Repeat([]string{"narrow"}, int(rows)), room)
			}
		}
		require.NotZero(t, leased, "after %d rounds", i)
		for range leased {
			release, err := clients[mathrand.N(len(clients))].Acquire(t.Context(), "narrow")
			require.NoError(t, err)
			release()
		}
	}
}

func (n *namespaceLimit) countWaiting() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.waiting
}
