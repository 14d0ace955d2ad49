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
	series                                      allSeries
	duration, lag, informDuration, passDuration metric.Float64Histogram

	// client and database are the latest of their measurements; nil before the first.
	client   atomic.Pointer[delta.ClientMeasurement]
	database atomic.Pointer[delta.DatabaseMeasurement]
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	i, m := new(instruments), maker{meter: meter}
	i.duration = m.histogram("delta.work.duration", "How long calls of Work, WorkBatch and Finalize took.", longBuckets)
	i.lag = m.histogram("delta.sync.lag", "From the inform, or the expiry or command, that made a generation until it was synced.", longBuckets)
	i.informDuration = m.histogram("delta.inform.duration", "How long calls of Inform, InformMany and InformTx took.", shortBuckets)
	i.passDuration = m.histogram("delta.pass.duration", "How long passes of informers took.", longBuckets)
	return i, errors.Join(append(m.errs, i.observeSums(meter), i.observeGauges(meter))...)
}

// maker makes instruments, and keeps the errors.
type maker struct {
	meter metric.Meter
	errs  []error
}

func (m *maker) histogram(name, description string, buckets []float64) metric.Float64Histogram {
	made, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(buckets...))
	m.errs = append(m.errs, err)
	return made
}

func (m *maker) counter(name, unit, description string) metric.Int64Observable {
	made, err := m.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

func (m *maker) upDown(name, unit, description string) metric.Int64Observable {
	made, err := m.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
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

// observeSums registers what is counted here.
func (i *instruments) observeSums(meter metric.Meter) error {
	m := maker{meter: meter}
	of := map[family]metric.Int64Observable{
		attemptsFamily:    m.counter("delta.work.attempts", "{attempt}", "Attempts whose outcome was written, by resource."),
		activeFamily:      m.upDown("delta.work.active", "{call}", "Calls of Work, WorkBatch and Finalize that run."),
		claimsLostFamily:  m.counter("delta.claims.lost", "{resource}", "Resources whose calls were ended because their claim was lost."),
		informedFamily:    m.counter("delta.inform.objects", "{object}", "Objects that were informed, or listed by an informer, by what that came to."),
		passesFamily:      m.counter("delta.passes", "{pass}", "Passes of informers that have ended."),
		passObjectsFamily: m.counter("delta.pass.objects", "{object}", "Objects that informers listed, by what that came to."),
		deletedFamily:     m.counter("delta.pass.deleted", "{resource}", "Resources that complete listings no longer had."),
		wokenFamily:       m.counter("delta.dispatch.workflows", "{workflow}", "Workflows that dispatchers started or signalled, or could not."),
		droppedFamily:     m.counter("delta.events.dropped", "{event}", "Events and failures that a slow reader has not got."),
	}
	if err := errors.Join(m.errs...); err != nil {
		return err
	}
	all := make([]metric.Observable, 0, len(of))
	for _, instrument := range of {
		all = append(all, instrument)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		i.series.each(func(f family, s *series) {
			if instrument := of[f]; instrument != nil {
				o.ObserveInt64(instrument, s.sum.Load(), s.observe...)
			}
		})
		return nil
	}, all...)
	return err
}

// outcomeOf is the outcome of what returned an error, or none.
func outcomeOf(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

func (i *instruments) record(ctx context.Context, measurement delta.Measurement) {
	switch m := measurement.(type) {
	case delta.AttemptMeasurement:
		i.series.of(attemptsFamily, m.Kind, m.Namespace, string(m.Operation), string(m.Outcome)).sum.Add(1)
		if m.Outcome == delta.OutcomeSynced {
			i.lag.Record(ctx, m.Lag.Seconds(), i.series.of(lagFamily, m.Kind, m.Namespace).record...)
		}
	case delta.InformMeasurement:
		i.series.of(informedFamily, m.Kind, m.Namespace, string(m.Operation), string(m.Result)).sum.Add(int64(m.Objects))
	case delta.InformCallMeasurement:
		i.informDuration.Record(ctx, m.Duration.Seconds(), i.series.of(informDurationFamily, m.Kind, string(m.Operation), outcomeOf(m.Err)).record...)
	case delta.PassMeasurement:
		i.recordPass(ctx, m)
	case delta.DispatchMeasurement:
		i.series.of(wokenFamily, m.Kind, string(m.Way), outcomeOf(m.Err)).sum.Add(int64(m.Workflows))
	case delta.ClaimsLostMeasurement:
		i.series.of(claimsLostFamily, m.Kind, m.Namespace).sum.Add(int64(m.Resources))
	case delta.DroppedMeasurement:
		i.series.of(droppedFamily, m.What).sum.Add(int64(m.Count))
	case delta.ClientMeasurement:
		i.client.Store(&m)
	case delta.DatabaseMeasurement:
		i.database.Store(&m)
	}
}

func (i *instruments) recordPass(ctx context.Context, m delta.PassMeasurement) {
	outcome := outcomeOf(m.Err)
	i.series.of(passesFamily, m.Kind, outcome).sum.Add(1)
	i.passDuration.Record(ctx, m.Duration.Seconds(), i.series.of(passDurationFamily, m.Kind, outcome).record...)
	for result, objects := range map[delta.InformResult]int64{
		delta.InformNew: m.New, delta.InformChanged: m.Changed, delta.InformUnchanged: m.Unchanged, delta.InformStale: m.Stale,
		delta.InformRefused: m.Refused,
	} {
		if objects > 0 {
			i.series.of(passObjectsFamily, m.Kind, string(result)).sum.Add(objects)
		}
	}
	if m.Deleted > 0 {
		i.series.of(deletedFamily, m.Kind).sum.Add(m.Deleted)
	}
}

// callBegins counts a call of a controller, until the function is called that it returns.
func (i *instruments) callBegins(s delta.Span) (ends func(context.Context, delta.SpanEnd)) {
	active := i.series.of(activeFamily, s.Kind, s.Namespace, string(s.Operation))
	active.sum.Add(1)
	return func(ctx context.Context, end delta.SpanEnd) {
		active.sum.Add(-1)
		i.duration.Record(ctx, end.Duration.Seconds(), i.series.of(durationFamily, s.Kind, s.Namespace, string(s.Operation), string(end.Outcome)).record...)
	}
}
