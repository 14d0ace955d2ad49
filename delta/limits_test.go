package delta

import (
	"context"
	"runtime"
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
		limited, rooms, full := limits.leasableRows()
		if len(rooms) == 0 {
			require.Equal(t, []string{"narrow"}, full)
			return 0
		}
		require.Equal(t, []string{"narrow"}, limited)
		return int(rooms[0])
	}
	require.Equal(t, 4, room(), "as many as there are slots, and the same number waiting")
	require.False(t, limits.countLeased([]string{"narrow", "wide", "narrow"}))
	require.Equal(t, 2, room())
	require.True(t, limits.countLeased([]string{"narrow", "narrow"}))
	require.Zero(t, room())
	require.Zero(t, woken)

	limits.uncountLeased([]string{"narrow", "wide"})
	require.Equal(t, 1, woken, "dispatchers read skipped rows again")
	require.Equal(t, 1, room())
	for range 100 { // retries
		limits.countLeased([]string{"narrow"})
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
		_, room, _ := limits.leasableRows()
		rooms = append(rooms, room...)
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
		_, _, full := limits.leasableRows()
		require.Equal(t, []string{"narrow"}, full)
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

func (n *namespaceLimit) countWaiting() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.waiting
}
