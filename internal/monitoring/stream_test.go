//go:build linux

package monitoring

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// stream is a real server of `delta stream`.
type stream struct {
	t   *testing.T
	url string
}

func serve(t *testing.T, config server.Config) *stream {
	t.Helper()
	return serveLogged(t, config, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

func serveLogged(t *testing.T, config server.Config, logger *slog.Logger) *stream {
	t.Helper()
	config.Logger = logger
	s, err := server.New(t.Context(), config)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		s.Close()
	})
	return &stream{t, "http://" + listener.Addr().String()}
}

func (s *stream) do(method, path, body string) string {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(s.t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	require.Less(s.t, response.StatusCode, 300, "%s", text)
	return string(text)
}

// follow reads a slot without acknowledging, until the test ends.
func (s *stream) follow(slot, query string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/v2/slots/"+slot+"/stream"+query, nil)
	require.NoError(s.t, err)
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, response.StatusCode)
	go func() {
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}()
}

// wholeExposition returns the metrics of a server that has something to measure for each: a slot that is read, one that is not, one with a
// consumer, and one with a snapshot.
func wholeExposition(t *testing.T) string {
	t.Helper()
	p := cdctest.NewPrivate(t, "wal_level=logical", "max_slot_wal_keep_size=1GB")
	p.Exec(`create table account (id int primary key)`)
	s := serve(t, server.Config{Conn: p.Config(), Stream: cdc.Config{Heartbeat: 100 * time.Millisecond, StatusInterval: 100 * time.Millisecond}})
	for _, slot := range []string{"reading", "unread"} {
		s.do(http.MethodPost, "/v2/slots", `{"name":"`+slot+`","tables":["public.account"],"snapshot":false}`)
	}
	s.follow("reading", "")
	s.do(http.MethodPost, "/v2/slots", `{"name":"shared","tables":["public.account"],"snapshot":false,"consumers":["a"]}`)
	s.follow("shared", "?consumer=a&resync=true")
	p.Exec(`insert into account select generate_series(10, 19)`)
	s.do(http.MethodPost, "/v2/slots", `{"name":"held","tables":["public.account"]}`)
	s.do(http.MethodGet, "/v2/slots/held/snapshot/public.account?limit=1", "")
	p.Exec(`insert into account values (1)`)
	measured := []string{
		"slot_delivery_seconds", "slot_unacknowledged_age_seconds", "slot_inactive_seconds", "slot_safe_wal_bytes", "slot_lag_seconds",
		"consumer_lag_bytes", "snapshot_held_seconds", "table_locked_seconds",
	}
	var text string
	require.Eventually(t, func() bool {
		text = s.do(http.MethodGet, "/metrics", "")
		for _, name := range measured {
			if !strings.Contains(text, "\ndelta_stream_"+name+"{") {
				return false
			}
		}
		return true
	}, cdctest.Patience, 20*time.Millisecond, "not all of %s are measured", measured)
	return text
}

// The names in alerts, their tests and the dashboard must be those that a real server exposes, in the form that Prometheus' parser and linter accept.
func TestStreamsAreMonitoredByWhatTheyExpose(t *testing.T) {
	t.Parallel()
	streams := parseExposition(t, wholeExposition(t))
	checked := 0
	for name, rule := range alertRules(t) {
		if !strings.HasPrefix(name, "DeltaStream") {
			continue
		}
		checked++
		streams.check(t, name, rule.Expr)
		require.NotEmpty(t, rule.Annotations["summary"], name)
		require.Regexp(t, "^(warning|critical)$", rule.Labels["severity"], name)
	}
	require.Positive(t, checked)
	for _, one := range readUnitTests(t).Tests {
		if strings.HasPrefix(one.Name, "DeltaStream") {
			for _, series := range one.InputSeries {
				streams.check(t, one.Name, series.Series)
			}
		}
	}
	used := map[string]bool{}
	for _, query := range dashboardQueries(t, deploy+"grafana/streams.json") {
		streams.check(t, query.where, query.expression)
		for name := range streams {
			used[name] = used[name] || regexp.MustCompile(`\b`+name+`\b`).MatchString(query.expression)
		}
	}
	for name := range streams {
		if strings.HasPrefix(name, "delta_stream_") && !strings.HasSuffix(name, "_sum") {
			require.True(t, used[name] || rare[name], "the dashboard does not show %s", name)
		}
	}
}

// rare are metrics that the dashboard need not show.
var rare = map[string]bool{
	"delta_stream_heartbeats_total": true, "delta_stream_spill_size_bytes": true, "delta_stream_spilled_transactions_total": true,
}

// The table of docs/stream.md names the alerts that use a metric.
func TestStreamAlertsAreDocumentedByTheirMetrics(t *testing.T) {
	t.Parallel()
	documented := documentedAlerts(t, "../../docs/stream.md")
	for name, rule := range alertRules(t) {
		if !strings.HasPrefix(name, "DeltaStream") || name == "DeltaStreamDown" { // which goes by up
			continue
		}
		parsed, err := promQL.ParseExpr(rule.Expr)
		require.NoError(t, err)
		parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
			if selector, ok := node.(*parser.VectorSelector); ok {
				metric := strings.TrimSuffix(selector.Name, "_count")
				require.Contains(t, documented[metric], name, metric)
				documented[metric] = remove(documented[metric], name)
			}
			return nil
		})
	}
	for metric, alerts := range documented {
		require.Empty(t, alerts, "%s is said to be used by alerts that do not use it", metric)
	}
}
