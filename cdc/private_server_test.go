//go:build linux

package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// privateServer is a Postgres server of one test, which may be killed.
type privateServer struct {
	*cdctest.Private
	t *testing.T
}

func newPrivateServer(t *testing.T, settings ...string) (*privateServer, *database) {
	t.Helper()
	p := cdctest.NewPrivate(t, append([]string{"wal_level=logical"}, settings...)...)
	return &privateServer{Private: p, t: t}, wrapDatabase(t, p.Database)
}

// stream opens a stream of all tables.
func (s *privateServer) stream(d *database) *cdc.Stream {
	s.t.Helper()
	d.exec(`create publication postgres for all tables`, `select pg_create_logical_replication_slot('postgres', 'pgoutput')`)
	return s.open(d)
}

// reopen closes a stream and opens another one of the same slot.
func (s *privateServer) reopen(d *database, old *cdc.Stream) *cdc.Stream {
	s.t.Helper()
	old.Close()
	return s.open(d)
}

func (s *privateServer) open(d *database) *cdc.Stream {
	s.t.Helper()
	config := cdc.Config{
		Conn: d.pool.Config().ConnConfig, Slot: "postgres", Publications: []string{"postgres"}, Logger: quiet,
		StatusInterval: 200 * time.Millisecond, Timeout: time.Minute, ShortestRetry: 10 * time.Millisecond, LongestRetry: 200 * time.Millisecond,
	}
	stream, err := cdc.Open(s.t.Context(), config)
	// Postgres releases a slot shortly after its reader has closed, and Open itself waits for one second only.
	for end := time.Now().Add(cdctest.Patience); errors.Is(err, cdc.ErrSlotBusy) && time.Now().Before(end); {
		stream, err = cdc.Open(s.t.Context(), config)
	}
	require.NoError(s.t, err)
	s.t.Cleanup(stream.Close)
	return stream
}

func TestStreamGoesOnAfterTheServerIsRestarted(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	s, d := newPrivateServer(t)
	d.exec(`create table t (id int primary key)`)
	stream := s.stream(d)
	d.exec(`insert into t values (1)`)
	first, _ := nextTransaction(t, stream)
	require.NoError(t, stream.Ack(first.EndLSN))
	for i, signal := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		s.Stop(signal)
		s.Start()
		d.pool.Reset()
		d.exec(fmt.Sprintf(`insert into t values (%d)`, i+2))
		transaction, changes := nextTransaction(t, stream)
		require.Equal(t, []string{fmt.Sprintf("insert t [%d]", i+2)}, changes)
		require.NoError(t, stream.Ack(transaction.EndLSN))
	}
}

func TestInvalidatedSlotsNeedAResync(t *testing.T) {
	t.Parallel()
	s, d := newPrivateServer(t, "max_slot_wal_keep_size=1MB", "max_wal_size=32MB")
	d.exec(`create table t (id int primary key)`)
	stream := s.stream(d)
	d.exec(`insert into t values (1)`)
	nextTransaction(t, stream) // never acknowledged
	require.NotNil(t, d.lookupSlot().SafeWALBytes)
	for range 4 {
		d.exec(`insert into t values ((select max(id) + 1 from t))`, `select pg_switch_wal()`)
	}
	d.exec(`checkpoint`)
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	var err error
	for err == nil {
		_, err = stream.Next(ctx)
	}
	var resync *cdc.ResyncError
	require.ErrorAs(t, err, &resync)
	require.Equal(t, cdc.SlotInvalidated, resync.Reason)
	slots, err := cdc.Slots(t.Context(), d.pool)
	require.NoError(t, err)
	require.Equal(t, "lost", slots[0].Status)
	require.Nil(t, slots[0].SafeWALBytes)
}

func TestHeartbeatsKeepTheRetainedWALSmall(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	_, d := newPrivateServer(t) // because the writes of other tests would be retained too
	d.exec(`create table idle (id int primary key)`, `create table busy (v text)`, `create publication `+d.name+` for table idle`,
		`select pg_create_logical_replication_slot('`+d.name+`_other', 'test_decoding')`)
	s := d.openStream(func(c *cdc.Config) {
		c.Heartbeat = 100 * time.Millisecond
	})
	d.exec(`insert into idle values (1)`)
	transaction, _ := nextTransaction(t, s)
	require.NoError(t, s.Ack(transaction.EndLSN))
	first, most := d.lookupSlot(), int64(0)
	const round = 5 << 20
	for range 12 {
		d.exec(fmt.Sprintf(`insert into busy select repeat('x', 1000) from generate_series(1, %d)`, round/1000))
		end, err := cdc.ParseLSN(queryValue[string](d, `select pg_current_wal_insert_lsn()::text`))
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			d.exec(`checkpoint`) // logs the running transactions, where a slot can start
			return d.lookupSlot().Restart >= end
		}, cdctest.Patience, 100*time.Millisecond)
		most = max(most, d.lookupSlot().RetainedBytes)
	}
	last := d.lookupSlot()
	require.Greater(t, last.Confirmed, first.Confirmed+12*round)
	require.Less(t, most, int64(2*round))
	require.Positive(t, s.Stats().Heartbeats)
	require.Equal(t, int64(1), s.Stats().Transactions, "heartbeats are not delivered")
	require.Positive(t, queryValue[int](d, `select count(*) from pg_logical_slot_peek_changes($1, null, null) where data like '%delta_heartbeat%'`, d.name+"_other"))
	t.Logf("%d MB written, at most %.1f MB retained, %d heartbeats", (last.Confirmed-first.Confirmed)>>20, float64(most)/(1<<20), s.Stats().Heartbeats)
}

// A commit is not visible while it waits for a synchronous standby, although the stream has it already. A chunk that
// was read meanwhile would undo it.
func TestBackfillWaitsForCommitsThatCannotBeSeen(t *testing.T) {
	t.Parallel()
	_, d := newPrivateServer(t)
	config := d.pool.Config().ConnConfig.Copy()
	config.RuntimeParams["synchronous_commit"] = "local"
	d.exec(`create table t (id int primary key, v text)`, `insert into t values (1, 'old'), (2, 'old')`,
		`create publication postgres for all tables`, `select pg_create_logical_replication_slot('postgres', 'pgoutput')`)
	s, err := cdc.Open(t.Context(), cdc.Config{Conn: config, Slot: "postgres", Publications: []string{"postgres"}, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	d.exec(`alter system set synchronous_standby_names = 'nobody'`, `select pg_reload_conf()`)
	// The checkpointer decides whether commits wait, once it has read the setting.
	require.Eventually(t, func() bool {
		ended := make(chan error, 1)
		go func() {
			_, err := d.pool.Exec(t.Context(), `comment on database postgres is 'does this wait?'`)
			ended <- err
		}()
		for len(ended) == 0 {
			if queryValue[bool](d, `select coalesce(bool_or(pg_cancel_backend(pid)), false) from pg_stat_activity where wait_event = 'SyncRep'`) {
				return <-ended == nil
			}
		}
		return false
	}, cdctest.Patience, 10*time.Millisecond)
	committing := make(chan error, 1)
	go func() {
		_, err := d.pool.Exec(t.Context(), `update t set v = 'new' where id = 1`)
		committing <- err
	}()
	_, changes := nextTransaction(t, s)
	require.Equal(t, []string{"update t [1 new]"}, changes)
	require.Equal(t, "old", queryValue[string](d, `select v from t where id = 1`), "the commit is not visible yet")

	b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: "t"})
	require.NoError(t, err)
	// The backfill's query while it waits.
	require.Eventually(t, func() bool {
		return queryValue[int](d, `select count(*) from pg_stat_activity where query like '%pg_locks%' and pid <> pg_backend_pid()`) > 0
	}, cdctest.Patience, time.Millisecond)
	require.Empty(t, committing)
	d.exec(`alter system reset synchronous_standby_names`, `select pg_reload_conf()`)
	require.NoError(t, <-committing)
	_, changes = nextTransaction(t, s)
	require.Equal(t, []string{"read t [1 new]", "read t [2 old]"}, changes)
	require.True(t, isDone(b))
	require.NoError(t, b.Err())
}

// A restarted server gives the same names to other snapshots.
func TestASnapshotThatWasLostIsNotTakenForAnother(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const senders = 4
	s, d := newPrivateServer(t, fmt.Sprint("max_wal_senders=", senders), "autovacuum=off")
	d.exec(`create table t (id int primary key)`, `insert into t values (1)`)
	// The most connections to walsenders, such as the one that holds a snapshot, and of the pool: before Postgres 17 they
	// share names.
	connections := func() (all []*pgx.Conn, free func()) {
		config := d.config()
		config.RuntimeParams["replication"], config.DefaultQueryExecMode = "database", pgx.QueryExecModeSimpleProtocol
		for range senders {
			conn, err := pgx.ConnectConfig(t.Context(), config)
			require.NoError(t, err)
			all = append(all, conn)
		}
		var pooled []*pgxpool.Conn
		for range d.pool.Config().MaxConns {
			conn, err := d.pool.Acquire(t.Context())
			require.NoError(t, err)
			all, pooled = append(all, conn.Conn()), append(pooled, conn)
		}
		return all, func() {
			for _, conn := range all[:senders] {
				_ = conn.Close(context.Background())
			}
			for _, conn := range pooled {
				conn.Release()
			}
		}
	}
	all, free := connections()
	for _, conn := range all { // the names count transactions
		for range 30 {
			_, err := conn.Exec(t.Context(), `select 1`)
			require.NoError(t, err)
		}
	}
	free()
	require.Eventually(t, func() bool {
		return queryValue[int](d, `select count(*) from pg_stat_activity where backend_type = 'walsender'`) == 0
	}, cdctest.Patience, 10*time.Millisecond)
	snapshot, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: d.config(), Slot: "old"})
	require.NoError(t, err)
	t.Cleanup(snapshot.Close)
	s.Stop(syscall.SIGQUIT)
	s.Start()
	d.pool.Reset()
	d.exec(`insert into t values (2)`)

	others, free := connections()
	defer free()
	for name := ""; name != snapshot.Name(); {
		for _, conn := range others {
			if name == snapshot.Name() {
				break
			}
			_, err := conn.Exec(t.Context(), `rollback; begin`)
			require.NoError(t, err)
			require.NoError(t, conn.QueryRow(t.Context(), `select pg_export_snapshot()`).Scan(&name))
		}
		require.Less(t, name[9:], snapshot.Name()[9:]+"~", "the name of the snapshot was skipped")
	}
	page, err := snapshot.Page(t.Context(), "public", "t", nil, 10, 1000)
	require.ErrorIs(t, err, cdc.ErrSnapshotGone, page)
}
