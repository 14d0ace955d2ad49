package deltatype

import (
	"cmp"
	"math"
	"math/rand/v2"
	"time"
)

// RetryPolicy gives the wait after a failed attempt, in Temporal's words. A zero field has its default.
type RetryPolicy struct {
	// InitialInterval is the wait after the first failure; 1 second by default.
	InitialInterval time.Duration
	// BackoffCoefficient multiplies each further wait; 3 by default.
	BackoffCoefficient float64
	// MaximumInterval bounds the wait; 30 minutes by default.
	MaximumInterval time.Duration
}

// Ten attempts, the default, last for 78 minutes, plus or minus a tenth: 1, 3, 9, 27, 81, 243 and 729 s, and twice 30
// min. So an upstream that is down for an hour degrades nothing. With a coefficient of 2, ten attempts would be over
// after 9 minutes, or begin with waits of 8 s.
const (
	defaultInitialInterval    = time.Second
	defaultBackoffCoefficient = 3
	defaultMaximumInterval    = 30 * time.Minute
)

// Backoff is [RetryPolicy.Wait] plus or minus up to a tenth, so that resources that failed together do not return
// together.
func (p RetryPolicy) Backoff(n int) time.Duration {
	return time.Duration(float64(p.Wait(n)) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // spread, not secrecy
}

// Wait returns the wait after attempt n failed, without a spread.
func (p RetryPolicy) Wait(n int) time.Duration {
	p = p.WithDefaults()
	wait := float64(p.InitialInterval) * math.Pow(p.BackoffCoefficient, float64(max(n, 1)-1))
	return time.Duration(min(wait, float64(p.MaximumInterval)))
}

// WithDefaults returns a copy in which unset fields have their defaults.
func (p RetryPolicy) WithDefaults() RetryPolicy {
	p.InitialInterval = cmp.Or(p.InitialInterval, defaultInitialInterval)
	p.MaximumInterval = max(cmp.Or(p.MaximumInterval, defaultMaximumInterval), p.InitialInterval)
	p.BackoffCoefficient = cmp.Or(p.BackoffCoefficient, defaultBackoffCoefficient)
	return p
}
