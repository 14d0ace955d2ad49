package delta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/internal/backoff"
	"github.com/chariot-giving/delta/internal/pooler"
)

const (
	minListenBackoff = time.Second
	maxListenBackoff = 30 * time.Second
)

// listener receives notifications of other clients, on a connection beside the pool.
type listener struct {
	pool    *pgxpool.Pool
	channel string
	log     *slog.Logger
	// wake is called with the kind of a notification. wakeAll is called if notifications may have been missed.
	wake    func(kind string)
	wakeAll func()

	mu sync.Mutex
	// listening reports whether it has a connection that listens; failure is why it lost the one before.
	listening bool
	failure   error
}

func (l *listener) setListening(listening bool, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listening, l.failure = listening, failure
}

// checkConnection returns why nothing listens; nil if it does.
func (l *listener) checkConnection() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.listening:
		return nil
	case l.failure == nil:
		return errors.New("it has no connection yet")
	}
	return fmt.Errorf("its connection is lost: %w", l.failure)
}

func (l *listener) run(ctx context.Context) {
	pauses := backoff.New(minListenBackoff, maxListenBackoff)
	for ctx.Err() == nil {
		started := time.Now()
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		l.setListening(false, err)
		if time.Since(started) > maxListenBackoff {
			pauses.Reset()
		}
		wait := pauses.Delay()
		l.log.Warn("listening for notifications failed; due resources are still found by polling",
			"error", err, "retry_in", wait)
		_ = backoff.Pause(ctx, wait) // the loop looks at the context
	}
}

func (l *listener) listen(ctx context.Context) error {
	pool := l.pool.Config()
	config := pool.ConnConfig
	if pool.BeforeConnect != nil {
		// Passwords that change are set here.
		if err := pool.BeforeConnect(ctx, config); err != nil {
			return fmt.Errorf("BeforeConnect: %w", err)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if err := pooler.Listen(ctx, conn, l.pool, l.channel, l.wake); err != nil {
		return err
	}
	l.setListening(true, nil)
	// Rows may have been informed before.
	l.wakeAll()
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		l.wake(notification.Payload)
	}
}
