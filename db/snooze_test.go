package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/soak"
)

// However many rows of a snoozed namespace are due, or wait for a key, they are put off once, and read by no lease and no look at the key after that.
func TestRowsOfASnoozedNamespaceAreReadOnceAndNotByEachLease(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const many = 20_000
	k := newKeys(t, 2, 0)
	k.exec("ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE)")
	k.addDue("", many)
	k.addDue("busy", many)
	k.exec("UPDATE delta_resource SET namespace = 'asleep'")
	k.exec("UPDATE delta_resource SET dispatch_at = NULL, queued_at = due_at WHERE limit_key = 'busy'")
	due, waits := k.addDue("", 10), k.addDue("busy", 2)
	k.exec("UPDATE delta_resource SET dispatch_at = NULL, queued_at = now() WHERE id = ANY ($1)", waits)
	k.exec("UPDATE delta_resource SET dispatch_at = now() WHERE id = ANY ($1)", due) // behind all others
	k.exec("INSERT INTO delta_namespace (name, snoozed_until, snooze_spread) VALUES ('asleep', now() + interval '1 hour', interval '1 minute')")
	k.exec("INSERT INTO delta_key (kind, limit_key, wake_at) VALUES ('thing', 'busy', now())")
	q := db.New()
	var put int64
	for n := int64(1000); n > 0; put += n {
		var err error
		n, err = q.PutOffSnoozed(t.Context(), k.pool, db.PutOffSnoozedParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
		require.NoError(t, err)
	}
	require.EqualValues(t, many, put)
	looks := 0
	for ; k.count("slot_key = 'busy'") < 2; looks++ {
		require.Less(t, looks, many/100, "each look puts some off")
		k.wakeAt()
		k.wakeKeys()
	}
	require.Equal(t, 2, k.count("slot_key = 'busy' AND id = ANY ($1)", waits))
	require.Equal(t, 2*many, k.count(`namespace = 'asleep' AND dispatch_at BETWEEN (SELECT snoozed_until FROM delta_namespace WHERE name = 'asleep')
		AND (SELECT snoozed_until + snooze_spread FROM delta_namespace WHERE name = 'asleep')`))

	k.exec("VACUUM ANALYZE delta_resource") // the index leads to what was there before until then
	tx, err := k.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
	counted := &countedReads{Tx: tx}
	_, err = q.PutOffSnoozed(t.Context(), counted, db.PutOffSnoozedParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
	require.NoError(t, err)
	leased, err := q.LeaseDue(t.Context(), counted, leaseParams(""))
	require.NoError(t, err)
	require.Len(t, leased, len(due)+len(waits))
	require.LessOrEqual(t, counted.read.fetched, 80)
	counted.read = rowsRead{}
	_, err = tx.Exec(t.Context(), "UPDATE delta_key SET wake_at = now()")
	require.NoError(t, err)
	_, err = q.WakeKeys(t.Context(), counted, db.WakeKeysParams{Kind: "thing"})
	require.NoError(t, err)
	require.NoError(t, counted.err)
	require.LessOrEqual(t, counted.read.fetched, 40)
	require.Zero(t, counted.read.sequential)
}

// A snooze that is ended while rows are put off leaves none of them behind.
func TestWhatIsPutOffWhileASnoozeEndsComesBackWithIt(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 1, 0)
	ids := k.addDue("", 3)
	k.exec("INSERT INTO delta_namespace (name, snoozed_until) VALUES ('default', now() + interval '1 hour')")
	q := db.New()
	putOff := func(conn db.DBTX) int64 {
		n, err := q.PutOffSnoozed(context.Background(), conn, db.PutOffSnoozedParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
		require.NoError(t, err)
		return n
	}
	tx, err := k.pool.Begin(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, putOff(tx))
	ended := make(chan time.Duration, 1)
	go func() {
		lasts, err := q.WakeNamespace(context.Background(), k.pool, "default")
		if err != nil {
			t.Error(err)
		}
		ended <- lasts
	}()
	for waits := 0; waits == 0; {
		require.NoError(t, k.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() <> pid AND $1 = ANY (pg_blocking_pids(pid))",
			tx.Conn().PgConn().PID()).Scan(&waits))
		require.Empty(t, ended, "it has to wait for what is put off")
	}
	require.NoError(t, tx.Commit(t.Context()))
	lasts := <-ended
	require.Greater(t, lasts, 59*time.Minute)
	due, err := q.DueForDispatch(t.Context(), k.pool, db.DueForDispatchParams{Kind: "thing", Namespace: "default", Longest: lasts})
	require.NoError(t, err)
	require.ElementsMatch(t, ids, due)

	// One that is being ended puts nothing off.
	k.exec("UPDATE delta_resource SET dispatch_at = now() - interval '1 s'")
	k.exec("UPDATE delta_namespace SET snoozed_until = now() + interval '1 hour'")
	tx, err = k.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
	_, err = q.WakeNamespace(t.Context(), tx, "default")
	require.NoError(t, err)
	require.Zero(t, putOff(k.pool))
}
