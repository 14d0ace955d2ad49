package cdc_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// watchHeap measures the memory in use, without garbage, until peak is called, which returns the largest increase.
func watchHeap(t *testing.T) (peak func() uint64) {
	t.Helper()
	before := debug.SetGCPercent(10)
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	live := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	runtime.GC()
	first, most, stop, done := live(), uint64(0), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			most = max(most, live())
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-done
		debug.SetGCPercent(before)
		return most - min(most, first)
	}
}

// Not parallel, because it measures memory.
func TestLargeTransactionsPassInBoundedMemory(t *testing.T) {
	soak.Long(t)
	for protocol := 1; protocol <= 2; protocol++ {
		t.Run(fmt.Sprintf("protocol %d", protocol), func(t *testing.T) {
			d := newDatabase(t)
			d.exec(`create table t (id int primary key, v text)`)
			folder := t.TempDir()
			s := d.openStream(func(c *cdc.Config) {
				c.Protocol, c.MemoryLimit, c.SpillFolder = protocol, 1<<20, folder
			})
			const rows = 200_000
			peak := watchHeap(t)
			d.exec(fmt.Sprintf(`insert into t select i, repeat(md5(i::text), 6) from generate_series(1, %d) i`, rows))
			ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
			defer cancel()
			large, err := s.Next(ctx)
			require.NoError(t, err)
			n := 0
			for change, err := range large.Changes() {
				n++
				if err != nil || change.New[0].Text != fmt.Sprint(n) {
					require.NoError(t, err)
					require.Equal(t, fmt.Sprint(n), change.New[0].Text)
				}
			}
			most := peak()
			require.Equal(t, rows, n)
			require.True(t, large.Spilled)
			require.Greater(t, large.Size, int64(rows*192))
			require.Less(t, most, uint64(4<<20))
			t.Logf("%d rows, %d MB, at most %.1f MB of heap more", n, large.Size>>20, float64(most)/(1<<20))
			require.NoError(t, s.Ack(large.EndLSN))
			d.exec(`insert into t values (0, '')`)
			_, changes := nextTransaction(t, s)
			require.Equal(t, []string{"insert t [0 ]"}, changes)
			left, err := os.ReadDir(folder)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestTransactionsBeyondTheLimitAreRefused(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int64{"no files": -1, "small files": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.exec(`create table t (id int primary key, v text)`)
			s := d.openStream(func(c *cdc.Config) { c.MemoryLimit, c.SpillLimit = 64<<10, limit })
			d.exec(`insert into t values (0, '')`, `insert into t select i, repeat('x', 1000) from generate_series(1, 5000) i`)
			_, changes := nextTransaction(t, s)
			require.Equal(t, []string{"insert t [0 ]"}, changes, "transactions before it are delivered")
			_, err := s.Next(t.Context())
			var large *cdc.TooLargeError
			require.ErrorAs(t, err, &large)
			require.NotZero(t, large.XID)
			_, again := s.Next(t.Context())
			require.Equal(t, err, again)
		})
	}
}

// With protocol 2, pieces of several transactions are interleaved, and rolled-back parts are sent too.
func TestStreamedTransactionsAreWhole(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`)
	s := d.openStream(func(c *cdc.Config) {
		c.MemoryLimit = 256 << 10
		c.Conn.RuntimeParams["logical_decoding_work_mem"] = "64kB"
	})
	ctx := t.Context()
	fill := func(from, to int) string {
		return fmt.Sprintf(`insert into t select i, repeat('x', 100) from generate_series(%d, %d) i`, from, to)
	}
	a, err := d.pool.Begin(ctx)
	require.NoError(t, err)
	b, err := d.pool.Begin(ctx)
	require.NoError(t, err)
	c, err := d.pool.Begin(ctx)
	require.NoError(t, err)
	run := func(tx pgx.Tx, sql string) {
		t.Helper()
		_, err := tx.Exec(ctx, sql)
		require.NoError(t, err, sql)
	}
	run(a, fill(1, 2000))
	run(b, fill(10001, 12000))
	run(a, `savepoint s`)
	run(a, fill(2001, 4000))
	run(c, fill(20001, 23000))
	d.exec(`insert into t values (99999, 'small')`)
	run(a, `rollback to s`)
	run(a, fill(5001, 6000))
	run(b, fill(12001, 13000))
	require.NoError(t, c.Rollback(ctx))
	require.NoError(t, b.Commit(ctx))
	require.NoError(t, a.Commit(ctx))

	small, changes := nextTransaction(t, s)
	require.Len(t, changes, 1)
	second, changes := nextTransaction(t, s)
	require.Len(t, changes, 3000)
	require.Contains(t, changes[2999], "[13000 ")
	require.Greater(t, second.EndLSN, small.EndLSN)
	_, changes = nextTransaction(t, s)
	require.Len(t, changes, 3000, "changes that were rolled back are missing")
	require.Contains(t, changes[1999], "[2000 ")
	require.Contains(t, changes[2000], "[5001 ")
}

func TestASlowConsumerBlocksTheServer(t *testing.T) {
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`)
	s := d.openStream(func(c *cdc.Config) { c.MemoryLimit = 256 << 10 })
	peak := watchHeap(t)
	const transactions, rows = 300, 100
	for i := range transactions { // 30 MB
		d.exec(fmt.Sprintf(`insert into t select i, repeat('x', 1000) from generate_series(%d, %d) i`, i*rows, i*rows+rows-1))
	}
	// The server is blocked for good: it could not send for a while, although there is more.
	end, err := cdc.ParseLSN(queryValue[string](d, `select pg_current_wal_insert_lsn()::text`))
	require.NoError(t, err)
	var at, before string
	for same, patience := 0, time.Now().Add(cdctest.Patience); same < 5; time.Sleep(100 * time.Millisecond) {
		require.True(t, time.Now().Before(patience), "at %s of %s: the server is not blocked", at, end)
		before = at
		at = queryValue[string](d, `select coalesce(max(sent_lsn::text), '') from pg_stat_replication r join pg_stat_activity a using (pid)
			join pg_replication_slots s on s.active_pid = pid where slot_name = $1 and wait_event = 'WalSenderWriteData'`, d.name)
		if same++; at == "" || at != before {
			same = 0
		}
	}
	sent, err := cdc.ParseLSN(at)
	require.NoError(t, err)
	require.Less(t, sent, end)
	most := peak()
	require.Less(t, most, uint64(2<<20))
	t.Logf("at most %.1f MB of heap more", float64(most)/(1<<20))
	require.True(t, d.lookupSlot().Active)
	for i := range transactions {
		transaction, changes := nextTransaction(t, s)
		require.Len(t, changes, rows)
		require.Contains(t, changes[0], fmt.Sprintf("[%d ", i*rows))
		require.NoError(t, s.Ack(transaction.EndLSN))
	}
}
