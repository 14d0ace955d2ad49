package delta

import (
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
