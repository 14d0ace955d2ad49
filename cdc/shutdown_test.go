//go:build linux

package cdc_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// Stop waits until the server has stopped. The server used to wait for an acknowledgement for ever.
func TestAConsumerThatDoesNotAcknowledgeLetsTheServerStop(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	s, d := newPrivateServer(t)
	d.exec(`create table t (id int primary key)`)
	stream := s.stream(d)
	d.exec(`insert into t values (1)`)
	first, _ := nextTransaction(t, stream)
	require.NoError(t, stream.Ack(first.EndLSN))
	require.Eventually(t, func() bool { return d.lookupSlot().Confirmed >= first.EndLSN }, cdctest.Patience, time.Millisecond)
	d.exec(`insert into t values (2)`, `insert into t values (3)`)
	second, changes := nextTransaction(t, stream)
	require.Equal(t, []string{"insert t [2]"}, changes)
	nextTransaction(t, stream)
	before := d.lookupSlot().Confirmed
	require.Less(t, before, second.EndLSN)

	s.Stop(syscall.SIGINT)
	s.Start()
	d.pool.Reset()
	// Before Postgres 17 a server that stops may forget the last confirmations. The stream repeats them on its next connection.
	// It may also have confirmed a little more by now, such as the log before the second transaction.
	require.Eventually(t, func() bool { return d.lookupSlot().Confirmed >= before }, cdctest.Patience, time.Millisecond)
	require.Less(t, d.lookupSlot().Confirmed, second.EndLSN)
	d.exec(`insert into t values (4)`)
	_, changes = nextTransaction(t, stream)
	require.Equal(t, []string{"insert t [4]"}, changes, "within one stream nothing is delivered twice")

	stream = s.reopen(d, stream)
	for id := 2; id <= 4; id++ {
		transaction, changes := nextTransaction(t, stream)
		require.Equal(t, []string{fmt.Sprintf("insert t [%d]", id)}, changes, "unacknowledged transactions are delivered again")
		require.NoError(t, stream.Ack(transaction.EndLSN))
	}
}

// The consumer does not even receive: the server has more to send than fits into the buffers.
func TestAConsumerThatDoesNotReadLetsTheServerStop(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	s, d := newPrivateServer(t)
	d.exec(`create table t (id int primary key, v text)`, `create publication postgres for all tables`,
		`select pg_create_logical_replication_slot('postgres', 'pgoutput')`)
	stream, err := cdc.Open(t.Context(), cdc.Config{
		Conn: d.config(), Slot: "postgres", Publications: []string{"postgres"}, Logger: quiet, MemoryLimit: 64 << 10,
		StatusInterval: 200 * time.Millisecond, Timeout: time.Minute, ShortestRetry: 10 * time.Millisecond, LongestRetry: 200 * time.Millisecond,
	})
	require.NoError(t, err)
	t.Cleanup(stream.Close)
	const transactions = 400
	for i := range transactions { // 40 MB, which no buffer of a connection holds
		d.exec(fmt.Sprintf(`insert into t values (%d, repeat('x', 100000))`, i))
	}
	require.Eventually(t, func() bool {
		return queryValue[int](d, `select count(*) from pg_stat_activity where wait_event = 'WalSenderWriteData'`) == 1
	}, cdctest.Patience, 10*time.Millisecond)
	s.Stop(syscall.SIGINT)
	s.Start()
	for i := range transactions {
		ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
		transaction, err := stream.Next(ctx)
		cancel()
		require.NoError(t, err)
		for change, err := range transaction.Changes() {
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), change.New[0].Text, "each once, in order")
		}
		require.NoError(t, stream.Ack(transaction.EndLSN))
	}
	require.Positive(t, stream.Stats().Reconnects)
}

// A position is reported as flushed once. Features that depend on it still work: on a quiet database the slot follows
// the server, and the server knows its lag.
func TestAFlushIsReportedOnce(t *testing.T) {
	t.Parallel()
	_, d := newPrivateServer(t)
	d.exec(`create table t (id int primary key)`, `create table other (id int primary key)`)
	d.exec(`create publication postgres for table t`, `select pg_create_logical_replication_slot('postgres', 'pgoutput')`)
	stream, err := cdc.Open(t.Context(), cdc.Config{
		Conn: d.config(), Slot: "postgres", Publications: []string{"postgres"}, Logger: quiet, StatusInterval: 50 * time.Millisecond, Timeout: time.Minute,
	})
	require.NoError(t, err)
	t.Cleanup(stream.Close)
	flushed := func() bool {
		return queryValue[bool](d, `select count(flush_lsn) > 0 from pg_stat_replication`)
	}
	d.exec(`insert into t values (1)`)
	transaction, _ := nextTransaction(t, stream)
	require.NoError(t, stream.Ack(transaction.EndLSN))
	require.Eventually(t, func() bool { return d.lookupSlot().Confirmed >= transaction.EndLSN }, cdctest.Patience, time.Millisecond)
	require.Eventually(t, func() bool { return !flushed() }, cdctest.Patience, time.Millisecond)
	for i := range 3 {
		d.exec(fmt.Sprintf(`insert into other values (%d)`, i))
		end, err := cdc.ParseLSN(queryValue[string](d, `select pg_current_wal_lsn()::text`))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return d.lookupSlot().Confirmed >= end }, cdctest.Patience, time.Millisecond)
	}
	require.Eventually(t, func() bool {
		lag := d.lookupSlot().LagTime
		return lag != nil && *lag == 0
	}, cdctest.Patience, time.Millisecond, "nothing is left to confirm")
}
