package messagedb

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"

	"github.com/chariot-giving/delta/internal/backoff"
	"github.com/chariot-giving/delta/internal/pooler"
)

// bell wakes subscriptions when a category was written. It listens on one connection, which is not the pool's any more,
// for as long as there is a subscription that wants to be woken. Where it does not work, nothing is lost: they poll.
type bell struct {
	pool    *pgxpool.Pool
	channel string
	logger  *slog.Logger

	mu      sync.Mutex
	waiting map[string]map[chan struct{}]bool // by payload
	cancel  context.CancelFunc                // of the listener that runs; nil if none does
	done    chan struct{}                     // closed when it has ended
}

const (
	bellRetry   = time.Second      // between attempts to listen
	bellPooled  = 5 * time.Minute  // between attempts where a pooler loses notifications
	bellTimeout = 10 * time.Second // of one attempt
)

func newBell(pool *pgxpool.Pool, channel string, logger *slog.Logger) *bell {
	return &bell{pool: pool, channel: channel, logger: logger, waiting: map[string]map[chan struct{}]bool{}}
}

// bellPayload names a category, which may be too long for a notification. Two that collide wake each other.
func bellPayload(category string) string { return strconv.FormatInt(Hash64(category), 10) }

// join returns a channel that has an element after each write to a category, and what ends that.
func (b *bell) join(category string) (woken <-chan struct{}, leave func()) {
	payload, ch := bellPayload(category), make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[payload] == nil {
		b.waiting[payload] = map[chan struct{}]bool{}
	}
	b.waiting[payload][ch] = true
	if b.cancel == nil {
		ctx, cancel := context.WithCancel(context.Background())
		previous, done := b.done, make(chan struct{})
		b.cancel, b.done = cancel, done
		go func() {
			defer close(done)
			if previous != nil {
				<-previous
			}
			b.listen(ctx)
		}()
	}
	return ch, func() { b.leave(payload, ch) }
}

// leave returns when the listener has ended, if this was the last who wanted it.
func (b *bell) leave(payload string, ch chan struct{}) {
	b.mu.Lock()
	delete(b.waiting[payload], ch)
	if len(b.waiting[payload]) == 0 {
		delete(b.waiting, payload)
	}
	if len(b.waiting) > 0 {
		b.mu.Unlock()
		return
	}
	done := b.done
	b.cancel()
	b.cancel = nil
	b.mu.Unlock()
	<-done
}

// ring wakes who waits for a payload; everybody if it is empty.
func (b *bell) ring(payload string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p, channels := range b.waiting {
		if payload != "" && p != payload {
			continue
		}
		for ch := range channels {
			select {
			case ch <- struct{}{}:
			default: // it has not looked yet
			}
		}
	}
}

func (b *bell) listen(ctx context.Context) {
	retry := backoff.New(bellRetry, bellRetry) // they do not all listen anew in the same moment
	for ctx.Err() == nil {
		err := b.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, puddle.ErrClosedPool) {
			b.ring("") // they read, and find the same
			return
		}
		b.logger.Warn("messagedb: no notifications, subscriptions poll", "error", err)
		delay := retry.Delay()
		if errors.Is(err, pooler.ErrNotHeard) {
			delay = bellPooled
		}
		_ = backoff.Pause(ctx, delay) // the loop looks at the context
	}
}

func (b *bell) listenOnce(ctx context.Context) error {
	acquireCtx, cancel := context.WithTimeout(ctx, bellTimeout)
	defer cancel()
	pooled, err := b.pool.Acquire(acquireCtx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack()
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	if err := pooler.Listen(acquireCtx, conn, b.pool, b.channel, b.ring); err != nil {
		return err
	}
	b.ring("") // what was written before we listened
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if n.Channel == b.channel {
			b.ring(n.Payload)
		}
	}
}
