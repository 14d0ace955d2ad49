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

// notifier wakes subscriptions when a category was written. It listens on one connection, which is not the pool's any more,
// for as long as there is a subscription that wants to be woken. Where it does not work, nothing is lost: they poll.
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

// addWaiter returns a channel that has an element after each write to a category, and what ends that.
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

// removeWaiter returns when the listener has ended, if this was the last who wanted it.
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

// notifyWaiters wakes who waits for a payload; everybody if it is empty.
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
			default: // it has not looked yet
			}
		}
	}
}

func (b *notifier) listen(ctx context.Context) {
	retry := backoff.New(listenRetry, listenRetry) // they do not all listen anew in the same moment
	for ctx.Err() == nil {
		err := b.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, puddle.ErrClosedPool) {
			b.notifyWaiters("") // they read, and find the same
			return
		}
		b.logger.Warn("messagedb: no notifications, subscriptions poll", "error", err)
		delay := retry.Delay()
		if errors.Is(err, pooler.ErrNotHeard) {
			delay = listenRetryPooled
		}
		_ = backoff.Pause(ctx, delay) // the loop looks at the context
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
	b.notifyWaiters("") // what was written before we listened
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
