package deltaotel

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/chariot-giving/delta/delta"
)

// bridged has the gauges of sources, refused objects and touches, and of the log of changes with its consumers.
type bridged struct {
	refused, phase, bytes, messages, touches metric.Int64ObservableGauge
	held, behind, running, lost              metric.Int64ObservableGauge
	lag, heldAge, consumerLag, touchesAge    metric.Float64ObservableGauge
}

func newBridged(m *instrumentMaker) *bridged {
	return &bridged{
		refused:     m.newCountGauge("delta.refused", "{object}", "Objects that listings and sources name and that cannot be taken."),
		phase:       m.newCountGauge("delta.source.phase", "", "1 for what the source does, 0 for the other phases."),
		lag:         m.newSecondsGauge("delta.source.lag", "For how long what has changed at the source has not been written, also while it does not run."),
		bytes:       m.newCountGauge("delta.source.behind", "By", "How much of the log of a table's database is before the source, as it counted last."),
		messages:    m.newCountGauge("delta.source.behind.messages", "{message}", "How many messages are before the source, as it counted last."),
		touches:     m.newCountGauge("delta.touches", "{parent}", "Parents that have changed whose children are still to be touched, at most 100,000."),
		touchesAge:  m.newSecondsGauge("delta.touches.age", "How long ago the first of them has changed."),
		held:        m.newCountGauge("delta.changes.held", "{entry}", "Entries of the log of changes that no reader is given yet, because a transaction is open; at most 10,000."),
		heldAge:     m.newSecondsGauge("delta.changes.held.age", "For how long the first of them has been held back; 0 where none is."),
		behind:      m.newCountGauge("delta.change.consumer.behind", "{entry}", "Entries of the log of changes after the position of a consumer, at most 10,000."),
		consumerLag: m.newSecondsGauge("delta.change.consumer.lag", "How old the first of them is; 0 where there is none."),
		running:     m.newCountGauge("delta.change.consumer.running", "", "1 while a process has the consumer."),
		lost:        m.newCountGauge("delta.change.consumer.lost", "", "1 if the consumer cannot read on without a gap."),
	}
}

func (b *bridged) allInstruments() []metric.Observable {
	return []metric.Observable{b.refused, b.phase, b.bytes, b.messages, b.touches, b.touchesAge, b.held, b.behind, b.running, b.lost, b.lag, b.heldAge, b.consumerLag}
}

// sourcePhases has all phases of a source.
var sourcePhases = []delta.SourcePhase{
	delta.SourceWaiting, delta.SourceSilent, delta.SourceFailed, delta.SourceReading, delta.SourceFollowing, delta.SourceRunning,
}

// observeAll reports the measurements of each database. If two databases of a process have a source or consumer of the same name, OpenTelemetry shows the last.
func (b *bridged) observeAll(o metric.Observer, shown *shownGauges) {
	var held int64
	var heldAge float64
	refused, touches, touchesAge := map[string]int64{}, map[string]int64{}, map[string]float64{}
	for i := range shown.bridged {
		m := &shown.bridged[i]
		held, heldAge = held+m.HeldChanges, max(heldAge, m.HeldFor.Seconds())
		for _, r := range m.Refused {
			refused[r.Kind] += r.Count
		}
		for _, t := range m.Touches {
			touches[t.Kind] += t.Count
			touchesAge[t.Kind] = max(touchesAge[t.Kind], t.Age.Seconds())
		}
		for j := range m.Sources {
			b.observeSource(o, &m.Sources[j])
		}
		for j := range m.Consumers {
			b.observeConsumer(o, &m.Consumers[j])
		}
	}
	for kind, n := range refused {
		o.ObserveInt64(b.refused, n, withKindLabel(kind))
	}
	for kind, n := range touches {
		o.ObserveInt64(b.touches, n, withKindLabel(kind))
		o.ObserveFloat64(b.touchesAge, touchesAge[kind], withKindLabel(kind))
	}
	if len(shown.bridged) > 0 {
		o.ObserveInt64(b.held, held)
		o.ObserveFloat64(b.heldAge, heldAge)
	}
}

func (b *bridged) observeSource(o metric.Observer, s *delta.SourceMeasurement) {
	kind, source := attribute.String("kind", s.Kind), attribute.String("source", s.Name)
	of := metric.WithAttributes(kind, source)
	for _, phase := range sourcePhases {
		o.ObserveInt64(b.phase, boolToInt(s.Phase == phase), metric.WithAttributes(kind, source, attribute.String("phase", string(phase))))
	}
	if s.Lag != nil {
		o.ObserveFloat64(b.lag, s.Lag.Seconds(), of)
	}
	if s.BehindBytes != nil {
		o.ObserveInt64(b.bytes, *s.BehindBytes, of)
	}
	if s.BehindMessages != nil {
		o.ObserveInt64(b.messages, *s.BehindMessages, of)
	}
}

func (b *bridged) observeConsumer(o metric.Observer, c *delta.ChangeConsumerMeasurement) {
	of := metric.WithAttributes(attribute.String("consumer", c.Name), attribute.String("member", c.Member))
	o.ObserveInt64(b.behind, c.Behind, of)
	o.ObserveFloat64(b.consumerLag, c.Lag.Seconds(), of)
	o.ObserveInt64(b.running, boolToInt(c.IsRunning), of)
	o.ObserveInt64(b.lost, boolToInt(c.IsLost), of)
}

func boolToInt(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}
