//go:build runbook && linux

package monitoring

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// streaming is a server of streams, on a Postgres of its own.
type streaming struct {
	*stream
	p    *cdctest.Private
	logs *logs
}

func startStreaming(t *testing.T, settings []string, change func(*server.Config)) *streaming {
	t.Helper()
	s := &streaming{p: cdctest.NewPrivate(t, append([]string{"wal_level=logical"}, settings...)...), logs: &logs{}}
	s.p.Exec(`create table account (id int primary key, name text)`)
	config := server.Config{Conn: s.p.Config(), Stream: cdc.Config{Heartbeat: time.Second, StatusInterval: 100 * time.Millisecond, ShortestRetry: 10 * time.Millisecond, LongestRetry: 100 * time.Millisecond}}
	if change != nil {
		change(&config)
	}
	s.stream = serveLogged(t, config, slog.New(slog.NewTextHandler(s.logs, nil)))
	return s
}

func (s *streaming) metrics() string { return s.do(http.MethodGet, "/metrics", "") }

func (s *streaming) create(slot, more string) string {
	s.t.Helper()
	return s.do(http.MethodPost, "/v2/slots", `{"name":"`+slot+`","tables":["public.account"],"snapshot":false`+more+`}`)
}

// show returns the answer of the server to a request.
func (s *streaming) show(path string) string {
	s.t.Helper()
	return "$ curl …" + path + "\n" + s.do(http.MethodGet, path, "")
}

// awaitAbove waits until a sample exceeds a value, and returns the metrics with it: a moment later it may be gone.
func (s *streaming) awaitAbove(series string, value float64) (metrics string) {
	s.t.Helper()
	name, _, _ := strings.Cut(series, "{")
	await(s.t, series, func() bool {
		metrics = s.metrics()
		return samplesOf(metrics, map[string]bool{name: true})[series] > value
	})
	return metrics
}

func TestTryDeltaStreamDownAndDatabaseDown(t *testing.T) {
	s := startStreaming(t, nil, nil)
	s.create("orders", "")
	s.p.Stop(syscall.SIGINT)
	await(t, "down", func() bool { return strings.Contains(s.metrics(), "delta_stream_database_up 0") })
	response, err := http.Get(s.url + "/readyz") //nolint:noctx // a rehearsal
	require.NoError(t, err)
	ready, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	_ = response.Body.Close()
	evidence{alert: "DeltaStreamDatabaseDown", now: s.metrics(), seen: []string{
		fmt.Sprintf("$ curl …/readyz\n%d %s", response.StatusCode, ready), s.logs.latest("level=(WARN|ERROR)"),
	}}.record(t)
	before := s.metrics()
	for range 40 {
		answer, err := http.Get(s.url + "/v2/slots") //nolint:noctx // a rehearsal
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
	}
	// Forty failures in half an hour are too few for the rule: the rehearsal counts them as a hundred times as many.
	evidence{alert: "DeltaStreamErrors", lowered: [2]string{"> 0.05", "> 0.005"}, before: before, now: s.metrics(), seen: []string{s.logs.latest("level=(WARN|ERROR)")}}.record(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	_, err = http.Get("http://" + address + "/metrics") //nolint:noctx,bodyclose // nobody answers
	require.Error(t, err)
	evidence{alert: "DeltaStreamDown", now: `up{job="delta-stream",instance="10.0.0.7:8080"} 0`, seen: []string{"$ curl …/metrics\n" + err.Error()}}.record(t)
}

func TestTrySlotsThatNobodyReads(t *testing.T) {
	s := startStreaming(t, []string{"max_slot_wal_keep_size=64MB", "min_wal_size=32MB", "max_wal_size=64MB"}, nil)
	s.create("orders", "")
	s.awaitAbove(`delta_stream_slot_inactive_seconds{slot="orders"}`, 2)
	evidence{alert: "DeltaStreamSlotInactive", lowered: [2]string{"> 600", "> 2"}, now: s.metrics(), seen: []string{s.show("/v2/slots/orders")}}.record(t)
	s.p.Exec(`insert into account select i, repeat('x', 1000) from generate_series(1, 20000) i`)
	evidence{alert: "DeltaStreamSlotRetains", lowered: [2]string{"10 * 1024 * 1024 * 1024", "10 * 1024 * 1024"}, now: s.metrics(), seen: []string{s.show("/v2/slots/orders")}}.record(t)
	evidence{alert: "DeltaStreamSlotEndangered", now: s.metrics(), seen: []string{s.show("/v2/slots/orders")}}.record(t)
	await(t, "lost", func() bool {
		s.p.Exec(`update account set name = name || 'y'`, `select pg_switch_wal()`, `checkpoint`)
		return strings.Contains(s.metrics(), `delta_stream_slot_wal_status{slot="orders",status="lost"} 1`)
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v2/slots/orders/stream", nil)
	require.NoError(t, err)
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	_ = response.Body.Close()
	evidence{alert: "DeltaStreamSlotLost", now: s.metrics(), seen: []string{
		s.show("/v2/slots/orders"), fmt.Sprintf("$ curl …/v2/slots/orders/stream\n%d %s", response.StatusCode, answer),
	}}.record(t)
}

func TestTryClientsThatDoNotAcknowledge(t *testing.T) {
	s := startStreaming(t, nil, nil)
	s.create("orders", "")
	s.follow("orders", "")
	s.p.Exec(`insert into account values (1)`)
	s.awaitAbove(`delta_stream_slot_unacknowledged_age_seconds{slot="orders"}`, 5)
	evidence{alert: "DeltaStreamClientLags", lowered: [2]string{"> 300", "> 5"}, now: s.metrics(), seen: []string{s.show("/v2/slots/orders")}}.record(t)
}

func TestTryConsumersOfASlot(t *testing.T) {
	s := startStreaming(t, nil, func(c *server.Config) { c.ConsumerBuffer, c.ConsumerPatience = 64<<10, -1 })
	s.create("orders", `,"consumers":["search","billing"]`)
	s.follow("orders", "?consumer=search&resync=true")
	await(t, "attached", func() bool {
		return strings.Contains(s.metrics(), `delta_stream_consumer_attached{slot="orders",consumer="search"} 1`)
	})
	evidence{alert: "DeltaStreamConsumerAway", now: s.metrics(), seen: []string{s.show("/v2/slots/orders")}}.record(t)
	await(t, "lost", func() bool {
		s.p.Exec(`insert into account select coalesce(max(id), 0) + 1, repeat('x', 20000) from account`)
		return strings.Contains(s.metrics(), `delta_stream_consumer_lost{slot="orders",consumer="billing"} 1`)
	})
	evidence{alert: "DeltaStreamConsumerLost", now: s.metrics(), seen: []string{s.show("/v2/slots/orders"), s.logs.latest("billing")}}.record(t)
}

func TestTryTablesThatAreLocked(t *testing.T) {
	s := startStreaming(t, nil, nil)
	s.p.Exec(`insert into account select generate_series(1, 10)`)
	s.do(http.MethodPost, "/v2/slots", `{"name":"orders","tables":["public.account"]}`)
	s.do(http.MethodGet, "/v2/slots/orders/snapshot/public.account?limit=1", "")
	s.awaitAbove(`delta_stream_table_locked_seconds{slot="orders",table="public.account"}`, 5)
	evidence{alert: "DeltaStreamTableLocked", lowered: [2]string{"> 3600", "> 5"}, now: s.metrics(), seen: []string{s.show("/v2/slots/orders")}}.record(t)
}

func TestTrySlotsThatAreLate(t *testing.T) {
	s := startStreaming(t, nil, nil)
	s.create("orders", "")
	s.follow("orders", "")
	s.awaitAbove(`delta_stream_heartbeats_total`, 2)
	backend := cdctest.Query[int](s.p.Database, `select active_pid from pg_replication_slots where slot_name = 'orders'`)
	require.NoError(t, syscall.Kill(backend, syscall.SIGSTOP)) // as a server whose disk hangs
	defer func() { _ = syscall.Kill(backend, syscall.SIGCONT) }()
	s.awaitAbove(`delta_stream_slot_delivery_seconds{slot="orders"}`, 5)
	evidence{alert: "DeltaStreamDeliveryLate", lowered: [2]string{"> 60", "> 5"}, now: s.metrics(), seen: []string{s.show("/v2/slots/orders")}}.record(t)
	require.NoError(t, syscall.Kill(backend, syscall.SIGCONT))
	s.p.Exec(`insert into account values (1)`) // which is never acknowledged
	lags := func() float64 {
		return samplesOf(s.metrics(), map[string]bool{"delta_stream_slot_lag_seconds": true})[`delta_stream_slot_lag_seconds{slot="orders"}`]
	}
	await(t, "lags", func() bool { return lags() > 3 })
	evidence{alert: "DeltaStreamSlotLags", lowered: [2]string{"> 300", "> 3"}, now: s.metrics(), seen: []string{s.show("/v2/slots/orders")}}.record(t)
}

func TestTryTransactionsThatAreLarge(t *testing.T) {
	folder, err := os.MkdirTemp("", "spill")
	require.NoError(t, err)
	defer func() { _ = os.RemoveAll(folder) }()
	where := [2]string{"< 0.1", "< 2"} // without the right to mount a small disk
	if syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=64m") == nil {
		where = [2]string{}
		defer func() { _ = syscall.Unmount(folder, 0) }()
		require.NoError(t, os.WriteFile(folder+"/other", make([]byte, 60<<20), 0o600))
	}
	s := startStreaming(t, []string{"logical_decoding_work_mem=64kB"}, func(c *server.Config) {
		c.ClientMemory, c.Stream.SpillLimit, c.Stream.SpillFolder = 64<<10, 3<<20, folder
		c.WriteTimeout = time.Minute
	})
	s.create("orders", "")
	evidence{alert: "DeltaStreamSpillDisk", lowered: where, now: s.metrics(), seen: []string{shell(t, "df", "-h", folder)}}.record(t)
	s.hold("orders")
	conn, err := pgx.ConnectConfig(t.Context(), s.p.Config())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	// Postgres sends the changes before the COMMIT, and they are kept until it comes.
	_, err = conn.Exec(t.Context(), `begin; insert into account select i, repeat('x', 1000) from generate_series(1, 2600) i`)
	require.NoError(t, err)
	spilled := s.awaitAbove(`delta_stream_spilled_bytes`, 0.8*3*(1<<20))
	evidence{alert: "DeltaStreamSpillLimit", now: spilled, seen: []string{s.show("/v2/slots/orders")}}.record(t)
	_, err = conn.Exec(t.Context(), `insert into account select i, repeat('x', 1000) from generate_series(10000, 18000) i; commit`)
	require.NoError(t, err)
	if line := s.logs.latest("(?i)limit"); line != "" {
		t.Log(line)
	}
}

func TestTryConnectionsThatAreLost(t *testing.T) {
	s := startStreaming(t, nil, nil)
	s.create("orders", "")
	s.follow("orders", "")
	s.awaitAbove(`delta_stream_heartbeats_total`, 1)
	before := s.metrics()
	for n := range 12 {
		await(t, "reconnected", func() bool {
			s.p.Exec(`select pg_terminate_backend(active_pid) from pg_replication_slots where active`)
			return samplesOf(s.metrics(), map[string]bool{"delta_stream_reconnects_total": true})["delta_stream_reconnects_total"] > float64(n)
		})
	}
	evidence{alert: "DeltaStreamReconnects", lowered: [2]string{"> 5", "> 3"}, before: before, now: s.metrics(), seen: []string{s.logs.latest("level=(WARN|ERROR)")}}.record(t)
}

func TestTryClientsThatDoNotRead(t *testing.T) {
	s := startStreaming(t, nil, func(c *server.Config) {
		c.WriteTimeout, c.ClientMemory, c.HeartbeatInterval = time.Second, 1<<20, time.Hour
	})
	s.create("orders", "")
	before := s.metrics()
	s.p.Exec(`insert into account select i, repeat('payload', 1000) from generate_series(1, 4000) i`)
	for n := range 8 {
		hung := s.hold("orders")
		s.awaitAbove(`delta_stream_slow_clients_total`, float64(n))
		hung()
		await(t, "free", func() bool { return strings.Contains(s.metrics(), `delta_stream_slot_active{slot="orders"} 0`) })
	}
	evidence{alert: "DeltaStreamClientsCut", lowered: [2]string{"> 3", "> 2"}, before: before, now: s.metrics(), seen: []string{s.logs.latest("level=(WARN|ERROR|INFO).*orders")}}.record(t)
}

// hold connects a client that does not read.
func (s *streaming) hold(slot string) (hangUp func()) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/v2/slots/"+slot+"/stream", nil)
	require.NoError(s.t, err)
	request.Header.Set("Accept", "text/event-stream")
	response, err := (&http.Client{Transport: &http.Transport{}}).Do(request)
	require.NoError(s.t, err)
	if response.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(response.Body)
		require.Equal(s.t, http.StatusOK, response.StatusCode, "%s", reason)
	}
	s.t.Cleanup(func() { _ = response.Body.Close() })
	return func() { _ = response.Body.Close() }
}
