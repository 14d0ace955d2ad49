package delta_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// scrapeMetrics calls a client's metrics handler, and returns the samples by name and labels.
func scrapeMetrics(t *testing.T, c *delta.Client) map[string]float64 {
	t.Helper()
	answer := httptest.NewRecorder()
	delta.Metrics(c).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, answer.Code)
	require.Equal(t, "text/plain; version=0.0.4; charset=utf-8", answer.Header().Get("Content-Type"))
	return parseSamples(t, answer.Body.String())
}

// scrapeAll repeats scrapeMetrics while a busy machine has not answered within the handler's timeout, or has not counted resources in it.
func scrapeAll(t *testing.T, c *delta.Client) (found map[string]float64) {
	t.Helper()
	until(t, func() bool {
		found = scrapeMetrics(t, c)
		for name := range found {
			if strings.HasPrefix(name, "delta_resources") {
				return found["delta_database_up"] == 1
			}
		}
		return false
	}, "%s", shown[map[string]float64]{&found})
	return found
}

var sample = regexp.MustCompile(`^(\w+(?:\{.*\})?) (\S+)$`)

func parseSamples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); line[0] == '#' {
			continue
		}
		parts := sample.FindStringSubmatch(line)
		require.NotNil(t, parts, line)
		value, err := strconv.ParseFloat(parts[2], 64)
		require.NoError(t, err, line)
		require.NotContains(t, all, parts[1])
		all[parts[1]] = value
	}
	return all
}

// clientWithPool returns a client that is not started, with its own pool and changed settings.
func (h *harness) clientWithPool(config *delta.Config, change func(*pgxpool.Config)) *delta.Client {
	h.t.Helper()
	settings, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(h.t, err)
	change(settings)
	pool, err := pgxpool.NewWithConfig(h.t.Context(), settings)
	require.NoError(h.t, err)
	h.t.Cleanup(pool.Close)
	c, err := delta.NewClient(pool, config)
	require.NoError(h.t, err)
	return c
}

// awaitListeners waits until n clients listen: a client begins a moment after its start, and the session of a stopped one ends a moment later.
func (h *harness) awaitListeners(n int) {
	h.t.Helper()
	until(h.t, func() bool {
		return h.countRows(`SELECT count(*)::int FROM pg_stat_activity WHERE query = 'LISTEN "' || delta_channel() || '"' AND datname = current_database()`) == n
	})
}

func readsOnly(settings *pgxpool.Config) {
	settings.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
}

func TestMetricsAreThoseOfTheInstallation(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "its connections have parameters of their own")
	t.Parallel()
	h := newHarness(t)
	refuses := errors.New("503")
	config := h.config(with(&controller[figured]{work: workFigured}), with(&controller[measuredKind]{
		inform: func(context.Context, *delta.InformOptions) (<-chan measuredKind, error) { return nil, refuses },
	}))
	worker := h.client(config)
	require.NoError(t, worker.Start(context.Background()))
	for _, plan := range []string{"fine", "also fine", "hopeless", "gone", "retried"} {
		_, err := worker.Inform(t.Context(), figured{account{Name: plan, Plan: plan}}, &delta.InformOpts{Namespace: "tenant"})
		require.NoError(t, err)
	}
	until(t, func() bool {
		return h.countRows("SELECT count(*)::int FROM delta_resource WHERE state IN ('synced', 'degraded', 'deleted')") == 5
	})
	require.NoError(t, worker.ScheduleInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "measured"}, nil))
	until(t, func() bool {
		return h.countRows("SELECT count(*)::int FROM delta_shard WHERE failed_at IS NOT NULL") == 1
	})
	h.awaitListeners(1)
	first := scrapeAll(t, h.clientWithPool(h.config(), readsOnly))
	require.InDelta(t, 1, first["delta_clients"], 0)
	require.Contains(t, first, `delta_work_attempts_total{kind="measured",outcome="synced"}`, "uncounted values are 0")
	require.NoError(t, worker.Stop(t.Context()))

	h.awaitListeners(0)
	informer := h.client(h.config())
	for _, name := range []string{"a", "b"} {
		_, err := informer.Inform(t.Context(), measuredKind{account{Name: name}}, nil)
		require.NoError(t, err)
	}
	for _, sql := range []string{
		`UPDATE delta_resource SET dispatch_at = now() - interval '1 hour', due_at = now() - interval '1 hour' WHERE object_id = 'a'`,
		`UPDATE delta_shard SET succeeded_at = now() - interval '2 hours' WHERE kind = 'measured'`,
		`INSERT INTO delta_withheld (kind, missing, total, reason) VALUES ('measured', 12, 20, 'a test')`,
	} {
		_, err := h.Pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	found := scrapeAll(t, h.clientWithPool(h.config(), readsOnly))
	for name, wanted := range map[string]float64{
		"delta_database_up": 1,
		"delta_clients":     0,
		`delta_work_attempts_total{kind="figured",outcome="synced"}`:               3,
		`delta_work_attempts_total{kind="figured",outcome="degraded"}`:             1,
		`delta_work_attempts_total{kind="figured",outcome="deleted"}`:              1,
		`delta_work_attempts_total{kind="figured",outcome="failed"}`:               1,
		`delta_work_attempts_total{kind="figured",outcome="snoozed"}`:              0,
		`delta_work_attempt_duration_seconds_count{kind="figured"}`:                6,
		`delta_work_attempt_duration_seconds_bucket{kind="figured",le="+Inf"}`:     6,
		`delta_work_attempt_duration_seconds_bucket{kind="figured",le="8388.608"}`: 6,
		`delta_work_attempt_duration_seconds_bucket{kind="measured",le="0.001"}`:   0,
		`delta_outbox_due{kind="measured"}`:                                        2,
		`delta_outbox_due{kind="figured"}`:                                         0,
		`delta_pass_failing{kind="measured"}`:                                      1,
		`delta_deletions_withheld{kind="measured"}`:                                12,
		`delta_resources{kind="figured",namespace="tenant",state="synced"}`:        3,
		`delta_resources{kind="figured",namespace="tenant",state="degraded"}`:      1,
		`delta_resources{kind="measured",namespace="default",state="scheduled"}`:   2,
		`delta_late{kind="measured"}`:                                              1,
		`delta_late{kind="figured"}`:                                               0,
		`delta_late_age_seconds{kind="figured"}`:                                   0,
	} {
		require.Contains(t, found, name)
		require.InDelta(t, wanted, found[name], 0, name)
	}
	for name, least := range map[string]float64{
		`delta_work_attempt_duration_seconds_sum{kind="figured"}`: 0,
		`delta_outbox_age_seconds{kind="measured"}`:               3600,
		`delta_pass_age_seconds{kind="measured"}`:                 7200,
		`delta_pass_lag_seconds{kind="measured"}`:                 7200,
		`delta_late_age_seconds{kind="measured"}`:                 3600,
	} {
		require.Greater(t, found[name], least, name)
	}
}

func TestMetricsNeedNoRightToWrite(t *testing.T) {
	hostile.NeedsDirect(t, "its connections have parameters of their own")
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(nil)
	h.awaitListeners(1)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	role := pgx.Identifier{h.Schema + "_reader"}.Sanitize()
	for _, sql := range []string{"CREATE ROLE %[1]s", "GRANT USAGE ON SCHEMA %[2]s TO %[1]s", "GRANT SELECT ON ALL TABLES IN SCHEMA %[2]s TO %[1]s"} {
		_, err := h.Pool.Exec(t.Context(), fmt.Sprintf(sql, role, pgx.Identifier{h.Schema}.Sanitize()))
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, _ = h.Pool.Exec(context.Background(), fmt.Sprintf("DROP OWNED BY %[1]s; DROP ROLE %[1]s", role))
	})
	asReader := func(settings *pgxpool.Config) {
		settings.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET ROLE "+role)
			return err
		}
	}
	found := scrapeAll(t, h.clientWithPool(h.config(), asReader))
	require.Contains(t, found, `delta_late{kind="account"}`, "resources are counted")
	require.NotContains(t, found, "delta_clients", "the role cannot see the sessions of others")
	_, err = h.Pool.Exec(t.Context(), "GRANT pg_read_all_stats TO "+role)
	require.NoError(t, err)
	require.InDelta(t, 1, scrapeAll(t, h.clientWithPool(h.config(), asReader))["delta_clients"], 0)
}

func TestMetricsAreReadOnceForManyScrapes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	read := &statements{text: "-- name: MeasureDue"}
	c := h.clientWithPool(h.config(), func(settings *pgxpool.Config) { settings.ConnConfig.Tracer = read })
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	const counted = `delta_resources{kind="account",namespace="default",state="scheduled"}`
	require.InDelta(t, 1, scrapeAll(t, c)[counted], 0)
	began, before := time.Now(), read.n.Load()
	for range 20 {
		scrapeAll(t, c)
	}
	// A failed scrape, which scrapeAll repeats, is cached for a second.
	took := time.Since(began)
	require.LessOrEqual(t, read.n.Load()-before, int64(took/(10*time.Second))+1, "they are kept for 10 seconds; it took %s", took)

	_, err = c.Inform(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err)
	require.InDelta(t, 1, scrapeAll(t, c)[counted], 0, "they are counted every 5 minutes")
	var text bytes.Buffer
	until(t, func() bool { // they are read once, within 5 s
		text.Reset()
		return h.client(h.config()).WriteMetrics(t.Context(), &text) == nil
	})
	require.InDelta(t, 2, parseSamples(t, text.String())[counted], 0)

	config := h.config()
	config.CountResourcesInterval = -1
	for name := range scrapeMetrics(t, h.client(config)) {
		require.NotContains(t, name, "delta_resources")
		require.NotContains(t, name, "delta_late")
	}
}

func TestMetricsDoNotWaitForALongCount(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	slow := heldUp{statement: "CountStates", until: make(chan struct{})}
	c := h.clientWithPool(h.config(), func(settings *pgxpool.Config) { settings.ConnConfig.Tracer = slow })
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	const counted = `delta_resources{kind="account",namespace="default",state="scheduled"}`
	var found map[string]float64
	until(t, func() bool { found = scrapeMetrics(t, c); return found["delta_database_up"] == 1 })
	require.NotContains(t, found, counted)
	close(slow.until)
	until(t, func() bool { return scrapeMetrics(t, c)[counted] == 1 })
}

// heldUp is a tracer that delays a statement for as long as the test wants.
type heldUp struct {
	statement string
	until     chan struct{}
}

func (h heldUp) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "-- name: "+h.statement+" ") {
		select {
		case <-h.until:
		case <-ctx.Done():
		}
	}
	return ctx
}

func (heldUp) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestMetricsSayThatTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	hostile.NeedsDirect(t, "its connections have parameters of their own")
	h := newHarness(t)
	c := h.clientWithPool(h.config(), func(settings *pgxpool.Config) { settings.ConnConfig.Port = 1 })
	require.Equal(t, map[string]float64{"delta_database_up": 0}, scrapeMetrics(t, c))
	require.Error(t, c.WriteMetrics(t.Context(), new(bytes.Buffer)))
	require.Panics(t, func() { delta.Metrics(nil) })

	empty := h.Schema + "_without"
	_, err := h.Pool.Exec(t.Context(), "CREATE SCHEMA "+empty)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = h.Pool.Exec(context.Background(), fmt.Sprintf("DROP SCHEMA %s CASCADE", empty)) })
	c = h.clientWithPool(h.config(), func(settings *pgxpool.Config) { settings.ConnConfig.RuntimeParams["search_path"] = empty })
	require.ErrorIs(t, c.WriteMetrics(t.Context(), new(bytes.Buffer)), delta.ErrNoSchema)
}
