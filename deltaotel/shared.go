package deltaotel

import (
	"errors"
	"reflect"
	"sync"

	"go.opentelemetry.io/otel/metric"
)

// shared has the instruments of a MeterProvider for all Telemetries that use it. If several clients reported the same labels, an instrument of OpenTelemetry
// would keep only the latest report, so a client that is up would hide one that is down. And callbacks of a client would stay registered after it has stopped.
type shared struct {
	provider metric.MeterProvider
	// users is the number of open Telemetries that use the instruments.
	users int
	once  sync.Once
	made  *instruments
	err   error
}

var providers struct {
	mu     sync.Mutex
	shared map[metric.MeterProvider]*shared
}

// shareInstruments returns the instruments of a provider, and counts one more user.
func shareInstruments(provider metric.MeterProvider) (*shared, error) {
	s := findShared(provider)
	s.once.Do(func() { s.made, s.err = newInstruments(provider.Meter(scope)) })
	if s.err != nil {
		return nil, errors.Join(s.err, s.releaseUser())
	}
	return s, nil
}

func findShared(provider metric.MeterProvider) *shared {
	providers.mu.Lock()
	defer providers.mu.Unlock()
	if !reflect.ValueOf(provider).Comparable() { // it could not be found again
		return &shared{provider: provider, users: 1}
	}
	s := providers.shared[provider]
	if s == nil {
		if providers.shared == nil {
			providers.shared = map[metric.MeterProvider]*shared{}
		}
		s = &shared{provider: provider}
		providers.shared[provider] = s
	}
	s.users++
	return s
}

// releaseUser removes a user. The last one unregisters the instruments.
func (s *shared) releaseUser() error {
	providers.mu.Lock()
	s.users--
	isLast := s.users == 0
	if isLast && reflect.ValueOf(s.provider).Comparable() && providers.shared[s.provider] == s {
		delete(providers.shared, s.provider)
	}
	providers.mu.Unlock()
	if !isLast || s.made == nil {
		return nil
	}
	return s.made.unregister()
}
