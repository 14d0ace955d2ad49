package deltaotel

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// maxErrorBytes limits the text of an error in a span.
	maxErrorBytes = 4 << 10
	// maxLinks limits the links of a span, to the number that the SDK keeps.
	maxLinks = 128
)

// StartSpan implements delta.Telemetry. Programs do not call it.
func (t *Telemetry) StartSpan(ctx context.Context, s delta.Span) (context.Context, func(delta.SpanEnd)) {
	of := t.spanTypes.findOrMake(spanKey{s.Operation, s.Kind, s.Namespace}, &t.instruments.series)
	options := of.options
	if of.active != nil {
		var links []trace.Link
		ctx, links = t.parentOf(ctx, s.Resources)
		if len(links) > 0 {
			options = append(options[:1:1], trace.WithLinks(links...))
		}
		of.active.sum.Add(1)
	}
	ctx, span := t.tracer.Start(ctx, of.name, options...)
	if span.IsRecording() { // making attributes takes as long as everything else, and samplers need only the name
		span.SetAttributes(t.attributesOf(s)...)
	}
	return ctx, func(end delta.SpanEnd) {
		t.instruments.recordSpanEnd(ctx, of, span.SpanContext().IsSampled(), &end)
		endSpan(span, &end)
	}
}

func endSpan(span trace.Span, end *delta.SpanEnd) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	if end.Outcome != "" {
		span.SetAttributes(attribute.String("delta.outcome", string(end.Outcome)))
	}
	if end.Failed > 1 || end.Outcome == delta.OutcomeMixed {
		span.SetAttributes(attribute.Int("delta.failed", end.Failed))
	}
	if end.Pass != nil {
		span.SetAttributes(attributesOfPass(end.Pass, end.Err)...)
	}
	if end.Err != nil {
		span.SetStatus(codes.Error, shorten.Error(end.Err, maxErrorBytes))
	}
}

// attributesOfPass returns the result of a pass as attributes.
func attributesOfPass(p *delta.PassMeasurement, err error) []attribute.KeyValue {
	all := []attribute.KeyValue{attribute.String("delta.outcome", outcomeOf(err)), attribute.Int64("delta.pass.listed", p.Listed)}
	for _, count := range []struct {
		name string
		n    int64
	}{
		{"new", p.New},
		{"changed", p.Changed},
		{"unchanged", p.Unchanged},
		{"stale", p.Stale},
		{"refused", p.Refused},
		{"deleted", p.Deleted},
		{"withheld", p.Withheld},
	} {
		if count.n > 0 {
			all = append(all, attribute.Int64("delta.pass."+count.name, count.n))
		}
	}
	return all
}

func (t *Telemetry) attributesOf(s delta.Span) []attribute.KeyValue {
	attributes := make([]attribute.KeyValue, 0, 8)
	attributes = append(attributes, attribute.String("delta.operation", string(s.Operation)), attribute.String("delta.kind", s.Kind))
	if s.Objects > 0 {
		attributes = append(attributes, attribute.Int("delta.objects", s.Objects))
	}
	if s.Shard != "" {
		attributes = append(attributes, attribute.String("delta.shard", s.Shard))
	}
	if s.Namespace != "" {
		attributes = append(attributes, attribute.String("delta.namespace", s.Namespace))
	}
	if len(s.Resources) != 1 {
		return attributes
	}
	r := s.Resources[0]
	attributes = append(attributes, attribute.Int64("delta.generation", r.Generation), attribute.Int("delta.attempt", r.Attempt))
	if t.objectIDs {
		attributes = append(attributes, attribute.String("delta.object_id", r.ObjectID))
	}
	return attributes
}

// parentOf makes the span of the first call for one resource a child of the span of its inform, with a link to the span around it, such as that of Temporal's
// interceptor for the activity. Other calls have links to the informs, because a trace that lasts as long as retries would never end.
func (t *Telemetry) parentOf(ctx context.Context, resources []delta.SpanResource) (context.Context, []trace.Link) {
	if len(resources) == 1 && resources[0].IsFirst && len(resources[0].Carrier) > 0 {
		around := trace.SpanContextFromContext(ctx)
		ctx = t.propagator.Extract(ctx, propagation.MapCarrier(resources[0].Carrier))
		if around.IsValid() && !around.Equal(trace.SpanContextFromContext(ctx)) {
			return ctx, []trace.Link{{SpanContext: around}}
		}
		return ctx, nil
	}
	var links []trace.Link
	linked := map[trace.SpanID]bool{}
	for _, r := range resources {
		if len(r.Carrier) == 0 {
			continue
		}
		informed := trace.SpanContextFromContext(t.propagator.Extract(context.Background(), propagation.MapCarrier(r.Carrier)))
		if !informed.IsValid() || linked[informed.SpanID()] {
			continue
		}
		linked[informed.SpanID()] = true
		if links = append(links, trace.Link{SpanContext: informed}); len(links) == maxLinks {
			break
		}
	}
	return ctx, links
}
