package deltaotel

import (
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// setNames are the labels of a set of metrics.
type setNames int

const (
	kindSet setNames = iota
	namespaceSet
	callSet
	activeSet
	informSet
	informCallSet
	passSet
	passObjectsSet
	dispatchSet
	droppedSet
)

// names are those of the values of a setKey, in their order.
var names = map[setNames][]string{
	kindSet:        {"kind"},
	namespaceSet:   {"kind", "namespace"},
	callSet:        {"kind", "namespace", "operation", "outcome"},
	activeSet:      {"kind", "namespace", "operation"},
	informSet:      {"kind", "namespace", "source", "result"},
	informCallSet:  {"kind", "source", "outcome"},
	passSet:        {"kind", "outcome"},
	passObjectsSet: {"kind", "result"},
	dispatchSet:    {"kind", "way", "outcome"},
	droppedSet:     {"what"},
}

// setKey are the values of labels.
type setKey struct {
	names      setNames
	a, b, c, d string
}

// attributeSet is a set of labels as instruments take it, made once: to make it costs more than to count.
type attributeSet struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

// maxSets bounds how many sets are kept. There are few, unless a program has thousands of namespaces.
const maxSets = 10_000

// attributeSets are those that were used. The zero value is empty.
type attributeSets struct {
	mu   sync.RWMutex
	made map[setKey]attributeSet
}

func (s *attributeSets) of(key setKey) attributeSet {
	s.mu.RLock()
	set, ok := s.made[key]
	s.mu.RUnlock()
	if ok {
		return set
	}
	values, labels := [4]string{key.a, key.b, key.c, key.d}, []attribute.KeyValue(nil)
	for i, name := range names[key.names] {
		labels = append(labels, attribute.String(name, values[i]))
	}
	option := metric.WithAttributeSet(attribute.NewSet(labels...))
	set = attributeSet{add: []metric.AddOption{option}, record: []metric.RecordOption{option}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == nil {
		s.made = map[setKey]attributeSet{}
	}
	if len(s.made) < maxSets {
		s.made[key] = set
	}
	return set
}
