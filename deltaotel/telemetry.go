package deltaotel

import (
	"context"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/chariot-giving/delta/delta"
)

// scope is the instrumentation scope of the instruments and spans.
const scope = "github.com/chariot-giving/delta/deltaotel"

// Config configures a [Telemetry]. Its zero value uses OpenTelemetry's global providers.
type Config struct {
	// TracerProvider creates the spans.
	//
	// Defaults to the global one; without an SDK that does nothing.
	TracerProvider trace.TracerProvider

	// MeterProvider creates the instruments.
	//
	// Defaults to the global one; without an SDK that does nothing.
	MeterProvider metric.MeterProvider

	// Propagator carries the context of an inform's span with the object: 4 KiB at most.
	//
	// Defaults to W3C's traceparent and tracestate.
	Propagator propagation.TextMapPropagator

	// ObjectIDs adds the object's id to spans of single resources, as delta.object_id, or its hash if delta.Config.HashObjectIDs is set. Set it only if the tracing
	// backend may know the ids. Metrics never have ids.
	//
	// Defaults to false.
	ObjectIDs bool
}

// Telemetry is a [delta.Telemetry] for OpenTelemetry. Make one for each client: if several clients share one, its metrics of the client, such as which parts are
// up, are those of the last client. Telemetries of one MeterProvider share their metrics: counts are added, and a part is up if it is up in each client.
type Telemetry struct {
	tracer      trace.Tracer
	propagator  propagation.TextMapPropagator
	objectIDs   bool
	spanTypes   spanTypes
	shared      *shared
	instruments *instruments
	close       func() error
}

var _ delta.Telemetry = (*Telemetry)(nil)

// New returns a Telemetry for the Config of a client. A nil config is the zero value. It returns an error if the MeterProvider refuses an instrument. A program
// that makes clients repeatedly must close each Telemetry after its client has stopped.
//
// The span of an inform has the name "inform" with the kind, and span kind producer. The span of a call of a controller has the name of the method with the kind,
// such as "work account", and span kind consumer. Spans have delta.operation, delta.kind, delta.namespace and delta.objects; spans of single resources also have
// delta.generation, delta.attempt and delta.outcome. A failed call has the status Error, with the error's text.
//
// The span of an informer's pass has the name "pass" with the kind. It has delta.shard, delta.outcome (ok or failed), the counter delta.pass.listed and, if they
// are not 0, the counters delta.pass.new, changed, unchanged, stale, refused, deleted and withheld. The span of the listing ("list") is a child of it. The call
// that names the shards of a kind has the span "shards" with the kind.
func New(config *Config) (*Telemetry, error) {
	var c Config
	if config != nil {
		c = *config
	}
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	t := &Telemetry{tracer: c.TracerProvider.Tracer(scope), propagator: c.Propagator, objectIDs: c.ObjectIDs}
	if c.Propagator == nil {
		t.propagator = &traceContext{}
	}
	var err error
	if t.shared, err = shareInstruments(c.MeterProvider); err != nil {
		return nil, err
	}
	t.instruments = t.shared.made
	t.close = sync.OnceValue(func() error {
		t.instruments.gauges.removeTelemetry(t)
		return t.shared.releaseUser()
	})
	return t, nil
}

// Close unregisters the metrics from OpenTelemetry, unless another Telemetry uses the same MeterProvider. Call it after the client has stopped, and after the
// MeterProvider was flushed or shut down if the last values matter. A program that exits need not call it. Measurements after Close are lost, but spans are still
// created.
func (t *Telemetry) Close() error { return t.close() }

// traceContext is W3C's propagator with a cache of the latest extracted context, because objects that were informed together carry the same one.
type traceContext struct {
	propagation.TraceContext
	latest atomic.Pointer[extracted]
}

type extracted struct {
	parent, state string
	context       trace.SpanContext
}

// Extract implements propagation.TextMapPropagator.
func (p *traceContext) Extract(ctx context.Context, carrier propagation.TextMapCarrier) context.Context {
	parent, state := carrier.Get("traceparent"), carrier.Get("tracestate")
	latest := p.latest.Load()
	if latest == nil || latest.parent != parent || latest.state != state {
		read := trace.SpanContextFromContext(p.TraceContext.Extract(context.Background(), carrier))
		latest = &extracted{parent, state, read}
		p.latest.Store(latest)
	}
	if !latest.context.IsValid() {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, latest.context)
}

// Inject implements delta.Telemetry. Programs do not call it.
func (t *Telemetry) Inject(ctx context.Context, set func(name, value string)) {
	t.propagator.Inject(ctx, setter(set))
}

// setter is a write-only carrier.
type setter func(name, value string)

// Get returns "", because Inject only writes.
func (setter) Get(string) string { return "" }

// Set sets a value.
func (s setter) Set(name, value string) { s(name, value) }

// Keys returns nil, because Inject only writes.
func (setter) Keys() []string { return nil }

// Record implements delta.Telemetry. Programs do not call it.
func (t *Telemetry) Record(ctx context.Context, measurement delta.Measurement) {
	t.instruments.recordMeasurement(ctx, t, measurement)
}
