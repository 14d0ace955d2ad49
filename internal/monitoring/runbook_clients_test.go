//go:build runbook && linux

package monitoring

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/deltaotel"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/testproxy"
)

// invoice is synced while an alert is tried.
type invoice struct {
	Number string `json:"number"`
}

func (i invoice) ID() string { return i.Number }
func (invoice) Kind() string { return "invoice" }
func (invoice) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 50, InformInterval: time.Hour, CompleteListing: true}
}

// invoices is a controller whose Work and List are set by what is tried.
type invoices struct {
	delta.WorkerDefaults[invoice]
	delta.ListerDefaults[invoice]
	work func(ctx context.Context) error
	list func() ([]invoice, error)
}

func (i *invoices) Work(ctx context.Context, _ *delta.Resource[invoice]) error {
	if i.work == nil {
		return nil
	}
	return i.work(ctx)
}

func (i *invoices) List(context.Context, *delta.InformOptions) iter.Seq2[invoice, error] {
	return func(yield func(invoice, error) bool) {
		if i.list == nil {
			return
		}
		all, err := i.list()
		for _, one := range all {
			if !yield(one, nil) {
				return
			}
		}
		if err != nil {
			yield(invoice{}, err)
		}
	}
}

// installation is a database, a Temporal, and clients with telemetry.
type installation struct {
	*deltatest.Env
	t         *testing.T
	registry  *prom.Registry
	telemetry delta.Telemetry
	logs      *logs
}

func install(t *testing.T) *installation {
	t.Helper()
	env := *deltatest.New(t) // a copy, because connect changes it
	i := &installation{Env: &env, t: t, registry: prom.NewRegistry(), logs: &logs{}}
	exporter, err := prometheus.New(prometheus.WithRegisterer(i.registry), prometheus.WithoutScopeInfo(), prometheus.WithoutTargetInfo())
	require.NoError(t, err)
	i.telemetry, err = deltaotel.New(&deltaotel.Config{MeterProvider: metric.NewMeterProvider(metric.WithReader(exporter))})
	require.NoError(t, err)
	return i
}

func addressOf(server *cdctest.Private) string {
	return fmt.Sprintf("%s:%d", server.Config().Host, server.Config().Port)
}

// connect moves the installation to another server.
func (i *installation) connect(role, address string) {
	i.t.Helper()
	i.DatabaseURL = "postgres://" + role + "@" + address + "/postgres?sslmode=disable"
	pool, err := pgxpool.New(context.Background(), i.DatabaseURL)
	require.NoError(i.t, err)
	i.t.Cleanup(pool.Close)
	i.Pool = pool
}

func (i *installation) config(controllers func(*delta.Controllers)) *delta.Config {
	config := &delta.Config{
		Temporal: i.Temporal, TemporalNamespace: i.TemporalNamespace, WorkflowIDPrefix: i.Prefix, Telemetry: i.telemetry,
		Logger: slog.New(slog.NewTextHandler(i.logs, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	if controllers != nil {
		config.Controllers = delta.NewControllers()
		controllers(config.Controllers)
	}
	return config
}

func (i *installation) client(config *delta.Config) *delta.Client {
	i.t.Helper()
	c, err := delta.NewClient(i.Pool, config)
	require.NoError(i.t, err)
	return c
}

func (i *installation) start(config *delta.Config) *delta.Client {
	i.t.Helper()
	c := i.client(config)
	require.NoError(i.t, c.Start(context.Background()))
	i.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Stop(ctx)
	})
	return c
}

func (i *installation) startInvoices(controller *invoices) *delta.Client {
	i.t.Helper()
	return i.start(i.config(func(c *delta.Controllers) { delta.AddController(c, controller) }))
}

func (i *installation) inform(c *delta.Client, count int) {
	i.t.Helper()
	for n := range count {
		_, err := c.Inform(i.t.Context(), invoice{Number: fmt.Sprintf("INV-%02d", n)}, nil)
		require.NoError(i.t, err)
	}
}

func (i *installation) exec(sql string, arguments ...any) {
	i.t.Helper()
	_, err := i.Pool.Exec(i.t.Context(), sql, arguments...)
	require.NoError(i.t, err)
}

// ofClients returns what the started clients export with deltaotel.
func (i *installation) ofClients() string {
	i.t.Helper()
	families, err := i.registry.Gather()
	require.NoError(i.t, err)
	var text strings.Builder
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&text, family)
		require.NoError(i.t, err)
	}
	return text.String()
}

func (i *installation) delta(arguments ...string) string {
	i.t.Helper()
	return command(i.t, []string{
		"DELTA_DATABASE_URL=" + i.DatabaseURL, "TEMPORAL_ADDRESS=" + i.TemporalAddress, "TEMPORAL_NAMESPACE=" + i.TemporalNamespace,
	}, arguments...)
}

// ofDatabase returns what `delta metrics` exposes.
func (i *installation) ofDatabase() string {
	return i.delta("metrics", "--once", "--count-every", "-1s")
}

// awaitTotal waits until the samples of a counter of clients add up to so many.
func (i *installation) awaitTotal(name string, atLeast float64) {
	i.t.Helper()
	await(i.t, name, func() bool {
		total := 0.0
		for _, value := range samplesOf(i.ofClients(), map[string]bool{name: true}) {
			total += value
		}
		return total >= atLeast
	})
}

func (i *installation) awaitSample(series, value string) {
	i.t.Helper()
	await(i.t, series, func() bool { return strings.Contains("\n"+i.ofDatabase(), "\n"+series+" "+value) })
}

func TestTryDeltaClientsGone(t *testing.T) {
	i := install(t)
	c := i.client(i.config(func(c *delta.Controllers) { delta.AddController(c, &invoices{}) }))
	i.inform(c, 3)
	evidence{alert: "DeltaClientsGone", now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "client|worker|late|invoice|warning")}}.record(t)
}

func TestTryDeltaPartDown(t *testing.T) {
	i := install(t)
	proxy := testproxy.New(t, i.TemporalAddress)
	through, err := client.Dial(client.Options{HostPort: proxy.Address, Namespace: i.TemporalNamespace, Logger: delta.TemporalLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	defer through.Close()
	config := i.config(func(c *delta.Controllers) { delta.AddController(c, &invoices{}) })
	config.Temporal = through
	c := i.start(config)
	proxy.Refuse()
	i.inform(c, 3)
	await(t, "down", func() bool { return strings.Contains(i.ofClients(), `delta_up{kind="",part="temporal"} 0`) })
	health := c.Health(t.Context())
	require.Error(t, health)
	evidence{alert: "DeltaPartDown", now: i.ofClients(), seen: []string{
		"Client.Health: " + health.Error(), i.logs.latest("level=(WARN|ERROR)"),
		keep(command(t, []string{"DELTA_DATABASE_URL=" + i.DatabaseURL, "TEMPORAL_ADDRESS=" + proxy.Address, "TEMPORAL_NAMESPACE=" + i.TemporalNamespace}, "doctor"), "temporal|warning"),
	}}.record(t)
}

func TestTryDeltaDegrades(t *testing.T) {
	i := install(t)
	c := i.startInvoices(&invoices{work: func(context.Context) error {
		return delta.ResourceDegrade(errors.New("422: the account is closed"))
	}})
	before := i.ofClients()
	i.inform(c, 50)
	i.awaitTotal("delta_work_attempts_total", 50)
	evidence{alert: "DeltaDegrades", before: before + "\n", now: i.ofClients(), seen: []string{i.delta("resources", "list", "--state", "degraded", "--limit", "2"), keep(i.delta("doctor"), "degrad|warning")}}.record(t)
}

func TestTryDeltaFails(t *testing.T) {
	i := install(t)
	c := i.startInvoices(&invoices{work: func(context.Context) error { return errors.New("503: upstream unavailable") }})
	before := i.ofClients()
	i.inform(c, 50)
	i.awaitTotal("delta_work_attempts_total", 50)
	evidence{alert: "DeltaFails", before: before + "\n", now: i.ofClients(), seen: []string{i.delta("kinds"), i.delta("resources", "explain", "invoice", "INV-00")}}.record(t)
}

func TestTryDeltaOutboxOld(t *testing.T) {
	i := install(t)
	c := i.client(i.config(func(c *delta.Controllers) { delta.AddController(c, &invoices{}) }))
	require.NoError(t, c.Start(t.Context()))
	require.NoError(t, c.Stop(t.Context()))
	c = i.client(i.config(nil))
	i.inform(c, 3)
	i.exec(`UPDATE delta_resource SET dispatch_at = dispatch_at - interval '10 minutes', due_at = due_at - interval '10 minutes'`)
	evidence{alert: "DeltaOutboxOld", now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "late|worker|client|schedule|warning"), i.delta("resources", "explain", "invoice", "INV-00")}}.record(t)
}

func TestTryDeltaInformerLateAndFails(t *testing.T) {
	i := install(t)
	c := i.startInvoices(&invoices{list: func() ([]invoice, error) { return nil, errors.New("401: the key was revoked") }})
	_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "invoice", RunForeground: true}, nil)
	require.Error(t, err)
	i.awaitSample(`delta_pass_failing{kind="invoice"}`, "1")
	evidence{alert: "DeltaInformerFails", now: i.ofDatabase(), seen: []string{i.delta("kinds"), i.delta("informs", "invoice"), keep(i.delta("doctor"), "inform|listing|pass|warning")}}.record(t)
	i.exec(`UPDATE delta_shard SET succeeded_at = now() - interval '7 hours'`)
	evidence{alert: "DeltaInformerLate", now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "inform|listing|pass|warning"), i.logs.latest("level=(WARN|ERROR).*pass|inform")}}.record(t)
}

func TestTryDeltaDeletionsWithheld(t *testing.T) {
	i := install(t)
	var gone atomic.Bool
	c := i.startInvoices(&invoices{list: func() (all []invoice, err error) {
		count := 40
		if gone.Load() {
			count = 2
		}
		for n := range count {
			all = append(all, invoice{Number: fmt.Sprintf("INV-%02d", n)})
		}
		return all, nil
	}})
	run := func() {
		_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "invoice", RunForeground: true}, nil)
		require.NoError(t, err)
	}
	run()
	gone.Store(true)
	run()
	i.awaitSample(`delta_deletions_withheld{kind="invoice"}`, "38")
	evidence{alert: "DeltaDeletionsWithheld", now: i.ofDatabase(), seen: []string{i.delta("kinds"), keep(i.delta("doctor"), "withheld|warning"), i.delta("informs", "dismiss", "--help")}}.record(t)
}

func TestTryDeltaDatabaseDownAndClaimsLost(t *testing.T) {
	i := install(t)
	server := cdctest.NewPrivate(t)
	proxy := testproxy.New(t, addressOf(server))
	i.connect("postgres", proxy.Address)
	require.NoError(t, delta.Migrate(t.Context(), i.Pool))
	config := i.config(func(c *delta.Controllers) {
		delta.AddController(c, &invoices{work: func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }})
	})
	config.Kinds = map[string]delta.ObjectSettings{"invoice": {HeartbeatTimeout: 2 * time.Second}}
	c := i.start(config)
	address, stderr := serveCommand(t, []string{"DELTA_DATABASE_URL=" + i.DatabaseURL}, "metrics", "--listen", "127.0.0.1:0")
	i.inform(c, 45)
	await(t, "working", func() bool {
		return strings.Contains(i.ofClients(), `delta_work_active{kind="invoice",namespace="default",operation="work"} 45`)
	})
	before := i.ofClients()
	proxy.Refuse()
	await(t, "lost", func() bool {
		return strings.Contains(i.ofClients(), `delta_claims_lost_total{kind="invoice",namespace="default"} 45`)
	})
	evidence{alert: "DeltaClaimsLost", before: before, now: i.ofClients(), seen: []string{i.logs.latest("claim"), i.logs.latest("level=ERROR")}}.record(t)
	text := scrape(t, address)
	evidence{alert: "DeltaDatabaseDown", now: text, seen: []string{stderr.latest("."), i.delta("doctor")}}.record(t)
}

func TestTryDeltaListenerDown(t *testing.T) {
	i := install(t)
	server := cdctest.NewPrivate(t)
	i.connect("postgres", addressOf(server))
	require.NoError(t, delta.Migrate(t.Context(), i.Pool))
	server.Exec(`CREATE ROLE app LOGIN`, `GRANT USAGE ON SCHEMA public TO app`,
		`GRANT ALL ON ALL TABLES IN SCHEMA public TO app`, `GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app`)
	i.connect("app", addressOf(server))
	c := i.startInvoices(&invoices{})
	await(t, "listens", func() bool { return strings.Contains(i.ofClients(), `delta_up{kind="",part="listener"} 1`) })
	server.Exec(`ALTER ROLE app CONNECTION LIMIT 1`, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND query ILIKE 'listen%'`)
	await(t, "down", func() bool { return strings.Contains(i.ofClients(), `delta_up{kind="",part="listener"} 0`) })
	seen := []string{i.logs.latest("(?i)listen")}
	if err := c.Health(t.Context()); err != nil {
		seen = append(seen, "Client.Health: "+err.Error())
	}
	evidence{alert: "DeltaListenerDown", now: i.ofClients(), seen: seen}.record(t)
}
