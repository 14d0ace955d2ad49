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

// scope names what the instruments and spans are of.
const scope = "github.com/chariot-giving/delta/deltaotel"

// Config configures a [Telemetry]. Its zero value uses OpenTelemetry's global providers.
type Config struct {
	// TracerProvider makes the spans.
	//
	// Defaults to the global one; without an SDK that does nothing.
	TracerProvider trace.TracerProvider

	// MeterProvider makes the instruments.
	//
	// Defaults to the global one; without an SDK that does nothing.
	MeterProvider metric.MeterProvider

	// Propagator has the context of an inform's span travel with the object: 4 KiB at most.
	//
	// Defaults to W3C's traceparent and tracestate.
	Propagator propagation.TextMapPropagator

	// ObjectIDs has spans of single resources carry the object's id, as delta.object_id: its hash where delta.Config.HashObjectIDs is set. It is for
	// tracing backends that may know them. Metrics never have ids.
	//
	// Defaults to false.
	ObjectIDs bool
}

// Telemetry is a [delta.Telemetry] for OpenTelemetry. Make one for each client: what it says of the client, such as whether its parts are up, is of
// the latest one that it was given to. Those of one MeterProvider have their metrics together: counts are added, and a part is up if it is for each
// client.
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

// New makes a Telemetry for the Config of a client. A nil config is the zero value. It returns an error where the MeterProvider refuses an
// instrument. A program that makes clients again and again closes it when its client has stopped.
//
// The span of an inform is called "inform" and the kind, and is a producer's. That of a call of a controller is called by its method and
// the kind, such as "work account", and is a consumer's. Spans have delta.operation, delta.kind, delta.namespace and delta.objects; those of
// single resources also delta.generation, delta.attempt and delta.outcome. The status of what failed is Error, with the error's text.
//
// That of a pass of an informer is called "pass" and the kind, with delta.shard, delta.outcome (ok or failed), and what its objects came to:
// delta.pass.listed, and where there are some delta.pass.new, changed, unchanged, stale, refused, deleted and withheld. The span of its listing
// ("list") is within it. "shards" and the kind is that of a controller which names its shards.
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
	if t.shared, err = share(c.MeterProvider); err != nil {
		return nil, err
	}
	t.instruments = t.shared.made
	t.close = sync.OnceValue(func() error {
		t.instruments.gauges.forget(t)
		return t.shared.release()
	})
	return t, nil
}

// Close has OpenTelemetry no longer collect what the Telemetry measures, unless another one has the same MeterProvider. Call it when the client has
// stopped, and after the MeterProvider was shut down or flushed, if its last figures are wanted. A program that ends need not. What a client measures
// afterwards is not seen; spans are made all the same.
func (t *Telemetry) Close() error { return t.close() }

// traceContext is W3C's propagator, which remembers the latest context that it has read: objects that were informed together carry the same.
type traceContext struct {
	propagation.TraceContext
	latest atomic.Pointer[extracted]
}

type extracted struct {
	parent, state string
	context       trace.SpanContext
}

// Extract is as the propagator's own.
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

// Inject is for Delta.
func (t *Telemetry) Inject(ctx context.Context, set func(name, value string)) {
	t.propagator.Inject(ctx, setter(set))
}

// setter is a carrier that is only written.
type setter func(name, value string)

// Get has nothing.
func (setter) Get(string) string { return "" }

// Set sets a value.
func (s setter) Set(name, value string) { s(name, value) }

// Keys has nothing.
func (setter) Keys() []string { return nil }

// Record is for Delta.
func (t *Telemetry) Record(ctx context.Context, measurement delta.Measurement) {
	t.instruments.record(ctx, t, measurement)
}
