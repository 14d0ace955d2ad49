package deltaotel

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// family is an instrument with labels. Its sums are counted in this package and reported to OpenTelemetry when metrics are collected, because an atomic addition
// takes a tenth of the time of an addition in the SDK. Histograms cannot be reported this way: for them only the labels are cached.
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
	// familyCount is the number of families.
	familyCount
)

// labelNames has the names of each family's labels, in the order of the values of a seriesKey.
var labelNames = [familyCount][]string{
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

// series is a sum, or the labels of a histogram. It is made once, because making labels takes longer than counting.
type series struct {
	key     seriesKey
	sum     atomic.Int64
	record  []metric.RecordOption
	observe []metric.ObserveOption
	// lag is the series of the lag of attempts; nil before the first one, and in other families.
	lag atomic.Pointer[series]
}

const (
	// maxSeries limits the series of a family to somewhat fewer than the SDK's limit of 2,000. If a program has more combinations, for instance with a hundred
	// thousand namespaces, the others are counted in one series.
	maxSeries = 1_900
	// recentSeries is the number of series that are found without a lock. It is a power of two.
	recentSeries = 512
)

// allSeries has the series that were used. The zero value is empty.
type allSeries struct {
	// recent has the series that were found last, by the hash of their key, so that goroutines that count do not wait for each other.
	recent [recentSeries]atomic.Pointer[series]

	mu   sync.RWMutex
	made map[seriesKey]*series
	// counts has the number of series that each family has in made, and others the series beyond maxSeries.
	counts [familyCount]int
	others [familyCount]*series
}

var seed = maphash.MakeSeed()

// findOrMake returns the series of a key, and makes it if there is none.
func (s *allSeries) findOrMake(key seriesKey) *series {
	slot := &s.recent[maphash.Comparable(seed, key)%recentSeries]
	if one := slot.Load(); one != nil && one.key == key {
		return one
	}
	one := s.findMade(key)
	if one == nil {
		one = s.makeSeries(key)
	}
	if one.key == key { // an overflow series has many keys, which would displace the others in recent
		slot.Store(one)
	}
	return one
}

// findMade finds a series that was made, or returns nil. It takes only a read lock, so that keys beyond maxSeries do not wait for each other.
func (s *allSeries) findMade(key seriesKey) *series {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if one := s.made[key]; one != nil {
		return one
	}
	return s.others[key.family]
}

func (s *allSeries) makeSeries(key seriesKey) *series {
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
	one := newSeries(key, key.toLabels()...)
	s.made[key] = one
	s.counts[key.family]++
	return one
}

func newSeries(key seriesKey, labels ...attribute.KeyValue) *series {
	option := metric.WithAttributeSet(attribute.NewSet(labels...))
	return &series{key: key, record: []metric.RecordOption{option}, observe: []metric.ObserveOption{option}}
}

// overflow is OpenTelemetry's label for measurements beyond a limit of series.
const overflow = "otel.metric.overflow"

func (k seriesKey) toLabels() (all []attribute.KeyValue) {
	values := [...]string{k.a, k.b, k.c, k.d}
	for i, name := range labelNames[k.family] {
		all = append(all, attribute.String(name, values[i]))
	}
	return all
}

// forEach calls do with each series.
func (s *allSeries) forEach(do func(*series)) {
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
