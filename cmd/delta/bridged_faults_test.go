//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/internal/testport"
	"github.com/chariot-giving/delta/sinks"
)

// These tests inject a fault between a table, its resources, their log and a sink. Nothing may be lost, and `delta doctor` and the metrics show
// the fault while it lasts.

func onSharedTemporal(t *testing.T, standby func(*cdctest.Private) string) *bridged {
	t.Helper()
	env := deltatest.New(t)
	return newBridged(t, env.Temporal, env.TemporalAddress, env.TemporalNamespace, env.Prefix, standby)
}

// The server crashes and restarts, then it dies for good and its standby is promoted. The standby has no slot, so the whole table is read again.
func TestNothingIsLostOverACrashAndAFailover(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var standby *cdctest.Private
	b := onSharedTemporal(t, func(primary *cdctest.Private) string {
		primary.Exec(`SELECT pg_create_physical_replication_slot('standby', true)`)
		standby = primary.Standby("wal_level=logical", "primary_slot_name=standby",
			fmt.Sprintf("primary_conninfo=host=127.0.0.1 port=%d user=postgres dbname=postgres", primary.Config().Port))
		// Everything committed is on both servers: nothing may be lost.
		primary.Exec(`ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`)
		return fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?sslmode=disable&target_session_attrs=read-write",
			primary.Config().Port, standby.Config().Port)
	})
	b.startAll()
	seen := func() {
		t.Helper()
		b.until(func() bool { return b.readMetric("delta_database_up") == 0 }, func() string { return "metrics do not show that the server is away" })
		require.Equal(t, delta.CheckFailure, b.runDoctor()["database"].Status)
	}
	stop := b.startWriter()
	b.until(func() bool { return len(b.queryList(`SELECT id::text FROM delta_change`)) > 50 }, func() string { return "nothing becomes of the rows" })
	b.server.Stop(syscall.SIGQUIT)
	seen()
	b.server.Start()
	b.until(func() bool { return b.isIn(delta.SourceFollowing) }, func() string { return "the source does not go on" })
	stop()
	b.requireSettled()
	require.Equal(t, 1, b.countFullReads(), "the slot is there after a crash")

	stop = b.startWriter()
	time.Sleep(time.Second) // let some changes happen: the crash may come at any point of their processing
	b.server.Stop(syscall.SIGQUIT)
	seen()
	standby.Exec(`SELECT pg_promote()`)
	b.until(func() bool { return b.countFullReads() == 2 }, func() string { return "the table is not read again" })
	stop()
	b.requireSettled()
	require.Contains(t, b.lines.String(), "changes of the table were lost")
	b.until(func() bool { return b.isIn(delta.SourceFollowing) && b.readMetric("delta_database_up") == 1 }, func() string { return "metrics do not show that all is well" })
	require.Equal(t, delta.CheckOK, b.runDoctor()["database"].Status)
}

// A transaction stays open while the slot is dropped. Postgres creates a new slot only after the transaction has ended, and readers of the log
// wait for it too.
func TestNothingIsLostOverALostSlotAndAnOpenTransaction(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := onSharedTemporal(t, nil)
	b.exec(`INSERT INTO bill SELECT n, 0 FROM generate_series(1, 30) n`)
	b.startAll()
	b.requireSettled()

	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `UPDATE bill SET cents = 1 WHERE number = 1`)
	require.NoError(t, err)
	pid := strconv.FormatUint(uint64(tx.Conn().PgConn().PID()), 10)
	slot := b.queryList(`SELECT slot_name::text FROM pg_replication_slots`)[0]
	b.until(func() bool {
		b.queryList(`SELECT pg_terminate_backend(active_pid)::text FROM pg_replication_slots WHERE active`)
		_, err := b.pool.Exec(t.Context(), `SELECT pg_drop_replication_slot($1)`, slot)
		return err == nil
	}, func() string { return "the slot cannot be dropped" })
	b.exec(`UPDATE bill SET cents = 2 WHERE number = 2`, `DELETE FROM bill WHERE number = 3`, `INSERT INTO bill VALUES (31, 31)`)
	_, err = b.newClient(nil).Invalidate(t.Context(), bill{Number: 4})
	require.NoError(t, err)
	var held []string
	b.until(func() bool {
		held = b.queryList(`SELECT id::text FROM delta_change WHERE order_xid >= pg_snapshot_xmin(pg_current_snapshot())`)
		return len(held) > 0
	}, func() string { return "the bill is not synced" })
	b.exec(`UPDATE delta_change SET at = at - interval '1 hour' WHERE order_xid >= pg_snapshot_xmin(pg_current_snapshot())`)

	b.until(func() bool {
		source := b.runDoctor()["source bill"]
		return source.Status == delta.CheckOK && strings.Contains(source.Detail, "Postgres waits until all transactions that write have ended")
	}, func() string { return fmt.Sprint(b.runDoctor()) })
	b.until(func() bool { return b.isIn(delta.SourceReading) }, func() string { return "metrics do not show that the table is read" })
	require.False(t, b.isIn(delta.SourceFollowing))
	var log checkJSON
	b.until(func() bool { log = b.runDoctor()["log of changes"]; return log.Status == delta.CheckWarning }, func() string { return fmt.Sprint(log) })
	require.Contains(t, log.Detail, "process "+pid+" (idle in transaction")
	require.Contains(t, log.Remedy, "pg_terminate_backend("+pid+")")
	b.until(func() bool {
		return b.readMetric("delta_changes_held_age_seconds") >= 3600 && int(b.readMetric("delta_changes_held")) == len(held)
	}, func() string { return "metrics do not show the held entries and their age" })
	require.Subset(t, b.findUndelivered(), []string{"entry " + held[0] + " was not delivered"}, "a transaction is open that may write an earlier one")

	require.NoError(t, tx.Commit(t.Context()))
	b.until(func() bool { return b.countFullReads() == 2 }, func() string { return "the table is not read again" })
	b.requireSettled()
	require.Contains(t, b.lines.String(), "changes of the table were lost")
	b.until(func() bool { return b.isIn(delta.SourceFollowing) && b.readMetric("delta_changes_held") == 0 }, func() string { return "metrics do not show that all is well" })
	found := b.runDoctor()
	require.Empty(t, found["log of changes"])
	require.Empty(t, found["source bill"])
}

// A page waits for a row that a user has locked. The log, doctor and metrics name the process that holds the lock, and do not report the source
// as stopped.
func TestASourceThatWaitsNamesWhoItWaitsFor(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := onSharedTemporal(t, nil)
	b.exec(`INSERT INTO bill SELECT n, 0 FROM generate_series(1, 5) n`)
	b.startAll()
	b.requireSettled()
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `SET application_name = 'a report'`)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `SELECT FROM delta_resource WHERE object_id = '1' FOR UPDATE`)
	require.NoError(t, err)
	pid := strconv.FormatUint(uint64(tx.Conn().PgConn().PID()), 10)
	b.exec(`UPDATE bill SET cents = 7`)

	b.until(func() bool { return b.isIn(delta.SourceWaiting) }, func() string { return fmt.Sprint(b.runDoctor()) })
	source := b.runDoctor()["source bill"]
	require.Equal(t, delta.CheckWarning, source.Status)
	require.Contains(t, source.Detail, "for a lock that is held by a transaction of process "+pid+` (idle in transaction, user postgres, application "a report"`)
	require.Contains(t, source.Remedy, "pg_terminate_backend("+pid+")")
	b.until(func() bool {
		return b.readMetric(`delta_source_lag_seconds{kind="bill",source="table public.bill"}`) >= 10
	},
		func() string { return "metrics do not show how long the source has waited" })
	b.until(func() bool { return strings.Contains(b.lines.String(), "held_by_pid="+pid) }, func() string { return "the log does not name the holder of the lock" })

	require.NoError(t, tx.Rollback(t.Context()))
	b.requireSettled()
	b.until(func() bool { return b.isIn(delta.SourceFollowing) }, func() string { return "metrics do not show that all is well" })
	require.Empty(t, b.runDoctor()["source bill"])
}

// A sink is unreachable for a while, which shows in the age of its oldest undelivered entry. Then no relay runs at all.
func TestNothingIsLostWhileTheSinkIsAway(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := onSharedTemporal(t, nil)
	b.exec(`INSERT INTO bill SELECT n, 0 FROM generate_series(1, 20) n`)
	_, stopRelay := b.startAll()
	b.requireSettled()
	const consumer = `{consumer="bills",member=""}`
	b.sink.isAway.Store(true)
	// One change of each bill, because two of one bill make one entry or two.
	b.exec(`UPDATE bill SET cents = 1 WHERE number < 20`, `DELETE FROM bill WHERE number = 20`, `INSERT INTO bill VALUES (21, 1)`)
	b.until(func() bool { return len(b.unlikeTable()) == 0 }, func() string { return "the resources do not follow while the sink is away" })
	waiting := len(b.findUndelivered())
	require.Equal(t, 21, waiting)
	b.exec(`UPDATE delta_change SET at = at - interval '20 minutes'`)
	b.until(func() bool { return b.readMetric("delta_change_consumer_behind"+consumer) == 21 }, func() string { return "metrics do not show what waits" })
	stopRelay()
	b.until(func() bool { return b.readMetric("delta_change_consumer_running"+consumer) == 0 }, func() string { return "metrics do not show that nothing delivers" })
	require.Contains(t, b.runDoctor()["consumer of changes bills"].Detail, "no process has it")

	relay, _ := b.startRelay() // it reads entries that look 20 minutes old
	b.until(func() bool {
		return b.readMetric("delta_change_consumer_running"+consumer) == 1 && relay.Stats().Failed > 0
	}, func() string { return "the relay does not try" })
	b.until(func() bool { return b.readMetric("delta_change_consumer_lag_seconds"+consumer) >= 1200 }, func() string { return "metrics do not show the lag" })
	found := b.runDoctor()["consumer of changes bills"]
	require.Equal(t, delta.CheckWarning, found.Status)
	require.Regexp(t, `21 changes behind, the first since 2\dm(\d+s)?, and a process has it`, found.Detail)
	var text strings.Builder
	require.NoError(t, sinks.WriteMetrics(&text, map[string]sinks.Stats{"bills": relay.Stats()}))
	require.GreaterOrEqual(t, sampleOf(t, text.String(), `delta_sink_age_seconds{relay="bills"}`), 1200.0)

	b.sink.isAway.Store(false)
	b.requireSettled()
	b.until(func() bool {
		return b.readMetric("delta_change_consumer_behind"+consumer) == 0 && b.readMetric("delta_change_consumer_lag_seconds"+consumer) == 0
	}, func() string { return "metrics do not show that all was delivered" })
	require.Empty(t, b.runDoctor()["consumer of changes bills"])
}

// Temporal loses all of its data. The rows have everything needed: the workflow of the source starts again at its saved position.
func TestNothingIsLostWhenTemporalIsWiped(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	port := testport.Reserve(t)
	begin := func() *stack.Stack {
		server, err := stack.StartTemporal(t.Context(), stack.Options{Ephemeral: true, TemporalPort: port, UIPort: stack.AnyPort})
		require.NoError(t, err)
		return server
	}
	server := begin()
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	temporal, err := client.Dial(client.Options{HostPort: address, Logger: delta.TemporalLogger(deltatest.New(t).Logger), ConnectionOptions: client.ConnectionOptions{GetSystemInfoTimeout: time.Minute}})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	b := newBridged(t, temporal, address, "default", "wiped", nil)
	b.exec(`INSERT INTO bill SELECT n, 0 FROM generate_series(1, 30) n`)
	b.startAll()
	b.requireSettled()
	epoch := func() string { return b.queryList(`SELECT epoch::text FROM delta_source`)[0] }
	before := epoch()

	require.NoError(t, server.Stop(context.Background()))
	b.exec(`UPDATE bill SET cents = 1 WHERE number < 10`, `DELETE FROM bill WHERE number = 30`, `INSERT INTO bill VALUES (31, 1)`)
	b.until(func() bool { return b.telemetry.isDown(delta.HealthTemporal) }, func() string { return "metrics do not show that Temporal is away" })
	require.Equal(t, delta.CheckFailure, b.runDoctor()["temporal"].Status)
	server = begin()
	b.until(func() bool { return epoch() != before }, func() string { return "the workflow of the source does not begin again" })
	b.exec(`UPDATE bill SET cents = 2 WHERE number > 25`)
	b.requireSettled()
	require.Equal(t, 1, b.countFullReads(), "the source goes on from its position")
	b.until(func() bool { return b.isIn(delta.SourceFollowing) && !b.telemetry.isDown(delta.HealthTemporal) }, func() string { return "metrics do not show that all is well" })
	b.until(func() bool { return b.runDoctor()["prefix"].Status == delta.CheckOK }, func() string { return fmt.Sprint(b.runDoctor()) })
}
