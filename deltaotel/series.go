package deltaotel

import (
	"hash/maphash"
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
	// families is how many there are.
	families
)

// labelsOf are the names of a family's labels, in the order of the values of a seriesKey.
var labelsOf = [families][]string{
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
	key     seriesKey
	sum     atomic.Int64
	record  []metric.RecordOption
	observe []metric.ObserveOption
	// lag is what the lag of attempts is measured by; nil before the first, and in other families.
	lag atomic.Pointer[series]
}

const (
	// maxSeries bounds how many a family has: somewhat fewer than the 2,000 that the SDK takes of an instrument. A program with more combinations, such
	// as of a hundred thousand namespaces, has the others counted together.
	maxSeries = 1_900
	// recentSeries is how many are found without a lock. It is a power of two.
	recentSeries = 512
)

// allSeries are those that were used. The zero value is empty.
type allSeries struct {
	// recent has the series that were found last, by the hash of their key: so none of the goroutines that count waits for another.
	recent [recentSeries]atomic.Pointer[series]

	mu   sync.RWMutex
	made map[seriesKey]*series
	// counts is how many of made each family has, and others has what exceeds that.
	counts [families]int
	others [families]*series
}

var seed = maphash.MakeSeed()

// of finds a series, or makes it.
func (s *allSeries) of(key seriesKey) *series {
	slot := &s.recent[maphash.Comparable(seed, key)%recentSeries]
	if one := slot.Load(); one != nil && one.key == key {
		return one
	}
	one := s.find(key)
	if one == nil {
		one = s.make(key)
	}
	if one.key == key { // others have many keys: they would only push out those that are found here
		slot.Store(one)
	}
	return one
}

// find finds a series that was made; nil for none. One that exceeds the bound takes no lock that others wait for.
func (s *allSeries) find(key seriesKey) *series {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if one := s.made[key]; one != nil {
		return one
	}
	return s.others[key.family]
}

func (s *allSeries) make(key seriesKey) *series {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.made[key]; one != nil {
		return one
	}
	if s.made == nil {
		s.made = map[seriesKey]*series{}
	}
	if s.counts[key.family] == maxSeries {
		if s.others[key.family] == nil {
			s.others[key.family] = newSeries(seriesKey{family: key.family, a: overflow}, attribute.Bool(overflow, true))
		}
		return s.others[key.family]
	}
	one := newSeries(key, key.labels()...)
	s.made[key] = one
	s.counts[key.family]++
	return one
}

func newSeries(key seriesKey, labels ...attribute.KeyValue) *series {
	option := metric.WithAttributeSet(attribute.NewSet(labels...))
	return &series{key: key, record: []metric.RecordOption{option}, observe: []metric.ObserveOption{option}}
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

// each calls a function with all series.
func (s *allSeries) each(do func(*series)) {
	s.mu.RLock()
	all := make([]*series, 0, len(s.made)+len(s.others))
	for _, one := range s.made {
		all = append(all, one)
	}
	for _, one := range s.others {
		if one != nil {
			all = append(all, one)
		}
	}
	s.mu.RUnlock()
	for _, one := range all {
		do(one)
	}
}
