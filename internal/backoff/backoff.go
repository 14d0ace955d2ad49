// Package backoff has what loops share that try again: how long they wait, and which errors of Postgres are worth it.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the delay before another attempt: it doubles with each, from the shortest to the longest. Each is spread over its upper half, so
// that what failed together, because a server went away, does not come back together.
type Backoff struct {
	shortest, longest time.Duration
	next              time.Duration
}

// New makes one that begins with the shortest delay, and stays at the longest. No delay is longer than that.
func New(shortest, longest time.Duration) *Backoff {
	return &Backoff{shortest: shortest, longest: longest}
}

// Delay is the next one.
func (b *Backoff) Delay() time.Duration {
	delay := max(b.next, b.shortest)
	b.next = min(delay*2, b.longest)
	return delay/2 + rand.N(delay/2+1)
}

// Reset begins with the shortest delay again.
func (b *Backoff) Reset() { b.next = 0 }

// Pause waits, and returns early, with the context's error, when that ends.
func Pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Retry makes a call again while its error is transient, until ctx ends. Then it returns the last transient error, which says why.
func Retry(ctx context.Context, pauses *Backoff, isTransient func(error) bool, call func() error) error {
	var last error
	for {
		err := call()
		switch {
		case err == nil:
			return nil
		case last != nil && ctx.Err() != nil:
			return last
		case !isTransient(err):
			return err
		}
		last = err
		if Pause(ctx, pauses.Delay()) != nil {
			return last
		}
	}
}

// IsTransientCode reports whether the same statement may succeed a little later, by the code of Postgres' error. A class has two characters,
// see https://www.postgresql.org/docs/current/errcodes-appendix.html.
func IsTransientCode(code string) bool {
	switch code {
	case "25006", // read only: it is no longer the primary
		"55P03", // a lock was not available in time
		"55006", // in use: a replication slot is let go of a little later
		"XX000": // an internal error, which is also what poolers call a server that they do not reach
		return true
	}
	switch code[:min(2, len(code))] {
	case "08", // the connection
		"40", // a deadlock or a serialization failure: the server chose a victim
		"53", // out of a resource
		"57", // an operator: shutting down, starting, cancelled
		"58": // the system: input and output
		return true
	}
	return false
}
