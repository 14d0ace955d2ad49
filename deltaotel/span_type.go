package deltaotel

import (
	"hash/maphash"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/chariot-giving/delta/delta"
)

// spanKey has the values that spans of one type share.
type spanKey struct {
	operation       delta.Operation
	kind, namespace string
}

// spanType has the values that are made once for all spans with one key. Most spans are not sampled, so little else is made for each span.
type spanType struct {
	spanKey
	name    string
	options []trace.SpanStartOption
	// active counts the running calls of a controller; nil for other operations.
	active *series
	// durations has the series of durations of calls or informs, for the outcomes that were seen first.
	durations [4]atomic.Pointer[durationOf]
}

type durationOf struct {
	outcome string
	*series
}

// spanTypes has the types that were used last, by a hash of their key.
type spanTypes [recentSeries]atomic.Pointer[spanType]

// findOrMake returns the type of a span, and makes it if there is none.
func (t *spanTypes) findOrMake(key spanKey, all *allSeries) *spanType {
	slot := &t[maphash.Comparable(seed, key)%recentSeries]
	if one := slot.Load(); one != nil && one.spanKey == key {
		return one
	}
	one := &spanType{spanKey: key, name: string(key.operation) + " " + key.kind}
	kind := spanKindOf(key.operation)
	one.options = []trace.SpanStartOption{trace.WithSpanKind(kind)}
	if kind == trace.SpanKindProducer { // all informs have the same type
		one.name = string(delta.OperationInform) + " " + key.kind
	}
	if kind == trace.SpanKindConsumer {
		one.active = all.findOrMake(seriesKey{family: activeFamily, a: key.kind, b: key.namespace, c: string(key.operation)})
	}
	slot.Store(one)
	return one
}

func spanKindOf(operation delta.Operation) trace.SpanKind {
	switch operation {
	case delta.OperationInform, delta.OperationInformMany, delta.OperationInformTx:
		return trace.SpanKindProducer
	case delta.OperationWork, delta.OperationWorkBatch, delta.OperationFinalize:
		return trace.SpanKindConsumer
	default:
		return trace.SpanKindInternal
	}
}

// durationSeries returns the series of durations of calls or informs with an outcome.
func (t *spanType) durationSeries(outcome string, all *allSeries) *series {
	key := seriesKey{durationFamily, t.kind, t.namespace, string(t.operation), outcome}
	if t.active == nil {
		key = seriesKey{family: informDurationFamily, a: t.kind, b: string(t.operation), c: outcome}
	}
	for i := range t.durations {
		switch one := t.durations[i].Load(); {
		case one == nil:
			found := all.findOrMake(key)
			if found.key == key { // do not cache an overflow series
				t.durations[i].CompareAndSwap(nil, &durationOf{outcome, found})
			}
			return found
		case one.outcome == outcome:
			return one.series
		}
	}
	return all.findOrMake(key)
}
