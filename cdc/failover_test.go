//go:build linux

package cdc_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// newFailoverPair starts a primary and a standby with a copy of the slot named postgres.
func newFailoverPair(t *testing.T, settings ...string) (primary *privateServer, p *database, standby *cdctest.Private, both *pgx.ConnConfig) {
	t.Helper()
	newDatabase(t).NeedsVersion(17)
	primary, p = newPrivateServer(t, settings...)
	p.exec(`create table t (id int primary key)`, `create publication postgres for table t`, `select pg_create_physical_replication_slot('standby', true)`)
	standby = primary.Standby("wal_level=logical", "hot_standby_feedback=on", "primary_slot_name=standby", "sync_replication_slots=on",
		fmt.Sprintf("primary_conninfo=host=127.0.0.1 port=%d user=postgres dbname=postgres", p.config().Port))
	_, err := cdc.CreateSlot(t.Context(), p.pool, "postgres", cdc.SlotOptions{Failover: true})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		p.exec(`select pg_log_standby_snapshot()`) // the standby's slot can start there
		return cdctest.Query[bool](standby.Database, `select exists (select from pg_replication_slots where slot_name = 'postgres' and synced and not temporary)`)
	}, cdctest.Patience, 200*time.Millisecond)
	both, err = pgx.ParseConfig(fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?sslmode=disable", p.config().Port, standby.Config().Port))
	require.NoError(t, err)
	return primary, p, standby, both
}

// The primary is killed during writes, and its standby is promoted. The Stream continues there by itself: all that it
// has delivered equals the rows of the new primary, each once and in order.
func TestStreamGoesOnAtTheStandbyThatIsPromoted(t *testing.T) {
	t.Parallel()
	primary, p, standby, both := newFailoverPair(t, "synchronized_standby_slots=standby")
	tooEarly := make(said, 100)
	stream, err := cdc.Open(t.Context(), p.streamConfig(func(c *cdc.Config) {
		c.Conn, c.Logger = both, slog.New(slog.NewTextHandler(tooEarly, nil))
	}))
	require.NoError(t, err)
	t.Cleanup(stream.Close)

	var writer sync.WaitGroup
	writer.Go(func() {
		for id := 1; ; id++ {
			if _, err := p.pool.Exec(t.Context(), `insert into t values ($1)`, id); err != nil {
				return // the primary was killed
			}
		}
	})
	var delivered []string
	read := func(until func() bool) {
		for !until() {
			transaction, changes := nextTransaction(t, stream)
			delivered = append(delivered, changes...)
			if len(delivered)%3 == 0 {
				require.NoError(t, stream.Ack(transaction.EndLSN))
			}
		}
	}
	read(func() bool { return len(delivered) >= 500 })
	primary.Stop(syscall.SIGQUIT)
	writer.Wait()
	require.Eventually(t, func() bool {
		select {
		case line := <-tooEarly:
			return strings.Contains(line, "is a standby")
		default:
			return false
		}
	}, cdctest.Patience, time.Millisecond)
	standby.Exec(`select pg_promote()`, `insert into t values (1000000)`)
	last := "insert t [1000000]"
	read(func() bool { return delivered[len(delivered)-1] == last })

	rows, err := standby.Pool.Query(context.Background(), `select 'insert t [' || id || ']' from t order by id`)
	require.NoError(t, err)
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, there, delivered)
	slot, err := cdc.LookupSlot(t.Context(), standby.Pool, "postgres")
	require.NoError(t, err)
	require.True(t, slot.Failover)
	require.True(t, slot.Active)
	t.Logf("%d rows, reconnects: %d", len(there), stream.Stats().Reconnects)
}

// A standby that the primary has not waited for is promoted without the changes that were delivered last. Its later
// changes have the same positions in the log, and must not be mistaken for the earlier ones.
func TestChangesLostInAFailoverNeedAResync(t *testing.T) {
	t.Parallel()
	primary, p, standby, both := newFailoverPair(t)
	stream, err := cdc.Open(t.Context(), p.streamConfig(func(c *cdc.Config) { c.Conn = both }))
	require.NoError(t, err)
	t.Cleanup(stream.Close)
	p.exec(`insert into t values (1)`)
	transaction, changes := nextTransaction(t, stream)
	require.Equal(t, []string{"insert t [1]"}, changes)
	require.NoError(t, stream.Ack(transaction.EndLSN))
	disconnectStandby(t, p, standby)
	p.exec(`insert into t select generate_series(100, 1000)`)
	_, changes = nextTransaction(t, stream)
	require.Len(t, changes, 901)
	primary.Stop(syscall.SIGQUIT)
	standby.Exec(`select pg_promote()`, `insert into t values (2)`)

	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	_, err = stream.Next(ctx)
	var resync *cdc.ResyncError
	require.ErrorAs(t, err, &resync)
	require.Equal(t, cdc.SlotDiverged, resync.Reason)
}

// The lost changes are not in the publication; the stream only knew the end of the log.
func TestLostChangesOfOtherTablesNeedNoResync(t *testing.T) {
	t.Parallel()
	primary, p, standby, both := newFailoverPair(t)
	p.exec(`create table other (id int)`)
	stream, err := cdc.Open(t.Context(), p.streamConfig(func(c *cdc.Config) { c.Conn = both }))
	require.NoError(t, err)
	t.Cleanup(stream.Close)
	p.exec(`insert into t values (1)`)
	transaction, _ := nextTransaction(t, stream)
	require.NoError(t, stream.Ack(transaction.EndLSN))
	disconnectStandby(t, p, standby)
	p.exec(`insert into other select generate_series(1, 1000)`)
	end, err := cdc.ParseLSN(queryValue[string](p, `select pg_current_wal_insert_lsn()::text`))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return stream.Stats().Confirmed >= end }, cdctest.Patience, 10*time.Millisecond)
	primary.Stop(syscall.SIGQUIT)
	standby.Exec(`select pg_promote()`, `insert into t values (2)`)
	transaction, changes := nextTransaction(t, stream)
	require.Equal(t, []string{"insert t [2]"}, changes)
	require.Less(t, transaction.EndLSN, end)
	require.NoError(t, stream.Ack(transaction.EndLSN))
	require.Eventually(t, func() bool {
		slot, err := cdc.LookupSlot(t.Context(), standby.Pool, "postgres")
		return err == nil && slot.Confirmed >= transaction.EndLSN
	}, cdctest.Patience, 10*time.Millisecond)
}

// disconnectStandby waits until the standby has everything, and keeps it from receiving more.
func disconnectStandby(t *testing.T, p *database, standby *cdctest.Private) {
	t.Helper()
	end := queryValue[string](p, `select pg_current_wal_flush_lsn()::text`)
	require.Eventually(t, func() bool {
		return cdctest.Query[bool](standby.Database, `select pg_last_wal_replay_lsn() >= $1::text::pg_lsn`, end)
	}, cdctest.Patience, 10*time.Millisecond)
	require.Eventually(t, func() bool { // the standby reconnects at once
		p.exec(`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'standby' and active`)
		_, err := p.pool.Exec(t.Context(), `select pg_drop_replication_slot('standby')`)
		return err == nil
	}, cdctest.Patience, time.Millisecond)
}
