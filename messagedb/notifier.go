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

// notifier wakes subscriptions when a category was written. While there are subscriptions to wake, it listens on one
// connection that it takes out of the pool. If listening fails nothing is lost, because subscriptions also poll.
type notifier struct {
	pool    *pgxpool.Pool
	channel string
	logger  *slog.Logger

	mu      sync.Mutex
	waiting map[string]map[chan struct{}]bool // by payload
	cancel  context.CancelFunc                // of the listener that runs; nil if none does
	done    chan struct{}                     // closed when it has ended
}

const (
	listenRetry       = time.Second      // between attempts to listen
	listenRetryPooled = 5 * time.Minute  // between attempts where a pooler loses notifications
	listenTimeout     = 10 * time.Second // of one attempt
)

func newNotifier(pool *pgxpool.Pool, channel string, logger *slog.Logger) *notifier {
	return &notifier{pool: pool, channel: channel, logger: logger, waiting: map[string]map[chan struct{}]bool{}}
}

// notificationPayload names a category, which may be too long for a notification. Two that collide wake each other.
func notificationPayload(category string) string { return strconv.FormatInt(Hash64(category), 10) }

// addWaiter returns a channel that receives after each write to a category, and a function that ends this.
func (b *notifier) addWaiter(category string) (woken <-chan struct{}, leave func()) {
	payload, ch := notificationPayload(category), make(chan struct{}, 1)
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
	return ch, func() { b.removeWaiter(payload, ch) }
}

// removeWaiter removes a channel. After the last one it stops the listener, and waits for its end.
func (b *notifier) removeWaiter(payload string, ch chan struct{}) {
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

// notifyWaiters wakes the waiters of a payload; all waiters if it is empty.
func (b *notifier) notifyWaiters(payload string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p, channels := range b.waiting {
		if payload != "" && p != payload {
			continue
		}
		for ch := range channels {
			select {
			case ch <- struct{}{}:
			default: // the last one was not received yet
			}
		}
	}
}

func (b *notifier) listen(ctx context.Context) {
	retry := backoff.New(listenRetry, listenRetry) // with jitter, so that processes do not all reconnect at once
	for ctx.Err() == nil {
		err := b.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, puddle.ErrClosedPool) {
			b.notifyWaiters("") // they read, and get the same error
			return
		}
		b.logger.Warn("messagedb: no notifications, subscriptions poll", "error", err)
		delay := retry.Delay()
		if errors.Is(err, pooler.ErrNotHeard) {
			delay = listenRetryPooled
		}
		_ = backoff.Pause(ctx, delay) // the loop checks the context
	}
}

func (b *notifier) listenOnce(ctx context.Context) error {
	acquireCtx, cancel := context.WithTimeout(ctx, listenTimeout)
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
	if err := pooler.Listen(acquireCtx, conn, b.pool, b.channel, b.notifyWaiters); err != nil {
		return err
	}
	b.notifyWaiters("") // writes before we listened sent us no notification
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if n.Channel == b.channel {
			b.notifyWaiters(n.Payload)
		}
	}
}
