package db_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// A user informs an object that waits with a million others of a backfill: it must not wait for them.
func TestAnInformMakesWhatWaitsMoreUrgentAndNeverLess(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, inform way) {
		t.Helper()
		env := deltatest.New(t)
		live := db.InformOptions{DefaultMaxAttempts: 7, DefaultPriority: 3, Revive: true}
		periodic := db.InformOptions{DefaultMaxAttempts: 7, DefaultPriority: 4}
		backfill := db.InformOptions{DefaultMaxAttempts: 7, DefaultPriority: 5}
		for _, state := range []string{"scheduled", "expired", "failed"} {
			informed := func(content string, given int16, options db.InformOptions, want int) {
				t.Helper()
				o := object(state, content)
				o.Priority = given
				require.Equal(t, want, inform(t, env.Pool, o, options).Resource.Priority, state)
				require.Equal(t, want, read(t, env.Pool, state).Priority, state)
			}
			informed("1", 0, backfill, 5)
			set(t, env.Pool, state, "state = '"+state+"'")
			informed("1", 0, periodic, 5) // an informer changes nothing
			informed("1", 0, live, 3)
			informed("1", 1, live, 1)
			informed("1", 0, live, 1)
			informed("1", 0, periodic, 1)
			require.EqualValues(t, 1, read(t, env.Pool, state).Generation, "nothing changed")
			if state != "failed" {
				informed("2", 0, backfill, 1)
			}
		}

		// What does not wait is left alone.
		inform(t, env.Pool, object("synced", "1"), backfill)
		set(t, env.Pool, "synced", "state = 'synced'")
		require.Equal(t, 5, inform(t, env.Pool, object("synced", "1"), live).Resource.Priority)
		require.Equal(t, 5, read(t, env.Pool, "synced").Priority)
	})
}
