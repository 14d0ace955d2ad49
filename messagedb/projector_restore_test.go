package messagedb_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// The store, or the database of the projection, was restored from a backup.
func TestAProjectionAndARestore(t *testing.T) {
	t.Parallel()
	s := tallied(t)
	all := fill(t, s, "a", 1, 20)
	reason := func(config messagedb.ProjectorConfig) messagedb.ProjectionReason {
		t.Helper()
		config.Handler = tallyInto("tally")
		stopped := new(messagedb.ProjectionError)
		require.ErrorAs(t, take(t, projecting(t, projector(t, s, config))), &stopped)
		return stopped.Reason
	}
	p := projector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	ended := projecting(t, p)
	requireTally(t, s, "tally", all)

	// That of the projection, with its tables: it goes back, also while it runs, and has each message once.
	_, err := s.pool.Exec(t.Context(), `UPDATE public.messagedb_projection SET position = $1, message_id = $2;`, all[9].GlobalPosition, all[9].ID)
	require.NoError(t, err)
	_, err = s.pool.Exec(t.Context(), "UPDATE public.tally SET messages = 10, sum = 45")
	require.NoError(t, err)
	all = append(all, fill(t, s, "a", 1, 5)[20:]...)
	requireTally(t, s, "tally", all)
	require.EqualValues(t, 1, p.Stats().Rewound)
	require.NoError(t, p.Stop(t.Context()))
	require.NoError(t, take(t, ended))

	// The store: it ends before the projection, or has other messages where that is.
	run := func(sql string, args ...any) {
		t.Helper()
		_, err := s.pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	run("DELETE FROM message_store.messages WHERE global_position >= $1", all[20].GlobalPosition)
	require.Equal(t, messagedb.ProjectionAhead, reason(messagedb.ProjectorConfig{}))
	run("SELECT setval('message_store.messages_global_position_seq', $1)", all[19].GlobalPosition)
	fill(t, s, "a", 1, 5)
	require.Equal(t, messagedb.ProjectionOfOtherStore, reason(messagedb.ProjectorConfig{}))
	requireTally(t, s, "tally", all)

	// Another category under the same name, and a row that was deleted under a projector.
	run("UPDATE public.messagedb_projection SET category = 'b'")
	require.Equal(t, messagedb.ProjectionOfOtherCategory, reason(messagedb.ProjectorConfig{}))
	run("DELETE FROM public.messagedb_projection; ")
	run("TRUNCATE public.tally")
	p = projector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	ended = projecting(t, p)
	all, err = s.client.ReadCategory(t.Context(), "a", messagedb.CategoryOptions{})
	require.NoError(t, err)
	requireTally(t, s, "tally", all)
	run("DELETE FROM public.messagedb_projection")
	fill(t, s, "a", 1, 1)
	stopped := new(messagedb.ProjectionError)
	require.ErrorAs(t, take(t, ended), &stopped)
	require.Equal(t, messagedb.ProjectionGone, stopped.Reason)
	requireTally(t, s, "tally", all)

	run("DROP TABLE public.messagedb_projection")
	require.Equal(t, messagedb.ProjectionNotMigrated, reason(messagedb.ProjectorConfig{}))
	none, err := messagedb.Projections(t.Context(), s.pool, "")
	require.NoError(t, err)
	require.Empty(t, none)
	for range 2 {
		require.NoError(t, messagedb.MigrateProjections(t.Context(), s.pool, ""))
	}
}

// The store was restored while the projector was connected to it: it looks again after the connection was lost.
func TestAStoreThatIsRestoredUnderAProjectorIsNoticed(t *testing.T) {
	t.Parallel()
	s := tallied(t)
	all := fill(t, s, "a", 1, 20)
	p := projector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	ended := projecting(t, p)
	requireTally(t, s, "tally", all)
	_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE global_position >= $1", all[15].GlobalPosition)
	require.NoError(t, err)
	for len(ended) == 0 {
		require.NoError(t, administer(t.Context(), "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '"+s.config.ConnConfig.Database+"'"))
		time.Sleep(20 * time.Millisecond)
	}
	stopped := new(messagedb.ProjectionError)
	require.ErrorAs(t, take(t, ended), &stopped)
	require.Equal(t, messagedb.ProjectionAhead, stopped.Reason)
}
