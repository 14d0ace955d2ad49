//go:build runbook && linux

package monitoring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/deltaotel"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/testproxy"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/changelog"
)

// exported is a MeterProvider, and what Prometheus sees of it.
func exported(t *testing.T) (*metric.MeterProvider, func() string) {
	t.Helper()
	registry := prom.NewRegistry()
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithoutScopeInfo(), prometheus.WithoutTargetInfo())
	require.NoError(t, err)
	return metric.NewMeterProvider(metric.WithReader(exporter)), func() string {
		families, err := registry.Gather()
		require.NoError(t, err)
		var text strings.Builder
		for _, family := range families {
			_, err := expfmt.MetricFamilyToText(&text, family)
			require.NoError(t, err)
		}
		return text.String()
	}
}

func TestTryMessages(t *testing.T) {
	d := cdctest.New(t)
	require.NoError(t, messagedb.Migrate(t.Context(), d.Pool, messagedb.DefaultSchema))
	require.NoError(t, messagedb.MigrateProjections(t.Context(), d.Pool, ""))
	client, err := messagedb.NewClient(d.Pool, &messagedb.Config{})
	require.NoError(t, err)
	url := fmt.Sprintf("postgres://%s:%s@%s:%d/%s", d.Config().User, d.Config().Password, d.Config().Host, d.Config().Port, d.Name)
	run := func(arguments ...string) string {
		return command(t, []string{"DELTA_DATABASE_URL=" + url}, arguments...)
	}
	for n := range 3 {
		_, err := client.WriteMessage(t.Context(), messagedb.StreamName(fmt.Sprintf("order-%d", n)), messagedb.ProposedMessage{Type: "Placed", Data: map[string]int{"cents": 100 * n}}, messagedb.AnyVersion)
		require.NoError(t, err)
	}
	d.Exec(`UPDATE message_store.messages SET time = time - interval '10 minutes'`)
	provider, text := exported(t)
	consumer, err := client.NewConsumer(messagedb.ConsumerConfig{
		Category: "order", ErrorPolicy: messagedb.ErrorPolicy{Retries: 1, Delay: 10 * time.Millisecond, Skip: true},
		Handler: func(context.Context, *messagedb.Message) error { return errors.New("no such customer") },
	})
	require.NoError(t, err)
	projector, err := client.NewProjector(messagedb.ProjectorConfig{
		Name: "totals", Category: "order", ErrorPolicy: messagedb.ErrorPolicy{Retries: 1, Delay: 10 * time.Millisecond, Skip: true},
		Handler: func(context.Context, pgx.Tx, *messagedb.Message) error {
			return errors.New("column cents is of type integer")
		},
	})
	require.NoError(t, err)
	for _, observe := range []func() (func(), error){
		func() (func(), error) { return deltaotel.ObserveConsumer(provider, "orders", consumer) },
		func() (func(), error) { return deltaotel.ObserveProjector(provider, "totals", projector) },
	} {
		stop, err := observe()
		require.NoError(t, err)
		t.Cleanup(stop)
	}
	before := text()
	lag := run("messages", "lag", "order")
	evidence{alert: "DeltaConsumerLags", now: before, seen: []string{lag}}.record(t)
	evidence{alert: "DeltaProjectorLags", now: before, seen: []string{lag}}.record(t)
	for _, one := range []interface {
		Run(ctx context.Context) error
	}{consumer, projector} {
		defer inBackground(one.Run)()
	}
	await(t, "skipped", func() bool {
		now := text()
		return strings.Contains(now, `messagedb_consumer_messages_total{consumer="orders",outcome="skipped"} 3`) &&
			strings.Contains(now, `messagedb_projector_messages_total{outcome="skipped",projector="totals"} 3`)
	})
	evidence{alert: "DeltaConsumerSkips", before: before, now: text(), seen: []string{run("messages", "tail", string(consumer.SkippedStream()), "--limit", "1")}}.record(t)
	evidence{alert: "DeltaProjectorSkips", before: before, now: text(), seen: []string{run("messages", "tail", string(projector.SkippedStream()), "--limit", "1")}}.record(t)
}

func TestTryDeltaChangesLate(t *testing.T) {
	p := cdctest.NewPrivate(t, "wal_level=logical")
	p.Exec(`create table account (id int primary key)`, `create publication accounts for table account`, `select pg_create_logical_replication_slot('accounts', 'pgoutput')`)
	proxy := testproxy.New(t, addressOf(p))
	config := p.Config()
	config.Host, config.Port = proxy.Host, proxy.Port
	provider, text := exported(t)
	stream, err := cdc.Open(t.Context(), cdc.Config{Conn: config, Slot: "accounts", Publications: []string{"accounts"}, Heartbeat: time.Second})
	require.NoError(t, err)
	defer stream.Close()
	_, err = deltaotel.ObserveStream(provider, "accounts", stream)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for {
			tx, err := stream.Next(ctx)
			if err != nil {
				return
			}
			_ = stream.Ack(tx.EndLSN)
		}
	}()
	await(t, "heartbeats", func() bool {
		return samplesOf(text(), map[string]bool{"cdc_stream_heartbeats_total": true})[`cdc_stream_heartbeats_total{stream="accounts"}`] > 1
	})
	proxy.Freeze()
	await(t, "late", func() bool {
		return samplesOf(text(), map[string]bool{"cdc_stream_delay_seconds": true})[`cdc_stream_delay_seconds{stream="accounts"}`] > 5
	})
	evidence{alert: "DeltaChangesLate", lowered: [2]string{"> 60", "> 5"}, now: text(), seen: []string{
		"$ psql -c \"SELECT slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) FROM pg_replication_slots\"\n" +
			cdctest.Query[string](p.Database, `SELECT format('%s | %s | %s', slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)) FROM pg_replication_slots`),
	}}.record(t)
}

// row is a row of a table that is a source.
type row struct {
	CustomerID string
	Plan       string
}

func (r row) ID() string { return r.CustomerID }
func (row) Kind() string { return "customer" }

type rows struct{ delta.WorkerDefaults[row] }

func (rows) Work(context.Context, *delta.Resource[row]) error { return nil }

func TestTrySources(t *testing.T) {
	i := install(t)
	p := cdctest.NewPrivate(t, "wal_level=logical")
	i.connect("postgres", addressOf(p))
	require.NoError(t, delta.Migrate(t.Context(), i.Pool))
	p.Exec(`create table customer (customer_id text primary key, plan text not null)`, `insert into customer values ('ann', 'free'), ('bob', 'free')`)
	i.start(i.config(func(c *delta.Controllers) {
		bridge.Table(c, rows{}, bridge.TableConfig[row]{Table: "customer"})
	}))
	i.awaitSample(`delta_source_phase{kind="customer",source="table public.customer",phase="following"}`, "1")
	tx, err := i.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `SELECT 1 FROM delta_resource WHERE object_id = 'ann' FOR UPDATE`)
	require.NoError(t, err)
	p.Exec(`update customer set plan = 'gold' where customer_id = 'ann'`)
	i.awaitSample(`delta_source_phase{kind="customer",source="table public.customer",phase="waiting"}`, "1")
	evidence{alert: "DeltaSourceLags", lowered: [2]string{"> 300", "> 5"}, now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "source|warning"), i.logs.latest("level=WARN")}}.record(t)
	require.NoError(t, tx.Rollback(t.Context()))
	i.awaitSample(`delta_source_phase{kind="customer",source="table public.customer",phase="following"}`, "1")
	p.Exec(`ALTER TABLE customer RENAME COLUMN customer_id TO number`, `update customer set plan = 'lead'`)
	i.awaitSample(`delta_source_phase{kind="customer",source="table public.customer",phase="failed"}`, "1")
	evidence{alert: "DeltaSourceStopped", now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "source|warning"), i.logs.latest("level=(WARN|ERROR)")}}.record(t)
}

// payment is a child of an invoice.
type payment struct {
	Name string `json:"name"`
}

func (p payment) ID() string         { return p.Name }
func (payment) Kind() string         { return "payment" }
func (payment) Parents() []delta.Ref { return []delta.Ref{{Kind: "order", ObjectID: "o"}} }
func (payment) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{TouchedBy: []string{"order"}}
}

type payments struct {
	delta.WorkerDefaults[payment]
	delta.NoInformer[payment]
}

func (payments) Work(context.Context, *delta.Resource[payment]) error { return nil }

// order is logged, and the parent of payments.
type order struct {
	Name string `json:"name"`
	Plan string `json:"plan"`
}

func (o order) ID() string                   { return o.Name }
func (order) Kind() string                   { return "order" }
func (order) Settings() delta.ObjectSettings { return delta.ObjectSettings{Log: true} }

type orders struct {
	delta.WorkerDefaults[order]
	delta.NoInformer[order]
}

func (orders) Work(context.Context, *delta.Resource[order]) error { return nil }

func TestTryDeltaTouchesLate(t *testing.T) {
	i := install(t)
	both := i.config(func(c *delta.Controllers) { delta.AddController(c, payments{}); delta.AddController(c, orders{}) })
	c := i.client(both)
	require.NoError(t, c.Start(context.Background()))
	_, err := c.Sync(t.Context(), order{Name: "o"}, nil)
	require.NoError(t, err)
	_, err = c.Sync(t.Context(), payment{Name: "p"}, nil)
	require.NoError(t, err)
	require.NoError(t, c.Stop(t.Context()))
	c = i.start(i.config(func(c *delta.Controllers) { delta.AddController(c, orders{}) }))
	_, err = c.Sync(t.Context(), order{Name: "o", Plan: "gold"}, nil)
	require.NoError(t, err)
	i.awaitSample(`delta_touches{kind="payment"}`, "1")
	i.exec(`UPDATE delta_touch SET changed_at = changed_at - interval '20 minutes'`)
	evidence{alert: "DeltaTouchesLate", now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "touch|worker|warning")}}.record(t)
}

func TestTryTheLogOfChanges(t *testing.T) {
	i := install(t)
	c := i.start(i.config(func(c *delta.Controllers) { delta.AddController(c, orders{}) }))
	consume := func() (stop func()) {
		return inBackground(func(ctx context.Context) error {
			return c.ConsumeChanges(ctx, delta.ChangeConsumer{Name: "bills", Handle: func(context.Context, *delta.ChangeBatch) error { return nil }})
		})
	}
	_, err := c.Sync(t.Context(), order{Name: "first"}, nil)
	require.NoError(t, err)
	stop := consume()
	i.awaitSample(`delta_change_consumer_running{consumer="bills",member=""}`, "1")
	i.awaitSample(`delta_change_consumer_behind{consumer="bills",member=""}`, "0")

	tx, err := i.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `CREATE TABLE held (id int)`)
	require.NoError(t, err)
	_, err = c.Sync(t.Context(), order{Name: "second"}, nil)
	require.NoError(t, err)
	await(t, "held", func() bool {
		return samplesOf(i.ofDatabase(), map[string]bool{"delta_changes_held_age_seconds": true})["delta_changes_held_age_seconds"] > 5
	})
	evidence{alert: "DeltaChangesHeld", lowered: [2]string{"> 300", "> 5"}, now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "change|log|warning")}}.record(t)
	require.NoError(t, tx.Rollback(t.Context()))

	stop()
	_, err = c.Sync(t.Context(), order{Name: "third"}, nil)
	require.NoError(t, err)
	i.awaitSample(`delta_change_consumer_running{consumer="bills",member=""}`, "0")
	evidence{alert: "DeltaChangeConsumerGone", now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "change|consumer|log|warning")}}.record(t)
	await(t, "lag", func() bool {
		return samplesOf(i.ofDatabase(), map[string]bool{"delta_change_consumer_lag_seconds": true})[`delta_change_consumer_lag_seconds{consumer="bills",member=""}`] > 3
	})
	evidence{alert: "DeltaChangeConsumerLags", lowered: [2]string{"> 900", "> 3"}, now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "change|consumer|log|warning")}}.record(t)

	// As a client does when it drops the partition of a day after MaxChangeRetentionPeriod.
	i.exec(`SELECT delta_note_removed_changes(order_xid, id) FROM delta_change ORDER BY order_xid DESC, id DESC LIMIT 1`)
	i.exec(`DELETE FROM delta_change`)
	i.awaitSample(`delta_change_consumer_lost{consumer="bills",member=""}`, "1")
	evidence{alert: "DeltaChangeConsumerLost", now: i.ofDatabase(), seen: []string{keep(i.delta("doctor"), "change|consumer|log|warning")}}.record(t)
}

func TestTrySinks(t *testing.T) {
	i := install(t)
	c := i.start(i.config(func(c *delta.Controllers) { delta.AddController(c, orders{}) }))
	provider, text := exported(t)
	open := func(name string, change func(*sinks.Config)) *sinks.Relay {
		source, err := changelog.New(changelog.Config{Client: c, Consumer: delta.ChangeConsumer{Name: name}})
		require.NoError(t, err)
		config := sinks.Config{Source: source, Logger: i.config(nil).Logger}
		change(&config)
		relay, err := sinks.NewRelay(config)
		require.NoError(t, err)
		_, err = deltaotel.ObserveRelay(provider, name, relay)
		require.NoError(t, err)
		return relay
	}
	run := func(relay *sinks.Relay) {
		t.Cleanup(inBackground(relay.Run))
	}
	refuse := func(err error) sinks.Sink {
		return sinks.SinkFunc(func(_ context.Context, messages []sinks.Message) []error { return sinks.FailAll(len(messages), err) })
	}
	away := open("away", func(c *sinks.Config) { c.Sink = refuse(errors.New("dial tcp 10.0.0.9:4222: connection refused")) })
	var setAside []string
	picky := open("picky", func(c *sinks.Config) {
		c.Sink = refuse(sinks.Permanent(errors.New("413: the message is too large")))
		c.Undeliverable = sinks.SetAside
		c.SetAside = func(_ context.Context, m sinks.Message, reason error) error {
			encoded, err := json.Marshal(map[string]string{"key": m.Key, "reason": reason.Error()})
			setAside = append(setAside, string(encoded))
			return err
		}
	})
	open("stopped", func(c *sinks.Config) { c.Sink = refuse(nil) })
	before := text()
	run(away)
	run(picky)
	for n := range 3 {
		_, err := c.Sync(t.Context(), order{Name: fmt.Sprint(n)}, nil)
		require.NoError(t, err)
	}
	await(t, "set aside", func() bool {
		return strings.Contains(text(), `delta_sink_messages_total{outcome="set_aside",relay="picky"} 3`)
	})
	evidence{alert: "DeltaSinkSetsAside", before: before, now: text(), seen: []string{i.logs.latest("413"), "set aside: " + setAside[0]}}.record(t)
	await(t, "late", func() bool {
		return samplesOf(text(), map[string]bool{"delta_sink_age_seconds": true})[`delta_sink_age_seconds{relay="away"}`] > 5
	})
	evidence{alert: "DeltaSinkLags", lowered: [2]string{"> 300", "> 5"}, now: text(), seen: []string{i.logs.latest("refused")}}.record(t)
	evidence{alert: "DeltaSinkStopped", now: text(), seen: []string{keep(i.delta("doctor"), "change|consumer|log|warning")}}.record(t)
}

// inBackground runs a function until stop is called, which waits for its end.
func inBackground(run func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = run(ctx) // the error of the canceled context
	}()
	return func() { cancel(); <-done }
}
