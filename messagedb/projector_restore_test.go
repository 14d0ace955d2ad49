package messagedb_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// The store, or the database of the projection, was restored from a backup.
func TestAProjectionAndARestore(t *testing.T) {
	t.Parallel()
	s := newTallied(t)
	all := fillCategory(t, s, "a", 1, 20)
	reason := func(config messagedb.ProjectorConfig) messagedb.ProjectionReason {
		t.Helper()
		config.Handler = tallyInto("tally")
		stopped := new(messagedb.ProjectionError)
		require.ErrorAs(t, take(t, runProjector(t, newTestProjector(t, s, config))), &stopped)
		return stopped.Reason
	}
	p := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	ended := runProjector(t, p)
	requireTally(t, s, "tally", all)

	// The projection's database is restored: the projector goes back, also while it runs, and has each message once.
	require.NoError(t, pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error { // together: it runs
		_, err := tx.Exec(t.Context(), `UPDATE public.messagedb_projection SET position = $1, message_id = $2`, all[9].GlobalPosition, all[9].ID)
		if err == nil {
			_, err = tx.Exec(t.Context(), "UPDATE public.tally SET messages = 10, sum = 45")
		}
		return err
	}))
	all = append(all, fillCategory(t, s, "a", 1, 5)[20:]...)
	requireTally(t, s, "tally", all)
	require.EqualValues(t, 1, p.Stats().Rewound)
	require.NoError(t, p.Stop(t.Context()))
	require.NoError(t, take(t, ended))

	// The store is restored: it ends before the projection's position, or has other messages there.
	run := func(sql string, args ...any) {
		t.Helper()
		_, err := s.pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	run("DELETE FROM message_store.messages WHERE global_position >= $1", all[20].GlobalPosition)
	run("SELECT setval('message_store.messages_global_position_seq', $1)", all[19].GlobalPosition)
	require.Equal(t, messagedb.ProjectionAhead, reason(messagedb.ProjectorConfig{}))
	fillCategory(t, s, "a", 1, 5)
	require.Equal(t, messagedb.ProjectionOfOtherStore, reason(messagedb.ProjectorConfig{}))
	requireTally(t, s, "tally", all)

	// Another category under the same name, and a row that was deleted under a projector.
	run("UPDATE public.messagedb_projection SET category = 'b'")
	require.Equal(t, messagedb.ProjectionOfOtherCategory, reason(messagedb.ProjectorConfig{}))
	run("DELETE FROM public.messagedb_projection; ")
	run("TRUNCATE public.tally")
	p = newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	ended = runProjector(t, p)
	var err error
	all, err = s.client.ReadCategory(t.Context(), "a", messagedb.CategoryOptions{})
	require.NoError(t, err)
	requireTally(t, s, "tally", all)
	run("DELETE FROM public.messagedb_projection")
	fillCategory(t, s, "a", 1, 1)
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

// The store is restored while the projector is connected: it checks again after the connection is lost.
func TestAStoreThatIsRestoredUnderAProjectorIsNoticed(t *testing.T) {
	t.Parallel()
	s := newTallied(t)
	all := fillCategory(t, s, "a", 1, 20)
	p := newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")})
	ended := runProjector(t, p)
	requireTally(t, s, "tally", all)
	restorePath(t, s, all[15])
	for len(ended) == 0 {
		require.NoError(t, runAsAdmin(t.Context(), "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '"+s.config.ConnConfig.Database+"'"))
		time.Sleep(20 * time.Millisecond)
	}
	stopped := new(messagedb.ProjectionError)
	require.ErrorAs(t, take(t, ended), &stopped)
	require.Equal(t, messagedb.ProjectionAhead, stopped.Reason)
}

// restorePath restores the store to its state before a message, like a backup, including the next positions.
func restorePath(t *testing.T, s *store, before *messagedb.Message) {
	t.Helper()
	_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE global_position >= $1", before.GlobalPosition)
	require.NoError(t, err)
	_, err = s.pool.Exec(t.Context(), "SELECT setval('message_store.messages_global_position_seq', $1, false)", before.GlobalPosition)
	require.NoError(t, err)
}

// A restored store that has grown beyond the projection's position since has another message there, of this or another category. The projector keeps the id of the
// last message, handled or skipped, to notice that.
func TestAProjectorKnowsItsLastMessageWhenItBegins(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]messagedb.ProjectorConfig{"handled": {Handler: tallyInto("tally")}, "passed over": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTallied(t)
			all := fillCategory(t, s, "a", 1, 10)
			start := func() (*messagedb.Projector, <-chan error) {
				p := newTestProjector(t, s, config)
				messagedb.Project(p, "Unused", func(context.Context, pgx.Tx, int, *messagedb.Message) error { return nil })
				return p, runProjector(t, p)
			}
			p, ended := start()
			require.Eventually(t, func() bool { return p.Stats().Position == all[9].GlobalPosition }, soon, time.Millisecond)
			require.NoError(t, p.Stop(t.Context()))
			require.NoError(t, take(t, ended))

			restorePath(t, s, all[8])
			fillCategory(t, s, "b", 1, 4) // takes the positions of the last two, and two more
			fillCategory(t, s, "a", 1, 2)
			_, ended = start()
			stopped := new(messagedb.ProjectionError)
			require.ErrorAs(t, take(t, ended), &stopped)
			require.Equal(t, messagedb.ProjectionOfOtherStore, stopped.Reason)
			require.Equal(t, all[9].GlobalPosition, readProjection(t, s, 1).Position, "nothing was written")
		})
	}
}

// The projector also notices it while it runs and keeps its connections.
func TestARunningProjectorNoticesThatItsStoreGoesBack(t *testing.T) {
	t.Parallel()
	for want, refill := range map[messagedb.ProjectionReason]int{messagedb.ProjectionAhead: 0, messagedb.ProjectionOfOtherStore: 9} {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			s := newTallied(t)
			all := fillCategory(t, s, "a", 1, 10)
			ended := runProjector(t, newTestProjector(t, s, messagedb.ProjectorConfig{Handler: tallyInto("tally")}))
			requireTally(t, s, "tally", all)
			err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "DELETE FROM message_store.messages WHERE global_position >= $1", all[5].GlobalPosition); err != nil {
					return err
				}
				if _, err := tx.Exec(t.Context(), "SELECT setval('message_store.messages_global_position_seq', $1, false)", all[5].GlobalPosition); err != nil {
					return err
				}
				for range refill {
					if _, err := s.client.WriteMessageTx(t.Context(), tx, "a-1", messagedb.ProposedMessage{Type: "T", Data: 1}, messagedb.AnyVersion); err != nil {
						return err
					}
				}
				return nil
			})
			require.NoError(t, err)
			stopped := new(messagedb.ProjectionError)
			require.ErrorAs(t, take(t, ended), &stopped)
			require.Equal(t, want, stopped.Reason)
			requireTally(t, s, "tally", all)
		})
	}
}
