package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is the delay before another attempt: it doubles with each, from the shortest to the longest. Each is spread over its upper half, so
// that what failed together, because a server went away, does not come back together.
//
// This file is the same in internal/backoff, cdc and messagedb, but for its package: a test compares them. The two are leaves, which import
// nothing of this module.
type backoff struct {
	shortest, longest time.Duration
	next              time.Duration
}

func (b *backoff) delay() time.Duration {
	delay := max(b.next, b.shortest)
	b.next = min(delay*2, b.longest)
	return delay/2 + rand.N(delay/2+1)
}

func (b *backoff) reset() { b.next = 0 }

// pause waits, and returns early, with the context's error, when that ends.
func pause(ctx context.Context, d time.Duration) error {
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

// isTransientCode reports whether the same statement may succeed a little later, by the code of Postgres' error. A class has two characters,
// see https://www.postgresql.org/docs/current/errcodes-appendix.html.
func isTransientCode(code string) bool {
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
