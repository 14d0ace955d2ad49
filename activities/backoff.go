package activities

import (
	"cmp"
	"math"
	"math/rand/v2"
	"time"
)

// RetryPolicy says how long to wait after an attempt that failed, in Temporal's words. A zero field has its default.
type RetryPolicy struct {
	// InitialInterval is the wait after the first failure; 1 second by default.
	InitialInterval time.Duration
	// BackoffCoefficient is what each further wait is multiplied with; 2 by default.
	BackoffCoefficient float64
	// MaximumInterval bounds the wait; 10 minutes by default.
	MaximumInterval time.Duration
}

const (
	defaultInitialInterval    = time.Second
	defaultBackoffCoefficient = 2
	defaultMaximumInterval    = 10 * time.Minute
)

// Backoff is how long to wait after attempt n failed, give or take a tenth so that resources which failed together do
// not return together.
func (p RetryPolicy) Backoff(n int) time.Duration {
	initial := cmp.Or(p.InitialInterval, defaultInitialInterval)
	most := max(cmp.Or(p.MaximumInterval, defaultMaximumInterval), initial)
	coefficient := cmp.Or(p.BackoffCoefficient, defaultBackoffCoefficient)
	wait := float64(initial) * math.Pow(coefficient, float64(max(n, 1)-1))
	return time.Duration(min(wait, float64(most)) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // spread, not secrecy
}
