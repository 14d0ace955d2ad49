package deltaotel

import (
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// family is an instrument with labels. Its sums are counted here, and given to OpenTelemetry when metrics are collected: an atomic addition takes a
// tenth of what the SDK takes to add. Histograms cannot be handed over so; of a family of them only the labels are kept.
type family int

const (
	attemptsFamily family = iota
	activeFamily
	claimsLostFamily
	informedFamily
	passesFamily
	passObjectsFamily
	deletedFamily
	wokenFamily
	droppedFamily
	// The histograms.
	durationFamily
	lagFamily
	informDurationFamily
	passDurationFamily
)

// labelsOf are the names of a family's labels, in the order of the values of a seriesKey.
var labelsOf = map[family][]string{
	attemptsFamily:       {"kind", "namespace", "operation", "outcome"},
	activeFamily:         {"kind", "namespace", "operation"},
	claimsLostFamily:     {"kind", "namespace"},
	informedFamily:       {"kind", "namespace", "source", "result"},
	passesFamily:         {"kind", "outcome"},
	passObjectsFamily:    {"kind", "result"},
	deletedFamily:        {"kind"},
	wokenFamily:          {"kind", "way", "outcome"},
	droppedFamily:        {"what"},
	durationFamily:       {"kind", "namespace", "operation", "outcome"},
	lagFamily:            {"kind", "namespace"},
	informDurationFamily: {"kind", "source", "outcome"},
	passDurationFamily:   {"kind", "outcome"},
}

// seriesKey is one combination of labels.
type seriesKey struct {
	family     family
	a, b, c, d string
}

// series is a sum, or what a histogram takes for its labels. They are made once: to make labels costs more than to count.
type series struct {
	sum     atomic.Int64
	record  []metric.RecordOption
	observe []metric.ObserveOption
}

// maxSeries bounds how many there are. A program with more combinations, such as of a hundred thousand namespaces, has the others counted together.
const maxSeries = 10_000

// allSeries are those that were used. The zero value is empty.
type allSeries struct {
	mu   sync.RWMutex
	made map[seriesKey]*series
}

// of finds a series, or makes it.
func (s *allSeries) of(f family, values ...string) *series {
	key := seriesKey{family: f}
	for i, to := range []*string{&key.a, &key.b, &key.c, &key.d}[:len(values)] {
		*to = values[i]
	}
	s.mu.RLock()
	one := s.made[key]
	s.mu.RUnlock()
	if one != nil {
		return one
	}
	return s.make(key)
}

func (s *allSeries) make(key seriesKey) *series {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == nil {
		s.made = map[seriesKey]*series{}
	}
	labels := key.labels()
	if len(s.made) >= maxSeries {
		key = seriesKey{family: key.family, a: overflow}
		labels = []attribute.KeyValue{attribute.Bool(overflow, true)}
	}
	if one := s.made[key]; one != nil {
		return one
	}
	option := metric.WithAttributeSet(attribute.NewSet(labels...))
	one := &series{record: []metric.RecordOption{option}, observe: []metric.ObserveOption{option}}
	s.made[key] = one
	return one
}

// overflow is the label that OpenTelemetry has for what exceeds a bound.
const overflow = "otel.metric.overflow"

func (k seriesKey) labels() (all []attribute.KeyValue) {
	values := [...]string{k.a, k.b, k.c, k.d}
	for i, name := range labelsOf[k.family] {
		all = append(all, attribute.String(name, values[i]))
	}
	return all
}

// each calls a function with the series of families.
func (s *allSeries) each(do func(family, *series)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for key, one := range s.made {
		do(key.family, one)
	}
}
