package cdc_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestStatsMeasureTheStream(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	s := d.openStream()
	began := s.Stats()
	require.True(t, began.Connected)
	require.Zero(t, began.Lag)
	require.Zero(t, began.Waiting)
	d.exec(`insert into t values (1)`, `insert into t values (2)`)
	first, _ := nextTransaction(t, s)
	second, _ := nextTransaction(t, s)
	stats := s.Stats()
	require.Equal(t, 2, stats.Waiting)
	require.Equal(t, second.EndLSN, stats.Delivered)
	require.Equal(t, second.EndLSN, stats.Received)
	require.Equal(t, began.Acknowledged, stats.Acknowledged)
	require.Equal(t, int64(2), stats.Transactions)
	require.Equal(t, first.Size+second.Size, stats.Bytes)
	require.Positive(t, stats.LagBytes)
	require.Eventually(t, func() bool { return s.Stats().Lag > 200*time.Millisecond }, cdctest.Patience, 10*time.Millisecond)
	require.NoError(t, s.Ack(first.EndLSN))
	require.Equal(t, 1, s.Stats().Waiting)
	require.Equal(t, first.EndLSN, s.Stats().Confirmed)
	require.NoError(t, s.Ack(second.EndLSN))
	require.Zero(t, s.Stats().Lag)
	require.Eventually(t, func() bool { return s.Stats().LagBytes == 0 }, cdctest.Patience, 10*time.Millisecond, "if nothing waits, the slot follows the server")

	require.True(t, queryValue[bool](d, `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1`, d.name))
	require.Eventually(t, func() bool { return s.Stats().Reconnects >= 1 }, cdctest.Patience, 10*time.Millisecond)
	s.Close()
	require.False(t, s.Stats().Connected)
}

// The delay covers the whole way of a heartbeat: through the server and the queue, to the caller of Next.
func TestStatsMeasureTheDelayByHeartbeats(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	s := d.openStream(func(c *cdc.Config) { c.Heartbeat = 100 * time.Millisecond })
	const late = 2 * time.Second // longer than a heartbeat takes on a busy machine, most of the time
	require.Eventually(t, func() bool { return s.Stats().HeartbeatDelay > 0 }, cdctest.Patience, 10*time.Millisecond, "nothing waits, so it is delivered at once")
	d.exec(`insert into t values (1)`)
	require.Eventually(t, func() bool { return s.Stats().Waiting == 1 }, cdctest.Patience, 10*time.Millisecond)
	waits := s.Stats()
	require.Eventually(t, func() bool {
		now := s.Stats()
		return now.Heartbeats >= waits.Heartbeats+5 && now.HeartbeatDelay > late
	}, cdctest.Patience, 10*time.Millisecond, "a transaction waits for Next, and heartbeats behind it")
	nextTransaction(t, s)
	require.Eventually(t, func() bool { return s.Stats().HeartbeatDelay < late }, cdctest.Patience, 10*time.Millisecond, "later heartbeats do not wait")
}

// Of several heartbeats behind one transaction the oldest counts, and so does a new one that is already late.
func TestTheDelayIsThatOfTheOldestHeartbeat(t *testing.T) {
	t.Parallel()
	at := func(second int) time.Time { return time.Unix(1000+int64(second), 0) }
	h := cdc.NewHeartbeats()
	require.Zero(t, h.Current(at(0)), "there was none")
	for second := range 3 {
		h.Write(at(second))
	}
	require.Equal(t, 5*time.Second, h.Current(at(5)), "the first one is on its way")
	for second := range 3 {
		h.Arrive(at(second), 7)
	}
	h.Deliver(6, at(8))
	require.Equal(t, 9*time.Second, h.Current(at(9)), "they wait behind a transaction that Next has not returned")
	h.Deliver(7, at(10))
	require.Equal(t, 10*time.Second, h.Current(at(20)), "the time of the oldest one, until there is another")
	h.Write(at(21))
	require.Equal(t, 10*time.Second, h.Current(at(22)))
	h.Arrive(at(21), 7)
	h.Deliver(7, at(23))
	require.Equal(t, 2*time.Second, h.Current(at(30)))
	h.Arrive(at(21), 7)
	require.Equal(t, 2*time.Second, h.Current(at(40)), "a heartbeat that is sent again after a lost connection counts once")
}

// If the server sends nothing more, the last good delay must not stay.
func TestTheDelayGrowsWhileNoHeartbeatComesBack(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.newProxy()
	s := d.openStream(func(c *cdc.Config) {
		c.Conn.Host, c.Conn.Port = p.Host, p.Port
		c.Heartbeat, c.Timeout = 100*time.Millisecond, time.Hour
	})
	require.Eventually(t, func() bool { return s.Stats().HeartbeatDelay > 0 }, cdctest.Patience, 10*time.Millisecond)
	p.Freeze()
	require.Eventually(t, func() bool { return s.Stats().HeartbeatDelay > time.Second }, cdctest.Patience, 10*time.Millisecond)
	p.Cut()
	require.Eventually(t, func() bool { return s.Stats().HeartbeatDelay < time.Second }, cdctest.Patience, 10*time.Millisecond, "a new connection has new heartbeats")
}

// With OnlyAcknowledged, a quiet stream still has something to acknowledge.
func TestOnlyAcknowledgedMovesTheSlotByAcks(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table idle (id int primary key)`, `create table busy (v text)`, `create publication `+d.name+` for table idle`)
	s := d.openStream(func(c *cdc.Config) { c.OnlyAcknowledged = true })
	start := d.lookupSlot().Confirmed
	d.exec(`insert into busy select repeat('x', 1000) from generate_series(1, 1000)`)
	end, err := cdc.ParseLSN(queryValue[string](d, `select pg_current_wal_insert_lsn()::text`))
	require.NoError(t, err)
	var last cdc.LSN
	for last < end {
		transaction, changes := nextTransaction(t, s)
		require.Empty(t, changes)
		require.Greater(t, transaction.EndLSN, last)
		require.Equal(t, start, d.lookupSlot().Confirmed, "it does not move by itself")
		if last = transaction.EndLSN; last < end {
			require.NoError(t, s.Ack(last))
			start = last
			require.Eventually(t, func() bool { return d.lookupSlot().Confirmed == last }, cdctest.Patience, 10*time.Millisecond)
		}
	}
	s.Close()
	require.Equal(t, start, d.lookupSlot().Confirmed)
	s = d.openStream(func(c *cdc.Config) { c.OnlyAcknowledged, c.Start = true, last })
	d.exec(`insert into idle values (1)`)
	for changes := []string(nil); len(changes) == 0; {
		_, changes = nextTransaction(t, s)
	}
}

func TestTransactionsHaveTheirOrigin(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	s := d.openStream()
	origin := d.name + "_origin"
	d.exec(`select pg_replication_origin_create('` + origin + `')`)
	conn, err := d.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `select pg_replication_origin_session_setup($1)`, origin)
	require.NoError(t, err)
	for _, sql := range []string{
		`begin`, `select pg_replication_origin_xact_setup('AB/CDEF0123', now())`, `insert into t values (1)`, `commit`,
		`select pg_replication_origin_session_reset()`, `insert into t values (2)`,
	} {
		_, err = conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	t.Cleanup(func() { administer(t, `select pg_replication_origin_drop('`+origin+`')`) })
	first, changes := nextTransaction(t, s)
	require.Equal(t, []string{"insert t [1]"}, changes)
	require.Equal(t, origin, first.Origin)
	require.Equal(t, "AB/CDEF0123", first.OriginLSN.String())
	second, changes := nextTransaction(t, s)
	require.Equal(t, []string{"insert t [2]"}, changes)
	require.Empty(t, second.Origin)
	require.Zero(t, second.OriginLSN)
}
