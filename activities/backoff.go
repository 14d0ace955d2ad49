package activities

import (
	"math/rand/v2"
	"time"
)

const (
	firstBackoff = time.Second
	maxBackoff   = 10 * time.Minute
)

// Backoff is how long to wait after attempt n failed: a second after the first, twice as long after each further one,
// ten minutes at most, give or take a tenth so that resources which failed together do not return together.
func Backoff(n int) time.Duration {
	wait := maxBackoff
	if n < 1 {
		n = 1
	}
	if shift := n - 1; shift < 20 && firstBackoff<<shift < maxBackoff {
		wait = firstBackoff << shift
	}
	return time.Duration(float64(wait) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // spread, not secrecy
}
