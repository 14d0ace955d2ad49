// Package backoff has what loops share that try again: how long they wait, and which errors of Postgres are worth it.
package backoff

import (
	"context"
	"time"
)

// Backoff is the delay before another attempt: it doubles with each, and each is spread over its upper half.
type Backoff struct{ b backoff }

// New makes one that begins with the shortest delay, and stays at the longest. No delay is longer than that.
func New(shortest, longest time.Duration) *Backoff {
	return &Backoff{backoff{shortest: shortest, longest: longest}}
}

// Delay is the next one.
func (b *Backoff) Delay() time.Duration { return b.b.delay() }

// Reset begins with the shortest delay again.
func (b *Backoff) Reset() { b.b.reset() }

// Pause waits, and returns early, with the context's error, when that ends.
func Pause(ctx context.Context, d time.Duration) error { return pause(ctx, d) }

// IsTransientCode reports whether the same statement may succeed a little later, by the code of Postgres' error.
func IsTransientCode(code string) bool { return isTransientCode(code) }
