package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// quiet discards the log of tests that cause errors on purpose.
var quiet = slog.New(slog.DiscardHandler)

// openStream makes a publication of all tables and a slot, both named like the database, and opens the stream.
func (d *database) openStream(change ...func(*cdc.Config)) *cdc.Stream {
	d.tb.Helper()
	ctx := d.tb.Context()
	if err := cdc.CreatePublication(ctx, d.pool, cdc.Publication{Name: d.name, AllTables: true}); !errors.Is(err, cdc.ErrExists) {
		require.NoError(d.tb, err)
	}
	if _, err := cdc.CreateSlot(ctx, d.pool, d.name, cdc.SlotOptions{}); !errors.Is(err, cdc.ErrExists) {
		require.NoError(d.tb, err)
	}
	s, err := cdc.Open(ctx, d.streamConfig(change...))
	// Postgres releases a slot shortly after its reader has closed, and Open itself waits for one second only.
	for end := time.Now().Add(cdctest.Patience); errors.Is(err, cdc.ErrSlotBusy) && time.Now().Before(end); {
		s, err = cdc.Open(ctx, d.streamConfig(change...))
	}
	require.NoError(d.tb, err)
	d.tb.Cleanup(s.Close)
	return s
}

func (d *database) streamConfig(change ...func(*cdc.Config)) cdc.Config {
	config := cdc.Config{
		Conn: d.config(), Slot: d.name, Publications: []string{d.name}, Logger: quiet,
		StatusInterval: 200 * time.Millisecond, Timeout: time.Minute, ShortestRetry: 10 * time.Millisecond, LongestRetry: 200 * time.Millisecond,
	}
	for _, c := range change {
		c(&config)
	}
	return config
}

// nextTransaction returns the next transaction, and its changes as text.
func nextTransaction(tb testing.TB, s *cdc.Stream) (*cdc.Transaction, []string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), cdctest.Patience)
	defer cancel()
	t, err := s.Next(ctx)
	require.NoError(tb, err)
	var changes []string
	for c, err := range t.Changes() {
		require.NoError(tb, err)
		name := ""
		if c.Relation != nil {
			name = " " + c.Relation.Table
		}
		changes = append(changes, fmt.Sprint(c.Kind, name, " ", c.New))
	}
	return t, changes
}

func TestStreamDeliversTransactionsInOrder(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for protocol := 1; protocol <= 2; protocol++ {
		t.Run(fmt.Sprintf("protocol %d", protocol), func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.exec(`create table t (id int primary key, v text)`)
			s := d.openStream(func(c *cdc.Config) { c.Protocol = protocol })
			before := queryValue[time.Time](d, `select clock_timestamp()`)
			d.exec(`insert into t values (1, 'one'), (2, null)`)
			after := queryValue[time.Time](d, `select clock_timestamp()`)
			d.exec(`do $$ begin insert into t values (3, 'three'); delete from t where id = 1; end $$`)

			first, changes := nextTransaction(t, s)
			require.Equal(t, []string{"insert t [1 one]", "insert t [2 NULL]"}, changes)
			require.NotZero(t, first.XID)
			require.Greater(t, first.EndLSN, first.CommitLSN)
			require.WithinRange(t, first.CommitTime, before, after)
			second, changes := nextTransaction(t, s)
			require.Equal(t, []string{"insert t [3 three]", "delete t []"}, changes)
			require.Greater(t, second.EndLSN, first.EndLSN)
			require.NoError(t, s.Ack(second.EndLSN))

			var end string
			require.NoError(t, d.pool.QueryRow(t.Context(), `select pg_logical_emit_message(false, 'mine', 'alone')::text`).Scan(&end))
			d.exec(`insert into t values (4, 'four')`)
			alone, changes := nextTransaction(t, s)
			require.Len(t, changes, 1)
			require.Zero(t, alone.XID)
			require.Equal(t, end, alone.EndLSN.String())
			_, changes = nextTransaction(t, s)
			require.Equal(t, []string{"insert t [4 four]"}, changes)
		})
	}
}

func TestOnlyDeliveredTransactionsCanBeAcknowledged(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	s := d.openStream()
	d.exec(`insert into t values (1)`, `insert into t values (2)`, `insert into t values (3)`)
	first, _ := nextTransaction(t, s)
	second, _ := nextTransaction(t, s)
	refused := func(lsn cdc.LSN, why string) {
		t.Helper()
		var ack *cdc.AckError
		err := s.Ack(lsn)
		require.ErrorAs(t, err, &ack)
		require.ErrorContains(t, err, why)
		require.Equal(t, lsn, ack.LSN)
	}
	refused(0xFF00000000, "beyond what was delivered")
	refused(second.EndLSN+1, "beyond what was delivered")
	refused(second.CommitLSN, "not the end of a transaction")
	require.NoError(t, s.Ack(second.EndLSN))
	require.NoError(t, s.Ack(second.EndLSN), "the last can be repeated")
	refused(first.EndLSN, "behind what is acknowledged")
	refused(0, "behind what is acknowledged")
	require.Eventually(t, func() bool { return d.lookupSlot().Confirmed >= second.EndLSN }, cdctest.Patience, 20*time.Millisecond)
	// Three statuses later, because the first one may have been sent before.
	told := map[time.Time]bool{}
	require.Eventually(t, func() bool {
		told[queryValue[time.Time](d, `select coalesce(max(reply_time), 'epoch') from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid where slot_name = $1`, d.name)] = true
		return len(told) > 3
	}, cdctest.Patience, 20*time.Millisecond)
	confirmed := d.lookupSlot().Confirmed // other tests may have written something between the second and the third

	s.Close()
	s.Close()
	require.ErrorIs(t, s.Ack(second.EndLSN), cdc.ErrClosed)
	_, err := s.Next(t.Context())
	require.ErrorIs(t, err, cdc.ErrClosed)
	s = d.openStream()
	third, changes := nextTransaction(t, s)
	require.Equal(t, []string{"insert t [3]"}, changes, "unacknowledged transactions are delivered again")
	require.Less(t, confirmed, third.CommitLSN, "nothing is confirmed beyond an unacknowledged transaction")
}

func (d *database) lookupSlot() cdc.Slot {
	d.tb.Helper()
	slot, err := cdc.LookupSlot(d.tb.Context(), d.pool, d.name)
	require.NoError(d.tb, err)
	return slot
}

func TestTablesWithoutChangesDoNotKeepWAL(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table idle (id int primary key)`, `create table busy (id int, v text)`,
		`create publication `+d.name+` for table idle`)
	d.openStream()
	start := d.lookupSlot()
	for i := range 10 {
		d.exec(fmt.Sprintf(`insert into busy select i, repeat(md5(i::text), 20) from generate_series(%d, %d) i`, i*2000, i*2000+1999))
	}
	end, err := cdc.ParseLSN(queryValue[string](d, `select pg_current_wal_lsn()::text`))
	require.NoError(t, err)
	require.Greater(t, end, start.Confirmed+10<<20, "the other table writes enough to tell")
	require.Eventually(t, func() bool { return d.lookupSlot().Confirmed >= end }, cdctest.Patience, 50*time.Millisecond)
	// The server removes the WAL after it has logged the running transactions twice.
	require.Eventually(t, func() bool {
		d.exec(`checkpoint`)
		return d.lookupSlot().Restart >= end
	}, cdctest.Patience, 300*time.Millisecond)
}

func TestStreamGoesOnAfterItsWalsenderIsTerminated(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	s := d.openStream()
	d.exec(`insert into t values (1)`, `insert into t values (2)`)
	first, _ := nextTransaction(t, s)
	require.NoError(t, s.Ack(first.EndLSN))
	second, _ := nextTransaction(t, s)
	for i := 3; i < 8; i++ {
		require.True(t, queryValue[bool](d, `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1`, d.name))
		d.exec(fmt.Sprintf(`insert into t values (%d)`, i))
		_, changes := nextTransaction(t, s)
		require.Equal(t, []string{fmt.Sprintf("insert t [%d]", i)}, changes, "nothing is missing, and nothing is delivered twice")
		require.Eventually(t, func() bool { return d.lookupSlot().Active }, cdctest.Patience, 10*time.Millisecond)
	}
	require.NoError(t, s.Ack(second.EndLSN), "transactions of the lost connection can be acknowledged")
}

func TestStreamGoesOnAfterTheNetworkIsCut(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	p := d.newProxy()
	s := d.openStream(func(c *cdc.Config) { c.Conn.Host, c.Conn.Port = p.Host, p.Port })
	for i := range 10 {
		d.exec(fmt.Sprintf(`insert into t values (%d)`, i))
		if i%2 == 1 {
			p.Cut()
		}
		transaction, changes := nextTransaction(t, s)
		require.Equal(t, []string{fmt.Sprintf("insert t [%d]", i)}, changes)
		if i%3 == 0 {
			require.NoError(t, s.Ack(transaction.EndLSN))
		}
	}
}

func TestStreamNoticesASilentNetwork(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	p := d.newProxy()
	d.exec(`create publication ` + d.name + ` for all tables`)
	_, err := cdc.CreateSlot(t.Context(), d.pool, d.name, cdc.SlotOptions{})
	require.NoError(t, err)
	var s *cdc.Stream
	require.Eventually(t, func() bool { // Timeout also bounds connecting
		s, err = cdc.Open(t.Context(), d.streamConfig(func(c *cdc.Config) {
			c.Conn.Host, c.Conn.Port = p.Host, p.Port
			c.Timeout = time.Second
		}))
		return err == nil
	}, cdctest.Patience, time.Millisecond)
	t.Cleanup(s.Close)
	d.exec(`insert into t values (1)`)
	nextTransaction(t, s)
	p.Freeze()
	d.exec(`insert into t values (2)`)
	// The walsender does not notice, and keeps the slot.
	require.Eventually(t, func() bool {
		return queryValue[bool](d, `select coalesce(bool_or(pg_terminate_backend(active_pid)), false) from pg_replication_slots where slot_name = $1`, d.name)
	}, cdctest.Patience, 10*time.Millisecond)
	_, changes := nextTransaction(t, s)
	require.Equal(t, []string{"insert t [2]"}, changes)
}

func TestLostSlotsNeedAResync(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for reason, harm := range map[cdc.ResyncReason]string{
		cdc.SlotMissing:  `select pg_drop_replication_slot('%s')`,
		cdc.SlotAdvanced: `select pg_replication_slot_advance('%s', pg_current_wal_lsn())`,
	} {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.exec(`create table t (id int primary key)`)
			p := d.newProxy()
			s := d.openStream(func(c *cdc.Config) { c.Conn.Host, c.Conn.Port = p.Host, p.Port })
			d.exec(`insert into t values (1)`)
			first, _ := nextTransaction(t, s)
			require.NoError(t, s.Ack(first.EndLSN))
			d.exec(`insert into t values (2)`)
			nextTransaction(t, s)
			p.Refuse()
			d.exec(`insert into t values (3)`)
			require.Eventually(t, func() bool { return !d.lookupSlot().Active }, cdctest.Patience, 10*time.Millisecond)
			d.exec(fmt.Sprintf(harm, d.name))
			p.Accept()
			ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
			defer cancel()
			var err error
			for err == nil {
				_, err = s.Next(ctx)
			}
			require.ErrorIs(t, err, cdc.ErrResyncNeeded)
			var resync *cdc.ResyncError
			require.ErrorAs(t, err, &resync)
			require.Equal(t, reason, resync.Reason)
			_, err = cdc.Open(t.Context(), d.streamConfig(func(c *cdc.Config) { c.Start = first.EndLSN }))
			require.ErrorIs(t, err, cdc.ErrResyncNeeded)
		})
	}
}

func TestASlotHasOneReader(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.openStream()
	_, err := cdc.Open(t.Context(), d.streamConfig())
	require.ErrorIs(t, err, cdc.ErrSlotBusy)
	require.ErrorIs(t, cdc.DropSlot(t.Context(), d.pool, d.name), cdc.ErrSlotBusy)
}
