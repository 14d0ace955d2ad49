package deltaotel

import (
	"errors"
	"reflect"
	"sync"

	"go.opentelemetry.io/otel/metric"
)

// shared are the instruments of a MeterProvider, for all Telemetries that have it. Of what several clients say of the same labels an instrument of
// OpenTelemetry keeps the latest, so that a client that is up would hide one that is down; and callbacks that each client registered would stay
// when it has stopped.
type shared struct {
	provider metric.MeterProvider
	// users is how many Telemetries have it that were not closed.
	users int
	once  sync.Once
	made  *instruments
	err   error
}

var providers struct {
	mu     sync.Mutex
	shared map[metric.MeterProvider]*shared
}

// share gives a Telemetry the instruments of a provider.
func share(provider metric.MeterProvider) (*shared, error) {
	s := findShared(provider)
	s.once.Do(func() { s.made, s.err = newInstruments(provider.Meter(scope)) })
	if s.err != nil {
		return nil, errors.Join(s.err, s.release())
	}
	return s, nil
}

func findShared(provider metric.MeterProvider) *shared {
	providers.mu.Lock()
	defer providers.mu.Unlock()
	if !reflect.ValueOf(provider).Comparable() { // it cannot be found again
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

// release gives the instruments back. The last one that does has them no longer collected.
func (s *shared) release() error {
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
