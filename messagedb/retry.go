package messagedb

import (
	"context"
	"time"
)

const (
	shortestRetry = 100 * time.Millisecond
	longestRetry  = 5 * time.Second
)

// backoff is the delay before another attempt: it doubles with each, from the shortest to the longest.
type backoff struct {
	shortest, longest time.Duration
	next              time.Duration
}

func (b *backoff) delay() time.Duration {
	if b.next == 0 {
		b.next = b.shortest
	}
	delay := b.next
	b.next = min(b.next*2, b.longest)
	return delay
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
