package deltaotel_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/deltaotel"
)

// nowhere is an exporter that discards spans.
type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []trace.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                          { return nil }

// newBenchTelemetry returns a Telemetry like that of a program: spans go through the SDK's queue, and a share of the traces is sampled.
func newBenchTelemetry(b *testing.B, share float64) *deltaotel.Telemetry {
	b.Helper()
	tracer := trace.NewTracerProvider(trace.WithBatcher(nowhere{}), trace.WithSampler(trace.ParentBased(trace.TraceIDRatioBased(share))))
	b.Cleanup(func() { _ = tracer.Shutdown(context.Background()) })
	meter := metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
	telemetry, err := deltaotel.New(&deltaotel.Config{TracerProvider: tracer, MeterProvider: meter})
	require.NoError(b, err)
	b.ReportAllocs()
	return telemetry
}

func sampledOrNot(b *testing.B, do func(b *testing.B, telemetry *deltaotel.Telemetry)) {
	b.Helper()
	b.Run("unsampled", func(b *testing.B) { do(b, newBenchTelemetry(b, 0)) })
	b.Run("sampled", func(b *testing.B) { do(b, newBenchTelemetry(b, 1)) })
}

// Measures the calls of a client for one Inform.
func BenchmarkInform(b *testing.B) {
	sampledOrNot(b, func(b *testing.B, telemetry *deltaotel.Telemetry) {
		for b.Loop() {
			informOnce(telemetry, discard)
		}
	})
}

func discard(string, string) {}

func informOnce(telemetry *deltaotel.Telemetry, set func(name, value string)) {
	ctx, end := telemetry.StartSpan(context.Background(), delta.Span{Operation: delta.OperationInform, Kind: "account", Objects: 1})
	telemetry.Inject(ctx, set)
	telemetry.Record(ctx, delta.InformMeasurement{Kind: "account", Namespace: "default", Operation: delta.OperationInform, Result: delta.InformNew, Objects: 1})
	end(delta.SpanEnd{Duration: time.Millisecond})
}

// Measures the calls of a client for one member of a batch, and for one resource with a single workflow.
func BenchmarkMember(b *testing.B) {
	sampledOrNot(b, func(b *testing.B, telemetry *deltaotel.Telemetry) {
		carrier := map[string]string{}
		informOnce(telemetry, func(name, value string) { carrier[name] = value })
		resources := []delta.SpanResource{{ObjectID: "ann", Generation: 1, Attempt: 1, IsFirst: true, Carrier: carrier}}
		for b.Loop() {
			ctx := context.Background()
			_, end := telemetry.StartSpan(ctx, delta.Span{Operation: delta.OperationWork, Kind: "account", Namespace: "default", Objects: 1, Resources: resources})
			end(delta.SpanEnd{Outcome: delta.OutcomeSynced, Duration: time.Millisecond})
			telemetry.Record(ctx, delta.AttemptMeasurement{
				Operation: delta.OperationWork, Kind: "account", Namespace: "default", Outcome: delta.OutcomeSynced, Duration: time.Millisecond, Lag: time.Second,
			})
		}
	})
}

// Measures counting for many namespaces in one series, by many goroutines.
func BenchmarkAttemptsOfManyNamespaces(b *testing.B) {
	telemetry := newBenchTelemetry(b, 0)
	var names []string
	for i := range 10_000 {
		names = append(names, "namespace-"+string(rune('a'+i%26))+time.Duration(i).String())
	}
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			telemetry.Record(context.Background(), delta.AttemptMeasurement{
				Operation: delta.OperationWork, Kind: "account", Namespace: names[i%len(names)], Outcome: delta.OutcomeFailed,
			})
		}
	})
}
