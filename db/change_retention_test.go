package db_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
)

const day = 24 * time.Hour

// appendAged appends an entry that is as many days old.
func appendAged(t *testing.T, pool *pgxpool.Pool, id string, days int) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `INSERT INTO delta_change (order_xid, at, change, kind, object_id, namespace, resource_id, generation, sync_count)
		VALUES (pg_current_xact_id(), now() - $2 * interval '1 day', 'updated', 'thing', $1, 'default', 1, 1, 1)`, id, days)
	require.NoError(t, err)
}

func makePartition(t *testing.T, pool *pgxpool.Pool, ahead int32) bool {
	t.Helper()
	made, err := db.New().MakeChangePartition(context.Background(), pool, ahead)
	require.NoError(t, err)
	return made
}

// dropPartitions drops partitions until none is left to drop, and returns how many there were.
func dropPartitions(t *testing.T, pool *pgxpool.Pool, keep, most time.Duration) (n int) {
	t.Helper()
	for {
		name, err := db.New().DropChangePartition(context.Background(), pool, db.DropChangePartitionParams{Keep: keep, KeepMost: most})
		require.NoError(t, err)
		if name == "" {
			return n
		}
		n++
	}
}

func loggedIDs(t *testing.T, pool *pgxpool.Pool, table string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), "SELECT object_id FROM "+table+" ORDER BY id")
	require.NoError(t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return ids
}

// consumeUpTo has a consumer stand behind the entry of an object, or before all for an empty one.
func consumeUpTo(t *testing.T, pool *pgxpool.Pool, id string) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `INSERT INTO delta_change_consumer (name, members, member, epoch, order_xid, id)
		SELECT 'slow', 1, 0, 1, coalesce(max(order_xid::text), '0')::xid8, coalesce(max(id), 0) FROM delta_change WHERE object_id = $1
		ON CONFLICT (name, members, member) DO UPDATE SET order_xid = excluded.order_xid, id = excluded.id`, id)
	require.NoError(t, err)
}

// readsFrom reads from behind the entry of an object, and reports whether something after that was removed.
func readsFrom(t *testing.T, pool *pgxpool.Pool, xid uint64, id int64) (removed bool) {
	t.Helper()
	rows, err := db.New().ReadChanges(t.Context(), pool, db.ReadChangesParams{AfterXid: xid, AfterID: id, Kinds: []string{}, Members: 1, Most: 10})
	require.NoError(t, err)
	return rows[0].Removed
}

func TestPartitionsOfTheLogAreDroppedWhenAllConsumersHavePassed(t *testing.T) {
	t.Parallel()
	pool := newLogged(t)
	for _, ahead := range []int32{-9, -8, -3, 0, 1} {
		require.True(t, makePartition(t, pool, ahead))
		require.False(t, makePartition(t, pool, ahead), "it is there")
	}
	for _, age := range []int{9, 8, 3, 0} {
		appendAged(t, pool, fmt.Sprint(age), age)
	}
	require.Empty(t, loggedIDs(t, pool, "delta_change_default"))
	var xid uint64
	var last int64
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT order_xid, id FROM delta_change WHERE object_id = '8'").Scan(&xid, &last))

	consumeUpTo(t, pool, "")
	require.Zero(t, dropPartitions(t, pool, 7*day, 30*day), "a consumer has handled nothing")
	require.Equal(t, []string{"9", "8", "3", "0"}, loggedIDs(t, pool, "delta_change"))
	consumeUpTo(t, pool, "9")
	require.Equal(t, 1, dropPartitions(t, pool, 7*day, 30*day))
	require.Equal(t, []string{"8", "3", "0"}, loggedIDs(t, pool, "delta_change"))
	require.False(t, readsFrom(t, pool, xid, last), "a reader that is further misses nothing")
	require.True(t, readsFrom(t, pool, 3, 0))
	require.Equal(t, 1, dropPartitions(t, pool, 6*day, 7*day), "it is kept no longer than the longest retention")
	require.Equal(t, []string{"3", "0"}, loggedIDs(t, pool, "delta_change"))
	require.True(t, readsFrom(t, pool, xid, last-1))
	require.False(t, readsFrom(t, pool, xid, last))
}

func TestWhatHasNoPartitionIsKeptAndTrimmed(t *testing.T) {
	t.Parallel()
	pool := newLogged(t)
	for _, age := range []int{9, 8, 3, 0} {
		appendAged(t, pool, fmt.Sprint(age), age)
	}
	require.Equal(t, []string{"9", "8", "3", "0"}, loggedIDs(t, pool, "delta_change_default"))
	require.False(t, makePartition(t, pool, 0), "the default partition has entries of the day")
	require.True(t, makePartition(t, pool, 1))

	trim := func(keep, most time.Duration) int64 {
		t.Helper()
		removed, err := db.New().TrimChanges(t.Context(), pool, db.TrimChangesParams{Keep: keep, KeepMost: most, Page: 1})
		require.NoError(t, err)
		return removed
	}
	consumeUpTo(t, pool, "9")
	require.EqualValues(t, 1, trim(7*day, 30*day))
	require.Zero(t, trim(7*day, 30*day), "a consumer has not handled the next")
	require.True(t, readsFrom(t, pool, 3, 0))
	require.EqualValues(t, 1, trim(7*day, 7*day))
	require.Zero(t, trim(7*day, 7*day))
	require.Equal(t, []string{"3", "0"}, loggedIDs(t, pool, "delta_change"))
}

// A transaction that has been open for longer than its partition would be kept writes into the one of the time of its write.
func TestALongTransactionWritesIntoThePartitionOfItsWrite(t *testing.T) {
	t.Parallel()
	pool := newLogged(t)
	makePartition(t, pool, 0)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // after a commit it does nothing
	var began time.Time
	require.NoError(t, tx.QueryRow(t.Context(), "SELECT now()").Scan(&began))
	var now time.Time
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.NoError(c, tx.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&now))
		assert.True(c, now.After(began))
	}, time.Minute, time.Millisecond)
	_, err = tx.Exec(t.Context(), "SELECT delta_append_change('updated', delta_order_xid(NULL), 1, 'thing', 'a', 'default', 1, 1, NULL, NULL, NULL, NULL)")
	require.NoError(t, err)
	var at time.Time
	require.NoError(t, tx.QueryRow(t.Context(), "SELECT at FROM delta_change_"+now.UTC().Format("20060102")).Scan(&at)) // to read all locks all
	require.True(t, at.After(began))

	// While it uses the log no partition is dropped, and nobody waits for long: that fails, and is tried again.
	require.True(t, makePartition(t, pool, -9), "making one waits for no transaction that writes elsewhere")
	_, err = db.New().DropChangePartition(t.Context(), pool, db.DropChangePartitionParams{Keep: 7 * day, KeepMost: 30 * day})
	require.ErrorContains(t, err, "lock timeout")
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 1, dropPartitions(t, pool, 7*day, 30*day))
}
