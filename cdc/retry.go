package cdc

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// backoff is the delay before another attempt: it doubles with each, from the shortest to the longest.
type backoff struct {
	shortest, longest time.Duration
	next              time.Duration
}

func (b *backoff) delay() time.Duration {
	delay := max(b.next, b.shortest)
	b.next = min(delay*2, b.longest)
	return delay
}

func (b *backoff) reset() { b.next = 0 }

// pause waits, and returns early, with the context's error, when that ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passing tells of errors that another connection can get over: of the network, and of a server that is restarted, has no
// room at the moment, or lets go of a slot a little later.
func passing(err error) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		for _, class := range []string{"08", "53", "57", "58", "55006"} {
			if strings.HasPrefix(server.Code, class) {
				return true
			}
		}
		return false
	}
	var invalid *InvalidError
	var large *TooLargeError
	var spill *spillLost
	return !errors.As(err, &invalid) && !errors.As(err, &large) && !errors.As(err, &spill) &&
		!errors.Is(err, ErrResyncNeeded) && !errors.Is(err, ErrProtocol)
}
