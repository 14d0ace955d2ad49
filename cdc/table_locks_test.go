package cdc_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// lockingPIDs returns the server processes with a lock on a table.
func (d *database) lockingPIDs(table string) []int64 {
	d.tb.Helper()
	return queryValue[[]int64](d, `select coalesce(array_agg(pid order by pid), '{}') from pg_locks where locktype = 'relation' and relation = $1::text::regclass`, table)
}

// lockPIDs returns the server processes with a lock on a table, as the snapshot lists them.
func lockPIDs(s *cdc.Snapshot, table string) []int64 {
	pids := []int64{}
	for _, hold := range s.TableLocks() {
		if hold.Schema == "public" && hold.Table == table && !hold.Since.IsZero() {
			pids = append(pids, int64(hold.PID))
		}
	}
	return pids
}

func TestATableReadToItsEndIsUnlocked(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for _, table := range []string{"t", "u"} {
		d.exec(`create table `+table+` (id int primary key, v text)`, `insert into `+table+` select i, 'v' from generate_series(1, 50) i`)
	}
	s := d.createSnapshot(func(c *cdc.SnapshotConfig) { c.PageSize, c.Connections = 5, 3 })
	page := func(table string, after []string) *cdc.Page {
		t.Helper()
		p, err := s.Page(t.Context(), "public", table, after, 30, 1<<20)
		require.NoError(t, err)
		return p
	}
	first := page("t", nil)
	require.NotNil(t, first.Next)
	locked := d.lockingPIDs("t")
	require.Len(t, locked, 1)
	require.Equal(t, locked, lockPIDs(s, "t"))
	require.Nil(t, page("t", first.Next).Next)
	require.Empty(t, d.lockingPIDs("t"))
	require.Empty(t, s.TableLocks())
	d.exec(`alter table t add column n int`)
	require.Len(t, page("t", first.Next).Rows, 20, "the last page can be read again")
	require.Empty(t, d.lockingPIDs("t"))

	// With several connections, and another table that is not read to its end.
	n := 0
	for _, err := range s.Rows(t.Context(), "public", "u") {
		require.NoError(t, err)
		if n++; n == 20 {
			require.NotEmpty(t, d.lockingPIDs("u"))
			require.Eventually(t, func() bool { return slices.Equal(d.lockingPIDs("u"), lockPIDs(s, "u")) }, cdctest.Patience, time.Millisecond,
				"others read ahead until there is no room for more pages")
			page("t", nil)
		}
	}
	require.Equal(t, 50, n)
	require.Equal(t, d.lockingPIDs("t"), lockPIDs(s, "t"))
	require.NotEmpty(t, d.lockingPIDs("t"), "this one is still being read")
	require.Nil(t, page("t", first.Next).Next)
	require.Empty(t, d.lockingPIDs("t"))
	require.Empty(t, d.lockingPIDs("u"))
	require.Positive(t, queryValue[int](d, `select count(*) from pg_stat_activity where pid = $1`, s.PID()))

	d.exec(`truncate t`)
	_, err := s.Page(t.Context(), "public", "t", nil, 30, 1<<20)
	require.ErrorIs(t, err, cdc.ErrSnapshotGone)
	_, err = s.Page(t.Context(), "public", "u", nil, 50, 1<<20)
	require.NoError(t, err, "the other table is unchanged")
	s.Close()
	require.Empty(t, s.TableLocks())
}

// A loop that is left early no longer reads its table.
func TestLeavingALoopUnlocksItsTable(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`, `insert into t select generate_series(1, 500)`)
	s := d.createSnapshot(func(c *cdc.SnapshotConfig) { c.PageSize = 5 })
	for _, err := range s.Rows(t.Context(), "public", "t") {
		require.NoError(t, err)
		break
	}
	require.Empty(t, s.TableLocks())
	require.Eventually(t, func() bool { return len(d.lockingPIDs("t")) == 0 }, cdctest.Patience, time.Millisecond, "a page that was being read ends with its connection")
}

// A user's query may be repeated, so its tables stay locked.
func TestTableLocksOfASnapshotQueryAreListed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`, `create table u (id int primary key)`)
	s, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: d.config(), Slot: d.name, Connections: 1})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	for range 2 {
		for _, err := range s.Query(t.Context(), `select id from t`) {
			require.NoError(t, err)
		}
	}
	for _, err := range s.Rows(t.Context(), "public", "u") {
		require.NoError(t, err)
	}
	held := s.TableLocks()
	require.NotEmpty(t, held)
	require.Equal(t, "t", held[0].Table)
	require.False(t, held[0].Since.IsZero())
	require.True(t, queryValue[bool](d, `select exists (select from pg_locks where relation = 't'::regclass and pid = $1)`, int(held[0].PID)))
}

// A lock on an index blocks statements that plan to use the table, but not LOCK TABLE. So a chunk is stuck once it has
// locked the table.
func TestTableLocksOfAChunkAreListed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`, `create index t_v on t (v)`, `insert into t select i, 'v' from generate_series(1, 20) i`)
	s := d.openStream()
	require.Empty(t, s.TableLocks())
	b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t", ChunkSize: 5})
	require.NoError(t, err)
	// Next is not called, so at most the first chunk was read.
	stopper, err := d.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = stopper.Rollback(context.Background()) }()
	_, err = stopper.Exec(t.Context(), `alter index t_v set tablespace pg_default`)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	taken := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !isDone(b) {
			_, err = s.Next(ctx)
		}
		taken <- err
	}()
	var held []cdc.TableLock
	require.Eventually(t, func() bool {
		held = s.TableLocks()
		return len(held) == 1 && queryValue[bool](d, `select exists (select from pg_locks where pid = $1 and not granted)`, int(held[0].PID))
	}, cdctest.Patience, 20*time.Millisecond)
	require.Equal(t, "public", held[0].Schema)
	require.Equal(t, "t", held[0].Table)
	require.Equal(t, []int64{int64(held[0].PID)}, queryValue[[]int64](d, `select array_agg(pid) from pg_locks where relation = 't'::regclass and mode = 'AccessShareLock' and granted`))
	require.WithinDuration(t, time.Now(), held[0].Since, cdctest.Patience)

	// The transaction ends with its connection, and the chunk is read again by another one.
	ended := held[0].PID
	d.exec(fmt.Sprintf(`select pg_terminate_backend(%d)`, ended))
	require.Eventually(t, func() bool {
		held = s.TableLocks()
		return len(held) == 1 && held[0].PID != ended
	}, cdctest.Patience, 20*time.Millisecond)
	require.NoError(t, stopper.Rollback(t.Context()))
	require.NoError(t, <-taken)
	require.NoError(t, b.Err())
	require.Empty(t, s.TableLocks())
}
