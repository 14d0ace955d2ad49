package server_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

var sampleLine = regexp.MustCompile(`^([a-z_]+)(\{(?:[a-z]+="[^"\\]*",?)+\})? (\S+)$`)

// scrapeMetrics reads /metrics, and reads it again until the server has reached its database: without it, series of slots are missing.
func (h *harness) scrapeMetrics() map[string]float64 {
	h.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if values := h.scrapeOnce(); values["delta_stream_database_up"] == 1 || time.Since(began) > cdctest.Patience {
			return values
		}
	}
}

// scrapeOnce reads /metrics into values by name and labels, and checks the format: HELP and TYPE once before the samples of a family,
// the samples of a family together, and no sample twice. The module internal/monitoring parses the text with Prometheus' own parser and
// linter.
func (h *harness) scrapeOnce() map[string]float64 {
	h.t.Helper()
	kinds := map[string]string{}
	for _, f := range server.Families() {
		kinds[f[0]] = f[1]
	}
	values, seen, family := map[string]float64{}, map[string]bool{}, ""
	lines := strings.Split(strings.TrimSuffix(h.request("GET", "/metrics", "").body, "\n"), "\n")
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "# HELP "):
			name, help, _ := strings.Cut(strings.TrimPrefix(line, "# HELP "), " ")
			require.NotEmpty(h.t, help, name)
			require.False(h.t, seen[name], "%s comes twice", name)
			family, seen[name] = name, true
			require.Equal(h.t, "# TYPE "+name+" "+kinds[name], lines[i+1])
		case strings.HasPrefix(line, "# TYPE "):
		default:
			parts := sampleLine.FindStringSubmatch(line)
			require.NotNil(h.t, parts, line)
			require.True(h.t, strings.HasPrefix(parts[1], family), line)
			value, err := strconv.ParseFloat(parts[3], 64)
			require.NoError(h.t, err, line)
			require.NotContains(h.t, values, parts[1]+parts[2])
			values[parts[1]+parts[2]] = value
		}
	}
	return values
}

func TestMetricsOfASlot(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.Stream.Heartbeat = 100 * time.Millisecond })
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	of := func(name string) string { return "delta_stream_slot_" + name + `{slot="` + h.s + `"}` }
	status := func(name string) string {
		return `delta_stream_slot_wal_status{slot="` + h.s + `",status="` + name + `"}`
	}
	unread := h.scrapeMetrics()
	require.Zero(t, unread[of("active")])
	require.Contains(t, unread, of("inactive_seconds"))
	for _, name := range []string{"lag_seconds", "delivery_seconds", "unacknowledged", "safe_wal_bytes"} {
		require.NotContains(t, unread, of(name), "nothing measures it, and 0 would say that all is well")
	}
	require.InDelta(t, 1, unread[status("reserved")], 0)
	require.Zero(t, unread[status("lost")])
	require.Eventually(t, func() bool { return h.scrapeMetrics()[of("inactive_seconds")] > unread[of("inactive_seconds")] }, cdctest.Patience, 10*time.Millisecond)

	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	h.Exec(`insert into account (id) values (1)`)
	lsn := c.readMessage().LSN
	require.Eventually(t, func() bool {
		now := h.scrapeMetrics()
		return now[of("unacknowledged")] == 1 && now[of("unacknowledged_age_seconds")] > unread[of("unacknowledged_age_seconds")] &&
			now[of("delivery_seconds")] > 0 && now["delta_stream_heartbeats_total"] > 0
	}, cdctest.Patience, 10*time.Millisecond)
	require.InDelta(t, 1, h.scrapeMetrics()[of("active")], 0)
	require.NotContains(t, h.scrapeMetrics(), of("inactive_seconds"))
	require.InDelta(t, 1, h.scrapeMetrics()["delta_stream_clients"], 0)
	c.sendAck(lsn)
	h.awaitConfirmed(h.s, lsn)
	require.Eventually(t, func() bool {
		now := h.scrapeMetrics()
		_, known := now[of("lag_seconds")]
		return known && now[of("unacknowledged")] == 0
	}, cdctest.Patience, 10*time.Millisecond, "the reader has confirmed something: the lag is known")

	h.Exec(`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '` + h.s + `'`)
	require.Eventually(t, func() bool { return h.scrapeMetrics()["delta_stream_reconnects_total"] >= 1 }, cdctest.Patience, 10*time.Millisecond)
	_ = c.conn.CloseNow()
	h.awaitFree(h.s)
	require.Eventually(t, func() bool {
		now := h.scrapeMetrics()
		return now["delta_stream_clients"] == 0 && now[of("active")] == 0
	}, cdctest.Patience, 10*time.Millisecond)
	after := h.scrapeMetrics()
	require.GreaterOrEqual(t, after["delta_stream_reconnects_total"], 1.0, "a counter does not fall with its stream")
	require.NotContains(t, after, of("unacknowledged"))
	for name := range after {
		require.NotContains(t, name, "/stream", "a stream lasts as long as its client wants: that is no duration of a request")
	}

	h.Exec(`select pg_drop_replication_slot('` + h.s + `')`)
	lost := h.scrapeMetrics()
	require.InDelta(t, 1, lost[status("missing")], 0)
	require.NotContains(t, lost, of("active"))
}

// Each tail has a slot with a new name, and their series would pile up in the metrics store.
func TestMetricsHaveNoSeriesOfTails(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.ClientMemory = 64 << 10 })
	h.Exec(accounts)
	next, stop := h.followEvents("/v2/tail")
	next()
	require.InDelta(t, 1, h.scrapeMetrics()["delta_stream_clients"], 0)
	h.Exec(`insert into account (id, name) select i, repeat('x', 1000) from generate_series(1, 1000) i`)
	require.Equal(t, "account", onlyChanges(next)().Changes[0].Table)
	for name := range h.scrapeMetrics() {
		require.NotContains(t, name, "delta_tail_")
	}
	stop()
	require.Eventually(t, func() bool {
		now := h.scrapeMetrics()
		return now["delta_stream_clients"] == 0 && now["delta_stream_spilled_transactions_total"] == 1 && now["delta_stream_spilled_bytes"] == 0
	}, cdctest.Patience, 10*time.Millisecond)
}

func TestMetricsOfTheServer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.request("GET", "/v2/slots/none", "")
	h.request("GET", "/a/path/of/a/stranger", "")
	init := h.request("GET", "/v1/init", "")
	require.Equal(t, 200, init.status)
	now := h.scrapeMetrics()
	for _, name := range []string{
		`{route="GET /v2/slots/{name}",code="404"}`, `{route="unknown",code="404"}`, `{route="/v1/",code="200"}`,
	} {
		require.InDelta(t, 1, now["delta_stream_request_duration_seconds_count"+name], 0, name)
		require.InDelta(t, 1, now["delta_stream_request_duration_seconds_bucket"+strings.TrimSuffix(name, "}")+`,le="+Inf"}`], 0, name)
	}
	for _, name := range []string{
		"go_goroutines", "go_memstats_alloc_bytes", "process_resident_memory_bytes", "process_start_time_seconds", "process_open_fds",
		"delta_stream_spill_free_bytes", "delta_stream_spill_size_bytes", "delta_stream_spill_limit_bytes", "delta_stream_database_up",
	} {
		require.Positive(t, now[name], name)
	}
	var made struct{ SlotName string }
	require.NoError(t, json.Unmarshal([]byte(init.body), &made))
	conn, _, err := websocket.Dial(t.Context(), h.url+"/v1/lr/stream?slotName="+made.SlotName, nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		now := h.scrapeMetrics()
		_, measured := now[`delta_stream_slot_unacknowledged{slot="`+made.SlotName+`"}`]
		return measured && now["delta_stream_clients"] == 1
	}, cdctest.Patience, 10*time.Millisecond, "streams of /v1 are measured as all others")
	_ = conn.CloseNow()
	require.Eventually(t, func() bool { return h.scrapeMetrics()["delta_stream_clients"] == 0 }, cdctest.Patience, 10*time.Millisecond)
	text := h.request("GET", "/metrics", "").body
	require.Regexp(t, `(?m)^delta_stream_build_info\{version="[^"]+",revision="[^"]+",goversion="go1[^"]+"\} 1$`, text)
}

// The table of docs/stream.md has each of our metrics, with its type, in the same order.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/stream.md")
	require.NoError(t, err)
	var documented, exposed [][2]string
	for _, row := range regexp.MustCompile("(?m)^\\| `(delta_stream_[a-z_]+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, [2]string{row[1], row[2]})
	}
	for _, f := range server.Families() {
		if strings.HasPrefix(f[0], "delta_stream_") {
			exposed = append(exposed, [2]string{f[0], f[1]})
		}
	}
	require.Equal(t, exposed, documented)
}
