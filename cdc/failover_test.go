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

// said is what was logged.
type said chan string

func (s said) Write(line []byte) (int, error) {
	select {
	case s <- string(line):
	default:
	}
	return len(line), nil
}

// The primary is killed while somebody writes, and its standby is promoted. One Stream goes on there by itself: what it has
// delivered in all is what the new primary has, each row once and in order.
func TestStreamGoesOnAtTheStandbyThatIsPromoted(t *testing.T) {
	t.Parallel()
	newDatabase(t).NeedsVersion(17)
	primary, p := newPrivateServer(t, "synchronized_standby_slots=standby")
	p.exec(`create table t (id int primary key)`, `create publication postgres for all tables`, `select pg_create_physical_replication_slot('standby', true)`)
	standby := primary.Standby("wal_level=logical", "hot_standby_feedback=on", "primary_slot_name=standby", "sync_replication_slots=on",
		fmt.Sprintf("primary_conninfo=host=127.0.0.1 port=%d user=postgres dbname=postgres", p.config().Port))
	_, err := cdc.CreateSlot(t.Context(), p.pool, "postgres", cdc.SlotOptions{Failover: true})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		p.exec(`select pg_log_standby_snapshot()`) // from where the standby can begin
		return cdctest.Query[bool](standby.Database, `select exists (select from pg_replication_slots where slot_name = 'postgres' and synced and not temporary)`)
	}, 60*time.Second, 200*time.Millisecond)

	both, err := pgx.ParseConfig(fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?sslmode=disable", p.config().Port, standby.Config().Port))
	require.NoError(t, err)
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
				return // it was killed
			}
		}
	})
	var delivered []string
	read := func(until func() bool) {
		for !until() {
			transaction, changes := next(t, stream)
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
			return strings.Contains(line, "the copy of a standby")
		default:
			return false
		}
	}, 30*time.Second, time.Millisecond)
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
