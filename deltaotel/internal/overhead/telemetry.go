package main

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/chariot-giving/delta/deltaotel"
)

// telemetry is deltaotel on the SDK. Spans go through the SDK's queue to an exporter that discards them, because the cost of a collector is not Delta's.
type telemetry struct {
	*deltaotel.Telemetry
	tracer *trace.TracerProvider
	meter  *metric.MeterProvider
	reader *metric.ManualReader
}

// sampledShare is the share of traces that is sampled.
const sampledShare = 0.1

func newTelemetry() (*telemetry, error) {
	t := &telemetry{tracer: trace.NewTracerProvider(trace.WithBatcher(discardExporter{}), trace.WithSampler(trace.ParentBased(trace.TraceIDRatioBased(sampledShare)))), reader: metric.NewManualReader()}
	t.meter = metric.NewMeterProvider(metric.WithReader(t.reader))
	var err error
	t.Telemetry, err = deltaotel.New(&deltaotel.Config{TracerProvider: t.tracer, MeterProvider: t.meter})
	return t, err
}

func (t *telemetry) collectMetrics(ctx context.Context) error {
	var all metricdata.ResourceMetrics
	if err := t.reader.Collect(ctx, &all); err != nil {
		return err
	}
	for _, scope := range all.ScopeMetrics {
		if len(scope.Metrics) > 0 {
			return nil
		}
	}
	return errors.New("telemetry has measured nothing")
}

func (t *telemetry) stop(ctx context.Context) error {
	return errors.Join(t.tracer.Shutdown(ctx), t.meter.Shutdown(ctx))
}

// discardExporter is an exporter that discards spans.
type discardExporter struct{}

func (discardExporter) ExportSpans(context.Context, []trace.ReadOnlySpan) error { return nil }
func (discardExporter) Shutdown(context.Context) error                          { return nil }
