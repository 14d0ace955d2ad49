package deltaotel

import (
	"context"
	"errors"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"

	"github.com/chariot-giving/delta/delta"
)

var (
	// shortBuckets are for single statements, longBuckets for what may wait for a retry.
	shortBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	longBuckets  = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400}
)

// instruments are the metrics of a client.
type instruments struct {
	sets attributeSets

	attempts, informed, passes, passObjects, deleted, woken, claimsLost, dropped metric.Int64Counter
	active                                                                       metric.Int64UpDownCounter
	duration, wait, lag, informDuration, passDuration                            metric.Float64Histogram

	// client and database are the latest of their measurements; nil before the first.
	client   atomic.Pointer[delta.ClientMeasurement]
	database atomic.Pointer[delta.DatabaseMeasurement]
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	i, m := new(instruments), maker{meter: meter}
	i.attempts = m.counter("delta.work.attempts", "{attempt}", "Attempts whose outcome was written, by resource.")
	i.duration = m.histogram("delta.work.duration", "How long calls of Work, WorkBatch and Finalize took.", longBuckets)
	i.wait = m.histogram("delta.work.wait", "For how long an attempt had been due when it was claimed.", longBuckets)
	i.lag = m.histogram("delta.sync.lag", "From the inform, or the expiry or command, that made a generation until it was synced.", longBuckets)
	i.active = m.upDown("delta.work.active", "{call}", "Calls of Work, WorkBatch and Finalize that run.")
	i.claimsLost = m.counter("delta.claims.lost", "{resource}", "Resources whose calls were ended because their claim was lost.")
	i.informed = m.counter("delta.inform.objects", "{object}", "Objects that were informed, or listed by an informer, by what that came to.")
	i.informDuration = m.histogram("delta.inform.duration", "How long calls of Inform, InformMany and InformTx took.", shortBuckets)
	i.passes = m.counter("delta.passes", "{pass}", "Passes of informers that have ended.")
	i.passDuration = m.histogram("delta.pass.duration", "How long passes of informers took.", longBuckets)
	i.passObjects = m.counter("delta.pass.objects", "{object}", "Objects that informers listed, by what that came to.")
	i.deleted = m.counter("delta.pass.deleted", "{resource}", "Resources that complete listings no longer had.")
	i.woken = m.counter("delta.dispatch.workflows", "{workflow}", "Workflows that dispatchers started or signalled, or could not.")
	i.dropped = m.counter("delta.events.dropped", "{event}", "Events and failures that a slow reader has not got.")
	return i, errors.Join(append(m.errs, i.observe(meter))...)
}

// maker makes instruments, and keeps the errors.
type maker struct {
	meter metric.Meter
	errs  []error
}

func (m *maker) counter(name, unit, description string) metric.Int64Counter {
	made, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

func (m *maker) upDown(name, unit, description string) metric.Int64UpDownCounter {
	made, err := m.meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

func (m *maker) histogram(name, description string, buckets []float64) metric.Float64Histogram {
	made, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(buckets...))
	m.errs = append(m.errs, err)
	return made
}

func (m *maker) count(name, unit, description string) metric.Int64ObservableGauge {
	made, err := m.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

func (m *maker) seconds(name, description string) metric.Float64ObservableGauge {
	made, err := m.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

func outcomeOf(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

func (i *instruments) record(ctx context.Context, measurement delta.Measurement) {
	switch m := measurement.(type) {
	case delta.AttemptMeasurement:
		i.recordAttempt(ctx, m)
	case delta.InformMeasurement:
		set := i.sets.of(setKey{informSet, m.Kind, m.Namespace, string(m.Operation), string(m.Result)})
		i.informed.Add(ctx, int64(m.Objects), set.add...)
	case delta.InformCallMeasurement:
		set := i.sets.of(setKey{informCallSet, m.Kind, string(m.Operation), outcomeOf(m.Err), ""})
		i.informDuration.Record(ctx, m.Duration.Seconds(), set.record...)
	case delta.PassMeasurement:
		i.recordPass(ctx, m)
	case delta.DispatchMeasurement:
		set := i.sets.of(setKey{dispatchSet, m.Kind, string(m.Way), outcomeOf(m.Err), ""})
		i.woken.Add(ctx, int64(m.Workflows), set.add...)
	case delta.ClaimsLostMeasurement:
		set := i.sets.of(setKey{namespaceSet, m.Kind, m.Namespace, "", ""})
		i.claimsLost.Add(ctx, int64(m.Resources), set.add...)
	case delta.DroppedMeasurement:
		set := i.sets.of(setKey{droppedSet, m.What, "", "", ""})
		i.dropped.Add(ctx, int64(m.Count), set.add...)
	case delta.ClientMeasurement:
		i.client.Store(&m)
	case delta.DatabaseMeasurement:
		i.database.Store(&m)
	}
}

func (i *instruments) recordAttempt(ctx context.Context, m delta.AttemptMeasurement) {
	set := i.sets.of(setKey{callSet, m.Kind, m.Namespace, string(m.Operation), string(m.Outcome)})
	i.attempts.Add(ctx, 1, set.add...)
	of := i.sets.of(setKey{namespaceSet, m.Kind, m.Namespace, "", ""})
	i.wait.Record(ctx, m.Wait.Seconds(), of.record...)
	if m.Outcome == delta.OutcomeSynced {
		i.lag.Record(ctx, m.Lag.Seconds(), of.record...)
	}
}

func (i *instruments) recordPass(ctx context.Context, m delta.PassMeasurement) {
	set := i.sets.of(setKey{passSet, m.Kind, outcomeOf(m.Err), "", ""})
	i.passes.Add(ctx, 1, set.add...)
	i.passDuration.Record(ctx, m.Duration.Seconds(), set.record...)
	for _, counted := range []struct {
		result  delta.InformResult
		objects int64
	}{
		{delta.InformNew, m.New},
		{delta.InformChanged, m.Changed},
		{delta.InformUnchanged, m.Unchanged},
		{delta.InformStale, m.Stale},
		{delta.InformRefused, m.Refused},
	} {
		if counted.objects > 0 {
			set := i.sets.of(setKey{passObjectsSet, m.Kind, string(counted.result), "", ""})
			i.passObjects.Add(ctx, counted.objects, set.add...)
		}
	}
	if m.Deleted > 0 {
		i.deleted.Add(ctx, m.Deleted, i.sets.of(setKey{kindSet, m.Kind, "", "", ""}).add...)
	}
}

func (i *instruments) callBegins(ctx context.Context, s delta.Span) {
	i.active.Add(ctx, 1, i.sets.of(setKey{activeSet, s.Kind, s.Namespace, string(s.Operation), ""}).add...)
}

func (i *instruments) callEnds(ctx context.Context, s delta.Span, end delta.SpanEnd) {
	i.active.Add(ctx, -1, i.sets.of(setKey{activeSet, s.Kind, s.Namespace, string(s.Operation), ""}).add...)
	set := i.sets.of(setKey{callSet, s.Kind, s.Namespace, string(s.Operation), string(end.Outcome)})
	i.duration.Record(ctx, end.Duration.Seconds(), set.record...)
}
