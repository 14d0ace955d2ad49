package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// openFanout makes a publication of all tables and a slot, named like the database, and a fan-out for a and b.
func (d *database) openFanout(change ...func(*cdc.FanoutConfig)) *cdc.Fanout {
	d.tb.Helper()
	ctx := d.tb.Context()
	if err := cdc.CreatePublication(ctx, d.pool, cdc.Publication{Name: d.name, AllTables: true}); !errors.Is(err, cdc.ErrExists) {
		require.NoError(d.tb, err)
	}
	if _, err := cdc.CreateSlot(ctx, d.pool, d.name, cdc.SlotOptions{}); !errors.Is(err, cdc.ErrExists) {
		require.NoError(d.tb, err)
	}
	config := cdc.FanoutConfig{Config: d.streamConfig(), Consumers: []string{"a", "b"}}
	for _, c := range change {
		c(&config)
	}
	f, err := cdc.OpenFanout(ctx, config)
	for end := time.Now().Add(cdctest.Patience); errors.Is(err, cdc.ErrSlotBusy) && time.Now().Before(end); {
		f, err = cdc.OpenFanout(ctx, config)
	}
	require.NoError(d.tb, err)
	d.tb.Cleanup(f.Close)
	return f
}

// smallBuffer configures a fan-out that cuts a consumer as soon as another one waits.
func smallBuffer(c *cdc.FanoutConfig) { c.BufferLimit, c.SlowConsumerTimeout = 64<<10, -1 }

func attachConsumer(tb testing.TB, f *cdc.Fanout, name string, after cdc.LSN) *cdc.Consumer {
	tb.Helper()
	c, err := f.Attach(name, after)
	require.NoError(tb, err)
	tb.Cleanup(c.Close)
	return c
}

// takeTransaction returns the next transaction with changes, and the changes as text. It acknowledges empty ones.
func takeTransaction(tb testing.TB, c *cdc.Consumer) (*cdc.Transaction, []string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), cdctest.Patience)
	defer cancel()
	for {
		t, err := c.Next(ctx)
		require.NoError(tb, err)
		changes := changeTexts(tb, t)
		if len(changes) > 0 {
			return t, changes
		}
		require.NoError(tb, c.Ack(t.EndLSN))
	}
}

func changeTexts(tb testing.TB, t *cdc.Transaction) (all []string) {
	tb.Helper()
	for change, err := range t.Changes() {
		require.NoError(tb, err)
		all = append(all, fmt.Sprint(change.Kind, " ", change.New))
	}
	return all
}

// waitConfirmed waits until the slot is confirmed up to a position.
func (d *database) waitConfirmed(lsn cdc.LSN) {
	d.tb.Helper()
	for began := time.Now(); queryValue[bool](d, `select confirmed_flush_lsn < $1::pg_lsn from pg_replication_slots where slot_name = $2`, lsn.String(), d.name); {
		require.Less(d.tb, time.Since(began), cdctest.Patience, "the slot stays behind %s", lsn)
		time.Sleep(10 * time.Millisecond)
	}
}

func statusOf(tb testing.TB, f *cdc.Fanout, name string) cdc.ConsumerStatus {
	tb.Helper()
	for _, s := range f.Consumers() {
		if s.Name == name {
			return s
		}
	}
	require.FailNow(tb, "there is no consumer "+name)
	return cdc.ConsumerStatus{}
}

func TestConsumersOfOneSlotHavePositionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	f := d.openFanout()
	a, b := attachConsumer(t, f, "a", 0), attachConsumer(t, f, "b", 0)
	d.exec(`insert into t values (1)`, `insert into t values (2)`, `insert into t values (3)`)
	var ends []cdc.LSN
	for i := range 3 {
		transaction, changes := takeTransaction(t, a)
		require.Equal(t, []string{fmt.Sprintf("insert [%d]", i+1)}, changes)
		ends = append(ends, transaction.EndLSN)
	}
	require.NoError(t, a.Ack(ends[2]))
	first, changes := takeTransaction(t, b)
	require.Equal(t, []string{"insert [1]"}, changes)
	require.NoError(t, b.Ack(first.EndLSN))
	takeTransaction(t, b) // not acknowledged
	d.waitConfirmed(ends[0])
	require.True(t, queryValue[bool](d, `select confirmed_flush_lsn < $1::pg_lsn from pg_replication_slots where slot_name = $2`, ends[1].String(), d.name),
		"b may need it")

	b.Close()
	b = attachConsumer(t, f, "b", 0)
	_, changes = takeTransaction(t, b)
	require.Equal(t, []string{"insert [2]"}, changes, "unacknowledged transactions are delivered again")
	b.Close()
	b = attachConsumer(t, f, "b", ends[1])
	_, changes = takeTransaction(t, b)
	require.Equal(t, []string{"insert [3]"}, changes, "transactions that it has processed are not")

	d.waitConfirmed(ends[1]) // before Close, because unconfirmed transactions are delivered again
	f.Close()
	_, err := a.Next(t.Context())
	require.ErrorIs(t, err, cdc.ErrClosed)
	f = d.openFanout()
	a, b = attachConsumer(t, f, "a", ends[2]), attachConsumer(t, f, "b", 0)
	d.exec(`insert into t values (4)`)
	_, changes = takeTransaction(t, a)
	require.Equal(t, []string{"insert [4]"}, changes)
	_, changes = takeTransaction(t, b)
	require.Equal(t, []string{"insert [3]"}, changes, "the slot has kept it")
}

func TestASlowConsumerIsCutAndStartsOver(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`)
	f := d.openFanout(smallBuffer)
	a, b := attachConsumer(t, f, "a", 0), attachConsumer(t, f, "b", 0)
	var last *cdc.Transaction
	for i := range 100 {
		d.exec(fmt.Sprintf(`insert into t values (%d, repeat('x', 2000))`, i))
		last, _ = takeTransaction(t, a)
		require.NoError(t, a.Ack(last.EndLSN))
	}
	_, err := b.Next(t.Context())
	var resync *cdc.ResyncError
	require.ErrorAs(t, err, &resync)
	require.ErrorIs(t, err, cdc.ErrResyncNeeded)
	require.Equal(t, cdc.ConsumerCut, resync.Reason)
	require.ErrorIs(t, b.Ack(last.EndLSN), cdc.ErrResyncNeeded)
	require.True(t, statusOf(t, f, "b").Lost)
	d.waitConfirmed(last.EndLSN) // nothing is kept for b
	b.Close()
	_, err = f.Attach("b", 0)
	require.ErrorIs(t, err, cdc.ErrResyncNeeded)

	// The buffer has space for everything from here on, whichever consumer reads first.
	d.exec(`update t set v = 'short'`)
	last, changes := takeTransaction(t, a)
	require.Len(t, changes, 100)
	require.NoError(t, a.Ack(last.EndLSN))
	b, err = f.Join("b")
	require.NoError(t, err)
	defer b.Close()
	backfill, err := f.Backfill(t.Context(), "b", cdc.BackfillConfig{Table: "t"})
	require.NoError(t, err)
	go func() { // the end for both
		<-backfill.Done()
		_, _ = d.pool.Exec(context.Background(), `insert into t values (1000, 'end')`)
	}()
	reads := 0
	for ended := false; !ended; {
		transaction, changes := takeTransaction(t, b)
		require.NoError(t, b.Ack(transaction.EndLSN))
		for _, change := range changes {
			ended = ended || change == "insert [1000 end]"
			if strings.HasPrefix(change, "read") {
				reads++
			}
		}
	}
	require.Equal(t, 100, reads)
	_, changes = takeTransaction(t, a)
	require.Equal(t, []string{"insert [1000 end]"}, changes, "a gets nothing of the backfill")
}

// The slot does not wait for a removed consumer, and keeps later changes for an added one.
func TestConsumersAreAddedAndRemovedWhileOthersRead(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	f := d.openFanout()
	a, b := attachConsumer(t, f, "a", 0), attachConsumer(t, f, "b", 0)
	d.exec(`insert into t values (1)`, `insert into t values (2)`)
	takeTransaction(t, a)
	last, _ := takeTransaction(t, a)
	require.NoError(t, a.Ack(last.EndLSN))
	first, _ := takeTransaction(t, b) // without acknowledging anything
	require.Positive(t, statusOf(t, f, "b").LagBytes)
	require.True(t, queryValue[bool](d, `select confirmed_flush_lsn < $1::pg_lsn from pg_replication_slots where slot_name = $2`, first.EndLSN.String(), d.name))
	require.NoError(t, f.Remove("b"))
	d.waitConfirmed(last.EndLSN)
	_, err := b.Next(t.Context())
	require.ErrorIs(t, err, cdc.ErrConsumerRemoved)
	require.ErrorIs(t, b.Ack(first.EndLSN), cdc.ErrConsumerRemoved)
	for _, change := range []func(string) error{f.Remove, func(name string) error { _, err := f.Attach(name, 0); return err }} {
		wrong := new(cdc.InvalidError)
		require.ErrorAs(t, change("b"), &wrong)
		require.Equal(t, cdc.FieldConsumers, wrong.Field)
	}

	require.NoError(t, f.Add("c"))
	require.Error(t, f.Add("c"))
	require.Error(t, f.Add(""))
	d.exec(`insert into t values (3)`)
	for _, reader := range []*cdc.Consumer{a, attachConsumer(t, f, "c", 0)} {
		transaction, changes := takeTransaction(t, reader)
		require.Equal(t, []string{"insert [3]"}, changes)
		require.NoError(t, reader.Ack(transaction.EndLSN))
	}
}

// Done is closed when the stream has read the last rows. The consumer may not have read any of them yet, so it needs
// BackfillEnds.
func TestBackfillEndsIsSetWithAConsumersLastRows(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`, `insert into t select generate_series(1, 25)`)
	f := d.openFanout()
	a, b := attachConsumer(t, f, "a", 0), attachConsumer(t, f, "b", 0)
	backfill, err := f.Backfill(t.Context(), "a", cdc.BackfillConfig{Table: "t", ChunkSize: 10})
	require.NoError(t, err)
	<-backfill.Done()
	d.exec(`insert into t values (1000)`)
	read := 0
	for ended := false; !ended; {
		ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
		transaction, err := a.Next(ctx)
		cancel()
		require.NoError(t, err)
		read += len(changeTexts(t, transaction))
		ended = transaction.BackfillEnds
		require.Equal(t, transaction.Backfill == backfill, transaction.Backfill != nil)
	}
	require.Equal(t, 25, read, "all rows have arrived by then, and nothing else")
	_, changes := takeTransaction(t, a)
	require.Equal(t, []string{"insert [1000]"}, changes)
	for range 10 {
		transaction, err := b.Next(t.Context())
		require.NoError(t, err)
		require.False(t, transaction.BackfillEnds, "it is the backfill of another consumer")
		if len(changeTexts(t, transaction)) > 0 {
			return
		}
	}
	require.Fail(t, "b has nothing")
}

func TestNoConsumerIsCutWhileAllAreDetached(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`)
	f := d.openFanout(smallBuffer)
	for i := range 100 {
		d.exec(fmt.Sprintf(`insert into t values (%d, repeat('x', 2000))`, i))
	}
	for began := time.Now(); statusOf(t, f, "a").Waiting < 20; { // the buffer has space for some 25
		require.Less(t, time.Since(began), cdctest.Patience)
		time.Sleep(10 * time.Millisecond)
	}
	a, b := attachConsumer(t, f, "a", 0), attachConsumer(t, f, "b", 0)
	for i := range 100 {
		for _, c := range []*cdc.Consumer{a, b} {
			transaction, changes := takeTransaction(t, c)
			require.True(t, strings.HasPrefix(changes[0], fmt.Sprintf("insert [%d ", i)))
			require.NoError(t, c.Ack(transaction.EndLSN))
		}
	}
}

func TestAnUnacknowledgingConsumerContinuesButCannotReattach(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`)
	f := d.openFanout(smallBuffer, func(c *cdc.FanoutConfig) { c.Consumers = []string{"a"} })
	a := attachConsumer(t, f, "a", 0)
	for i := range 100 {
		d.exec(fmt.Sprintf(`insert into t values (%d, repeat('x', 2000))`, i))
		_, changes := takeTransaction(t, a)
		require.True(t, strings.HasPrefix(changes[0], fmt.Sprintf("insert [%d ", i)))
	}
	a.Close()
	_, err := f.Attach("a", 0)
	require.ErrorIs(t, err, cdc.ErrResyncNeeded, "the buffer has dropped the next transaction")
	f.Close()
	f = d.openFanout()
	_, changes := takeTransaction(t, attachConsumer(t, f, "a", 0))
	require.True(t, strings.HasPrefix(changes[0], "insert [0 "), "the slot has kept it")
}

func TestALargeTransactionReachesEachConsumerInParts(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`)
	f := d.openFanout(func(c *cdc.FanoutConfig) { c.BufferLimit, c.SlowConsumerTimeout = 1<<20, time.Hour })
	a, b := attachConsumer(t, f, "a", 0), attachConsumer(t, f, "b", 0)
	d.exec(`insert into t select i, repeat('x', 1000) from generate_series(1, 5000) i`, `insert into t values (0, 'after')`)
	read := make(chan error, 1)
	go func() {
		read <- func() error {
			for large := true; ; {
				transaction, err := b.Next(context.WithoutCancel(t.Context()))
				if err != nil {
					return err
				}
				for change, err := range transaction.Changes() {
					switch {
					case err != nil:
						return err
					case change.New[1].Text == "after":
						return nil
					case !large:
						return fmt.Errorf("%s of %v came after the large transaction", change.Kind, change.New[0])
					}
					large = false
					break // Next skips the rest
				}
				if err := b.Ack(transaction.EndLSN); err != nil {
					return err
				}
			}
		}()
	}()
	transaction, changes := takeTransaction(t, a)
	require.Len(t, changes, 5000)
	require.Empty(t, changeTexts(t, transaction), "changes are read once")
	require.NoError(t, <-read)
	_, changes = takeTransaction(t, a)
	require.Equal(t, []string{"insert [0 after]"}, changes)
}

func TestWrongUseOfAFanoutIsRefused(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	f := d.openFanout()
	refusedField := func(err error, field cdc.Field) {
		t.Helper()
		var wrong *cdc.InvalidError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, field, wrong.Field)
	}
	for field, change := range map[cdc.Field]func(*cdc.FanoutConfig){
		cdc.FieldConsumers:   func(c *cdc.FanoutConfig) { c.Consumers = []string{"a", "a"} },
		cdc.FieldBufferLimit: func(c *cdc.FanoutConfig) { c.BufferLimit = 1 },
		cdc.FieldSlot:        func(c *cdc.FanoutConfig) { c.Temporary = true },
	} {
		config := cdc.FanoutConfig{Config: d.streamConfig(), Consumers: []string{"a"}}
		change(&config)
		_, err := cdc.OpenFanout(t.Context(), config)
		refusedField(err, field)
	}
	_, err := f.Attach("c", 0)
	refusedField(err, cdc.FieldConsumers)
	_, err = f.Backfill(t.Context(), "c", cdc.BackfillConfig{Table: "t"})
	refusedField(err, cdc.FieldConsumers)
	_, err = f.Backfill(t.Context(), "a", cdc.BackfillConfig{Table: "t", Token: "x"})
	refusedField(err, cdc.FieldToken)

	a := attachConsumer(t, f, "a", 0)
	_, err = f.Attach("a", 0)
	require.ErrorIs(t, err, cdc.ErrConsumerBusy)
	d.exec(`insert into t values (1)`, `insert into t values (2)`)
	first, _ := takeTransaction(t, a)
	var ack *cdc.AckError
	require.ErrorAs(t, a.Ack(first.EndLSN+1), &ack)
	require.NoError(t, a.Ack(first.EndLSN))
	require.NoError(t, a.Ack(first.EndLSN), "again")
	require.ErrorAs(t, a.Ack(first.EndLSN-1), &ack)
	second, _ := takeTransaction(t, a)
	a.Close()
	require.ErrorIs(t, a.Ack(second.EndLSN), cdc.ErrClosed)
	_, err = a.Next(t.Context())
	require.ErrorIs(t, err, cdc.ErrClosed)
	_, err = f.Attach("a", first.EndLSN-1)
	require.ErrorIs(t, err, cdc.ErrResyncNeeded)
	between := attachConsumer(t, f, "a", second.EndLSN-1) // like the end of an empty transaction, which is not delivered again
	_, changes := takeTransaction(t, between)
	require.Equal(t, []string{"insert [2]"}, changes)
	between.Close()
	_, changes = takeTransaction(t, attachConsumer(t, f, "a", 0))
	require.Equal(t, []string{"insert [2]"}, changes, "it has confirmed nothing")
}
