package deltaotel

import (
	"hash/maphash"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/chariot-giving/delta/delta"
)

// spanKey is what spans have in common.
type spanKey struct {
	operation       delta.Operation
	kind, namespace string
}

// spanType is what is made once for spans that have a key in common. Most spans are not sampled, so little else is made for each of them.
type spanType struct {
	spanKey
	name    string
	options []trace.SpanStartOption
	// active counts the calls of a controller that run; nil for other operations.
	active *series
	// durations are what calls, or informs, are measured by, for the outcomes that were seen first.
	durations [4]atomic.Pointer[durationOf]
}

type durationOf struct {
	outcome string
	*series
}

// spanTypes are those that were used last, by a hash of their key.
type spanTypes [recentSeries]atomic.Pointer[spanType]

// of finds the type of a span, or makes it.
func (t *spanTypes) of(key spanKey, all *allSeries) *spanType {
	slot := &t[maphash.Comparable(seed, key)%recentSeries]
	if one := slot.Load(); one != nil && one.spanKey == key {
		return one
	}
	one := &spanType{spanKey: key, name: string(key.operation) + " " + key.kind}
	kind := kindOf(key.operation)
	one.options = []trace.SpanStartOption{trace.WithSpanKind(kind)}
	if kind == trace.SpanKindProducer { // all informs alike
		one.name = string(delta.OperationInform) + " " + key.kind
	}
	if kind == trace.SpanKindConsumer {
		one.active = all.of(seriesKey{family: activeFamily, a: key.kind, b: key.namespace, c: string(key.operation)})
	}
	slot.Store(one)
	return one
}

func kindOf(operation delta.Operation) trace.SpanKind {
	switch operation {
	case delta.OperationInform, delta.OperationInformMany, delta.OperationInformTx:
		return trace.SpanKindProducer
	case delta.OperationWork, delta.OperationWorkBatch, delta.OperationFinalize:
		return trace.SpanKindConsumer
	default:
		return trace.SpanKindInternal
	}
}

// duration is what a call, or an inform, that had an outcome is measured by.
func (t *spanType) duration(outcome string, all *allSeries) *series {
	key := seriesKey{durationFamily, t.kind, t.namespace, string(t.operation), outcome}
	if t.active == nil {
		key = seriesKey{family: informDurationFamily, a: t.kind, b: string(t.operation), c: outcome}
	}
	for i := range t.durations {
		switch one := t.durations[i].Load(); {
		case one == nil:
			found := all.of(key)
			if found.key == key { // not for what exceeds the bound
				t.durations[i].CompareAndSwap(nil, &durationOf{outcome, found})
			}
			return found
		case one.outcome == outcome:
			return one.series
		}
	}
	return all.of(key)
}
