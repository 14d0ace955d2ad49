package deltaotel_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/deltaotel"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// patience is how long a test waits for an event that must come; see delta/harness_test.go.
const patience = 3 * time.Minute

type account struct {
	Name string `json:"name"`
	Plan string `json:"plan"`
}

func (a account) ID() string   { return a.Name }
func (a account) Kind() string { return "account" }

// accounts is a controller made of functions for Work, List and Finalize; nil functions do nothing.
type accounts struct {
	delta.WorkerDefaults[account]
	delta.InformerDefaults[account]
	work func(ctx context.Context, r *delta.Resource[account]) error
	list []account
	// broken makes listings fail.
	broken atomic.Bool
}

func (c *accounts) Work(ctx context.Context, r *delta.Resource[account]) error {
	if c.work == nil {
		return nil
	}
	return c.work(ctx, r)
}

func (c *accounts) Inform(context.Context, *delta.InformOptions) (<-chan account, error) {
	if c.broken.Load() {
		return nil, errors.New("the provider is down")
	}
	objects := make(chan account, len(c.list))
	for _, object := range c.list {
		objects <- object
	}
	close(objects)
	return objects, nil
}

// observed is a client with telemetry, and the recorded spans and metrics.
type observed struct {
	*deltatest.Env
	*delta.Client
	t      *testing.T
	spans  *tracetest.SpanRecorder
	tracer *trace.TracerProvider
	reader *metric.ManualReader
}

// startObserved starts a client with telemetry. change changes its Config; nil for no change.
func startObserved(t *testing.T, add func(*delta.Controllers), change func(*delta.Config)) *observed {
	t.Helper()
	o := &observed{Env: deltatest.New(t), t: t, spans: tracetest.NewSpanRecorder(), reader: metric.NewManualReader()}
	o.tracer = trace.NewTracerProvider(trace.WithSpanProcessor(o.spans))
	o.Client = o.newClient(add, change)
	return o
}

// newClient starts another client of the same database and telemetry.
func (o *observed) newClient(add func(*delta.Controllers), change func(*delta.Config)) *delta.Client {
	o.t.Helper()
	telemetry, err := deltaotel.New(&deltaotel.Config{
		TracerProvider: o.tracer, MeterProvider: metric.NewMeterProvider(metric.WithReader(o.reader)), ObjectIDs: true,
	})
	require.NoError(o.t, err)
	controllers := delta.NewControllers()
	add(controllers)
	config := &delta.Config{
		Controllers: controllers, Temporal: o.Temporal, TemporalNamespace: o.TemporalNamespace, WorkflowIDPrefix: o.Prefix, Telemetry: telemetry,
		Logger: slog.New(slog.NewTextHandler(o.t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
	}
	if change != nil {
		change(config)
	}
	client, err := delta.NewClient(o.Env.Pool, config)
	require.NoError(o.t, err)
	require.NoError(o.t, client.Start(context.Background()))
	o.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := client.Stop(ctx); err != nil {
			o.t.Logf("stop: %v", err)
		}
	})
	return client
}

// waitUntil waits until a condition holds.
func waitUntil(t *testing.T, is func() bool, why ...any) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(min(max(time.Since(began)/10, 5*time.Millisecond), 250*time.Millisecond)) {
		if time.Since(began) > patience {
			require.Fail(t, "what must come did not come", why...)
		}
	}
}

// waitForSpan waits for the nth ended span of a name.
func (o *observed) waitForSpan(name string, nth int) (found trace.ReadOnlySpan) {
	o.t.Helper()
	waitUntil(o.t, func() bool {
		all := o.spansNamed(name)
		if len(all) >= nth {
			found = all[nth-1]
		}
		return found != nil
	}, name)
	return found
}

func (o *observed) spansNamed(name string) (all []trace.ReadOnlySpan) {
	for _, span := range o.spans.Ended() {
		if span.Name() == name {
			all = append(all, span)
		}
	}
	return all
}

// attributeOf returns the value of a span's attribute.
func attributeOf(span trace.ReadOnlySpan, name string) any {
	for _, a := range span.Attributes() {
		if string(a.Key) == name {
			return a.Value.AsInterface()
		}
	}
	return nil
}

// collect reads all metrics.
func (o *observed) collect() (all []metricdata.Metrics) {
	o.t.Helper()
	var collected metricdata.ResourceMetrics
	require.NoError(o.t, o.reader.Collect(context.Background(), &collected))
	for _, scope := range collected.ScopeMetrics {
		all = append(all, scope.Metrics...)
	}
	return all
}

// readFigure returns the value of a metric with these labels, given as names and values: a sum, the last value of a gauge, or the count of a histogram.
func (o *observed) readFigure(name string, labels ...string) (float64, bool) {
	o.t.Helper()
	wanted := attribute.NewSet(makeAttributes(labels)...)
	for _, m := range o.collect() {
		if m.Name != name {
			continue
		}
		switch data := m.Data.(type) {
		case metricdata.Sum[float64]:
			return findPoint(data.DataPoints, wanted, func(p metricdata.DataPoint[float64]) (attribute.Set, float64) { return p.Attributes, p.Value })
		case metricdata.Sum[int64]:
			return findPoint(data.DataPoints, wanted, func(p metricdata.DataPoint[int64]) (attribute.Set, float64) { return p.Attributes, float64(p.Value) })
		case metricdata.Gauge[int64]:
			return findPoint(data.DataPoints, wanted, func(p metricdata.DataPoint[int64]) (attribute.Set, float64) { return p.Attributes, float64(p.Value) })
		case metricdata.Gauge[float64]:
			return findPoint(data.DataPoints, wanted, func(p metricdata.DataPoint[float64]) (attribute.Set, float64) { return p.Attributes, p.Value })
		case metricdata.Histogram[float64]:
			return findPoint(data.DataPoints, wanted, func(p metricdata.HistogramDataPoint[float64]) (attribute.Set, float64) {
				return p.Attributes, float64(p.Count)
			})
		default:
			o.t.Fatalf("%s is a %T", name, m.Data)
		}
	}
	return 0, false
}

func findPoint[P any](points []P, wanted attribute.Set, of func(P) (attribute.Set, float64)) (float64, bool) {
	at := slices.IndexFunc(points, func(p P) bool {
		labels, _ := of(p)
		return labels.Equals(&wanted)
	})
	if at < 0 {
		return 0, false
	}
	_, value := of(points[at])
	return value, true
}

func makeAttributes(labels []string) (all []attribute.KeyValue) {
	for i := 0; i < len(labels); i += 2 {
		all = append(all, attribute.String(labels[i], labels[i+1]))
	}
	return all
}

// waitForFigure waits until a metric has a value.
func (o *observed) waitForFigure(wanted float64, name string, labels ...string) {
	o.t.Helper()
	var last float64
	var there bool
	waitUntil(o.t, func() bool {
		last, there = o.readFigure(name, labels...)
		return there && last == wanted
	}, name, labels, "wanted", wanted)
}

func TestMain(m *testing.M) { cdctest.Main(m) }
