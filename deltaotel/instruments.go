package deltaotel

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/chariot-giving/delta/delta"
)

var (
	// shortBuckets are for single statements, longBuckets for calls that may wait for a retry.
	shortBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	longBuckets  = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400}
)

// instruments has the metrics of clients.
type instruments struct {
	series                                      allSeries
	gauges                                      gauges
	duration, lag, informDuration, passDuration metric.Float64Histogram
	// callbacks are read when metrics are collected.
	callbacks []metric.Registration
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	i, m := new(instruments), instrumentMaker{meter: meter}
	i.duration = m.newHistogram("delta.work.duration", "How long calls of Work, WorkBatch and Finalize took.", longBuckets)
	i.lag = m.newHistogram("delta.sync.lag", "From the inform, or the expiry or command, that made a generation until it was synced.", longBuckets)
	i.informDuration = m.newHistogram("delta.inform.duration", "How long calls of Inform, InformMany and InformTx took.", shortBuckets)
	i.passDuration = m.newHistogram("delta.pass.duration", "How long passes of informers took.", longBuckets)
	if err := errors.Join(append(m.errs, i.observeSums(meter), i.observeGauges(meter))...); err != nil {
		return nil, errors.Join(err, i.unregister())
	}
	return i, nil
}

// unregister stops the collection of all metrics but the histograms, which OpenTelemetry keeps.
func (i *instruments) unregister() error {
	var errs []error
	for _, callback := range i.callbacks {
		errs = append(errs, callback.Unregister())
	}
	return errors.Join(errs...)
}

// instrumentMaker makes instruments and collects the errors.
type instrumentMaker struct {
	meter metric.Meter
	errs  []error
}

func (m *instrumentMaker) newHistogram(name, description string, buckets []float64) metric.Float64Histogram {
	made, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(buckets...))
	m.errs = append(m.errs, err)
	return made
}

func (m *instrumentMaker) newCounter(name, unit, description string) metric.Int64Observable {
	made, err := m.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

func (m *instrumentMaker) newUpDown(name, unit, description string) metric.Int64Observable {
	made, err := m.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

func (m *instrumentMaker) newCountGauge(name, unit, description string) metric.Int64ObservableGauge {
	made, err := m.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

func (m *instrumentMaker) newSecondsGauge(name, description string) metric.Float64ObservableGauge {
	made, err := m.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return made
}

// observeSums registers the sums that are counted in this package.
func (i *instruments) observeSums(meter metric.Meter) error {
	m := instrumentMaker{meter: meter}
	of := map[family]metric.Int64Observable{
		attemptsFamily:    m.newCounter("delta.work.attempts", "{attempt}", "Attempts whose outcome was written, by resource."),
		activeFamily:      m.newUpDown("delta.work.active", "{call}", "Calls of Work, WorkBatch and Finalize that run."),
		claimsLostFamily:  m.newCounter("delta.claims.lost", "{resource}", "Resources whose calls were ended because their claim was lost."),
		informedFamily:    m.newCounter("delta.inform.objects", "{object}", "Objects that were informed, or listed by an informer, by what that came to."),
		passesFamily:      m.newCounter("delta.passes", "{pass}", "Passes of informers that have ended."),
		passObjectsFamily: m.newCounter("delta.pass.objects", "{object}", "Objects that informers listed, by what that came to."),
		deletedFamily:     m.newCounter("delta.pass.deleted", "{resource}", "Resources that complete listings no longer had."),
		wokenFamily:       m.newCounter("delta.dispatch.workflows", "{workflow}", "Workflows that dispatchers started or signalled, or could not."),
		droppedFamily:     m.newCounter("delta.events.dropped", "{event}", "Events and failures that a slow reader has not got."),
	}
	if err := errors.Join(m.errs...); err != nil {
		return err
	}
	all := make([]metric.Observable, 0, len(of))
	for _, instrument := range of {
		all = append(all, instrument)
	}
	callback, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		i.series.forEach(func(s *series) {
			if instrument := of[s.key.family]; instrument != nil {
				o.ObserveInt64(instrument, s.sum.Load(), s.observe...)
			}
		})
		return nil
	}, all...)
	if err != nil {
		return err
	}
	i.callbacks = append(i.callbacks, callback)
	return nil
}

// outcomeOf returns the outcome of a call by its error, which may be nil.
func outcomeOf(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

func (i *instruments) recordMeasurement(ctx context.Context, from *Telemetry, measurement delta.Measurement) {
	switch m := measurement.(type) {
	case delta.AttemptMeasurement:
		key := seriesKey{attemptsFamily, m.Kind, m.Namespace, string(m.Operation), string(m.Outcome)}
		attempts := i.series.findOrMake(key)
		attempts.sum.Add(1)
		if m.Outcome == delta.OutcomeSynced {
			i.lag.Record(ctx, m.Lag.Seconds(), i.lagSeriesOf(attempts, key).record...)
		}
	case delta.InformMeasurement:
		i.series.findOrMake(seriesKey{informedFamily, m.Kind, m.Namespace, string(m.Operation), string(m.Result)}).sum.Add(int64(m.Objects))
	case delta.PassMeasurement:
		i.recordPass(ctx, m)
	case delta.DispatchMeasurement:
		i.series.findOrMake(seriesKey{family: wokenFamily, a: m.Kind, b: string(m.Way), c: outcomeOf(m.Err)}).sum.Add(int64(m.Workflows))
	case delta.ClaimsLostMeasurement:
		i.series.findOrMake(seriesKey{family: claimsLostFamily, a: m.Kind, b: m.Namespace}).sum.Add(int64(m.Resources))
	case delta.DroppedMeasurement:
		i.series.findOrMake(seriesKey{family: droppedFamily, a: m.What}).sum.Add(int64(m.Count))
	case delta.ClientMeasurement:
		i.gauges.setClient(from, m)
	case delta.DatabaseMeasurement:
		i.gauges.setDatabase(from, m)
	}
}

// lagSeriesOf returns the series of the lag of attempts, which the series of the attempts caches.
func (i *instruments) lagSeriesOf(attempts *series, key seriesKey) *series {
	if attempts.key != key { // attempts is the overflow series of many namespaces
		return i.series.findOrMake(seriesKey{family: lagFamily, a: key.a, b: key.b})
	}
	lag := attempts.lag.Load()
	if lag == nil {
		lag = i.series.findOrMake(seriesKey{family: lagFamily, a: key.a, b: key.b})
		attempts.lag.Store(lag)
	}
	return lag
}

func (i *instruments) recordPass(ctx context.Context, m delta.PassMeasurement) {
	outcome := outcomeOf(m.Err)
	i.series.findOrMake(seriesKey{family: passesFamily, a: m.Kind, b: outcome}).sum.Add(1)
	i.passDuration.Record(ctx, m.Duration.Seconds(), i.series.findOrMake(seriesKey{family: passDurationFamily, a: m.Kind, b: outcome}).record...)
	for result, objects := range map[delta.InformResult]int64{
		delta.InformNew: m.New, delta.InformChanged: m.Changed, delta.InformUnchanged: m.Unchanged, delta.InformStale: m.Stale,
		delta.InformRefused: m.Refused,
	} {
		if objects > 0 {
			i.series.findOrMake(seriesKey{family: passObjectsFamily, a: m.Kind, b: string(result)}).sum.Add(objects)
		}
	}
	if m.Deleted > 0 {
		i.series.findOrMake(seriesKey{family: deletedFamily, a: m.Kind}).sum.Add(m.Deleted)
	}
}

// recordSpanEnd records a call of a controller, or an inform, that has ended.
func (i *instruments) recordSpanEnd(ctx context.Context, of *spanType, isSampled bool, end *delta.SpanEnd) {
	if !isSampled {
		ctx = context.Background() // otherwise the SDK would look up the span in ctx for an exemplar
	}
	switch {
	case of.active != nil:
		of.active.sum.Add(-1)
		i.duration.Record(ctx, end.Duration.Seconds(), of.durationSeries(string(end.Outcome), &i.series).record...)
	case spanKindOf(of.operation) == trace.SpanKindProducer:
		i.informDuration.Record(ctx, end.Duration.Seconds(), of.durationSeries(outcomeOf(end.Err), &i.series).record...)
	}
}
