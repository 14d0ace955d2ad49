//go:build linux

package monitoring

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/deltaotel"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
)

// clientFamilies returns all metrics of deltaotel as OpenTelemetry's exporter gives them to Prometheus: those of a client, and those of real consumers and
// streams.
func clientFamilies(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	registry := prom.NewRegistry()
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithoutScopeInfo(), prometheus.WithoutTargetInfo())
	require.NoError(t, err)
	provider := metric.NewMeterProvider(metric.WithReader(exporter))
	telemetry, err := deltaotel.New(&deltaotel.Config{MeterProvider: provider})
	require.NoError(t, err)
	ctx := context.Background()
	const kind, namespace = "account", "default"
	_, end := telemetry.StartSpan(ctx, delta.Span{Operation: delta.OperationWork, Kind: kind, Namespace: namespace, Resources: make([]delta.SpanResource, 1)})
	end(delta.SpanEnd{Outcome: delta.OutcomeSynced})
	_, end = telemetry.StartSpan(ctx, delta.Span{Operation: delta.OperationInform, Kind: kind})
	end(delta.SpanEnd{})
	for _, measurement := range []delta.Measurement{
		delta.AttemptMeasurement{Operation: delta.OperationWork, Kind: kind, Namespace: namespace, Outcome: delta.OutcomeSynced},
		delta.InformMeasurement{Kind: kind, Namespace: namespace, Operation: delta.OperationInform, Result: delta.InformNew, Objects: 1},
		delta.PassMeasurement{Kind: kind, New: 1, Deleted: 1, Err: errors.New("down")},
		delta.DispatchMeasurement{Kind: kind, Way: delta.DispatchBatch, Workflows: 1},
		delta.ClaimsLostMeasurement{Kind: kind, Namespace: namespace, Resources: 1},
		delta.DroppedMeasurement{What: "events", Count: 1},
		delta.ClientMeasurement{Parts: []delta.PartMeasurement{{Part: delta.HealthWorker, Kind: kind}}, Slots: map[string]int{kind: 1}},
		delta.DatabaseMeasurement{
			Due:     []delta.DueMeasurement{{Kind: kind}},
			States:  []delta.StateMeasurement{{Kind: kind, Namespace: namespace, State: deltatype.ResourceStateSynced, Count: 1}},
			Passes:  []delta.LastPassMeasurement{{Kind: kind, Age: new(time.Duration)}},
			Refused: []delta.RefusedMeasurement{{Kind: kind, Count: 1}},
			Touches: []delta.TouchMeasurement{{Kind: kind, Count: 1}},
			Sources: []delta.SourceMeasurement{{
				Kind: kind, Name: "table public.account", Phase: delta.SourceFollowing, Lag: new(time.Duration), BehindBytes: new(int64), BehindMessages: new(int64),
			}},
			Consumers: []delta.ChangeConsumerMeasurement{{Name: "bills"}},
		},
	} {
		telemetry.Record(ctx, measurement)
	}
	observeLeaves(t, provider)
	families, err := registry.Gather()
	require.NoError(t, err)
	return families
}

// observeLeaves registers the metrics of messagedb and cdc.
func observeLeaves(t *testing.T, provider *metric.MeterProvider) {
	t.Helper()
	d := cdctest.New(t)
	require.NoError(t, messagedb.Migrate(t.Context(), d.Pool, messagedb.DefaultSchema))
	client, err := messagedb.NewClient(d.Pool, &messagedb.Config{})
	require.NoError(t, err)
	nothing := func(context.Context, *messagedb.Message) error { return nil }
	consumer, err := client.NewConsumer(messagedb.ConsumerConfig{Category: "account", Handler: nothing})
	require.NoError(t, err)
	projector, err := client.NewProjector(messagedb.ProjectorConfig{Name: "accounts", Category: "account"})
	require.NoError(t, err)
	require.NoError(t, messagedb.MigrateProjections(t.Context(), d.Pool, ""))
	subscription, err := client.SubscribeToCategory(t.Context(), "account", nothing, messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{})
	require.NoError(t, err)
	d.Exec("CREATE TABLE account (id int PRIMARY KEY)", "CREATE PUBLICATION accounts FOR TABLE account",
		"SELECT pg_create_logical_replication_slot('"+d.Name+"', 'pgoutput')")
	stream, err := cdc.Open(t.Context(), cdc.Config{Conn: d.Config(), Slot: d.Name, Publications: []string{"accounts"}, Heartbeat: time.Second})
	require.NoError(t, err)
	_, err = deltaotel.ObserveConsumer(provider, "", consumer)
	require.NoError(t, err)
	_, err = deltaotel.ObserveProjector(provider, "", projector)
	require.NoError(t, err)
	_, err = deltaotel.ObserveSubscription(provider, "audit", subscription)
	require.NoError(t, err)
	_, err = deltaotel.ObserveMessages(provider, "ledger", client)
	require.NoError(t, err)
	_, err = deltaotel.ObserveStream(provider, "accounts", stream)
	require.NoError(t, err)
	relay, err := sinks.NewRelay(sinks.Config{
		Source: sinks.NewStreamSource(stream, sinks.StreamConfig{}), Sink: sinks.SinkFunc(func(context.Context, []sinks.Message) []error { return nil }),
	})
	require.NoError(t, err)
	_, err = deltaotel.ObserveRelay(provider, "accounts", relay)
	require.NoError(t, err)
	t.Cleanup(func() {
		subscription.Stop()
		_ = subscription.Err()
		stream.Close()
	})
}

var metricRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*) \\| [^|]+ \\| ([^|]*) \\|$")

const metricsDocument = "../../docs/metrics.md"

// The table of docs/metrics.md has exactly the exposed metrics, with types and labels. Alerts and the dashboard use only exposed metrics.
func TestClientsAreMonitoredByWhatTheyExpose(t *testing.T) {
	t.Parallel()
	families := clientFamilies(t)
	families = append(families, onlyOfInstallation(t, families)...)
	text, err := os.ReadFile(metricsDocument)
	require.NoError(t, err)
	documented := map[string][]string{}
	for _, row := range metricRow.FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2:]
	}
	var exposition strings.Builder
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&exposition, family)
		require.NoError(t, err)
		row, ok := documented[family.GetName()]
		require.True(t, ok, "%s is not in %s", family.GetName(), metricsDocument)
		require.Equal(t, strings.ToLower(family.GetType().String()), row[0], family.GetName())
		var labels []string
		for label := range labelsOf(family) {
			if label != "job" && label != "instance" {
				labels = append(labels, label)
			}
		}
		wanted := strings.FieldsFunc(row[1], func(r rune) bool { return r == ',' || r == ' ' })
		require.ElementsMatch(t, wanted, labels, family.GetName())
		delete(documented, family.GetName())
	}
	require.Empty(t, documented, "documented, and not exposed")

	all := parseExposition(t, exposition.String())
	checked := 0
	for name, rule := range alertRules(t) {
		if isOfClients(name) {
			checked++
			all.check(t, name, rule.Expr)
			require.NotEmpty(t, rule.Annotations["summary"], name)
			require.Regexp(t, "^(warning|critical)$", rule.Labels["severity"], name)
		}
	}
	require.Positive(t, checked)
	for _, one := range readUnitTests(t).Tests {
		if isOfClients(one.Name) {
			for _, series := range one.InputSeries {
				all.check(t, one.Name, series.Series)
			}
		}
	}
	for _, query := range dashboardQueries(t, deploy+"grafana/delta.json") {
		all.check(t, query.where, query.expression)
	}
}

// isOfClients reports whether an alert, or its test, is about clients and not about delta stream.
func isOfClients(name string) bool { return !strings.HasPrefix(name, "DeltaStream") }

// A relay has the same metrics without a collector as with one: names, types, labels and help.
func TestRelaysHaveTheSameMetricsWithoutACollector(t *testing.T) {
	t.Parallel()
	ofClients := map[string]*dto.MetricFamily{}
	for _, family := range clientFamilies(t) {
		ofClients[family.GetName()] = family
	}
	var text strings.Builder
	require.NoError(t, sinks.WriteMetrics(&text, map[string]sinks.Stats{"accounts": {}}))
	parseExposition(t, text.String()) // promlint
	textParser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := textParser.TextToMetricFamilies(strings.NewReader(text.String()))
	require.NoError(t, err)
	require.Len(t, families, 8)
	for name, family := range families {
		other := ofClients[name]
		require.NotNil(t, other, name)
		require.Equal(t, other.GetType(), family.GetType(), name)
		require.Equal(t, other.GetHelp(), family.GetHelp(), name)
		require.Equal(t, labelsOf(other), labelsOf(family), name)
		require.Len(t, family.GetMetric(), len(other.GetMetric()), name)
	}
}

// The table of docs/metrics.md names the alerts that use a metric.
func TestClientAlertsAreDocumentedByTheirMetrics(t *testing.T) {
	t.Parallel()
	documented := documentedAlerts(t, metricsDocument)
	for name, rule := range alertRules(t) {
		if !isOfClients(name) {
			continue
		}
		parsed, err := promQL.ParseExpr(rule.Expr)
		require.NoError(t, err)
		used := map[string]bool{}
		parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
			if selector, ok := node.(*parser.VectorSelector); ok {
				used[selector.Name] = true
			}
			return nil
		})
		for metric := range used {
			require.Contains(t, documented[metric], name, metric)
			documented[metric] = remove(documented[metric], name)
		}
	}
	for metric, alerts := range documented {
		require.Empty(t, alerts, "%s is said to be used by alerts that do not use it", metric)
	}
}
