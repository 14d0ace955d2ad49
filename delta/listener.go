package delta

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const maxListenBackoff = 30 * time.Second

// listener hears what other clients inform, on a connection of its own beside the pool.
type listener struct {
	pool    *pgxpool.Pool
	channel string
	log     *slog.Logger
	// wake is called with the kind that has something to dispatch, wakeAll where it is not known which kinds have.
	wake    func(kind string)
	wakeAll func()
}

func (l *listener) run(ctx context.Context) {
	backoff := time.Second
	for ctx.Err() == nil {
		started := time.Now()
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > maxListenBackoff {
			backoff = time.Second
		}
		l.log.Warn("listening for notifications failed; due resources are still found by polling",
			"error", err, "retry_in", backoff)
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxListenBackoff)
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
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{l.channel}.Sanitize()); err != nil {
		return err
	}
	// What was informed while nobody listened.
	l.wakeAll()
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		l.wake(notification.Payload)
	}
}
