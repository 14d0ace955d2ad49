package db_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// One client of all reads the schedules of a kind in an interval, and one does at once after a change. Nothing waits for a row that another one has
// locked.
func TestEachCheckOfSchedulesIsClaimedOnce(t *testing.T) {
	t.Parallel()
	pool := deltatest.New(t).Pool
	exec := func(sql string) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	claim := func(kinds ...string) (names []string) {
		t.Helper()
		due, err := db.New().ClaimScheduleChecks(t.Context(), pool, db.ClaimScheduleChecksParams{Kinds: kinds, Every: time.Hour})
		require.NoError(t, err)
		for _, c := range due {
			names = append(names, c.Name)
		}
		slices.Sort(names)
		return names
	}
	exec("INSERT INTO delta_controller (name, inform_interval) VALUES ('a', '1 hour'), ('b', '1 hour'), ('c', '1 hour')")
	require.Equal(t, []string{"a", "b"}, claim("a", "b", "unknown"), "not the kinds of others")
	require.Equal(t, []string{"c"}, claim("a", "b", "c"))
	require.Empty(t, claim("a", "b", "c"))

	exec("UPDATE delta_controller SET schedules_checked_at = now() - interval '1 hour' WHERE name = 'b'")
	require.Equal(t, []string{"b"}, claim("a", "b", "c"), "its interval has passed")
	require.NoError(t, db.New().ForgetScheduleChecks(t.Context(), pool, []string{"c"}))
	require.Equal(t, []string{"c"}, claim("a", "b", "c"), "it failed")
	require.NoError(t, db.New().PauseInformer(t.Context(), pool, db.PauseInformerParams{Name: "a", Paused: true}))
	require.Equal(t, []string{"a"}, claim("a", "b", "c"), "it was changed")

	require.NoError(t, db.New().ForgetScheduleChecks(t.Context(), pool, []string{}))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM delta_controller WHERE name = 'b' FOR UPDATE")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "c"}, claim("a", "b", "c"))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, []string{"b"}, claim("a", "b", "c"))
}
