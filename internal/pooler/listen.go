package pooler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// probeTimeout is how long a notification may take from the pool to a connection that listens through a pooler.
const probeTimeout = 5 * time.Second

// ErrNotHeard is returned for a connection that gets no notifications, although LISTEN succeeds on it.
var ErrNotHeard = errors.New("no notification arrives: the pool's address is that of a pooler in transaction mode, such as PgBouncer. " +
	"Give it a direct connection to Postgres, or a pooler in session mode")

// Listen lets a connection listen on a channel. No one but the caller may use the connection. heard is called with notifications that arrive
// while Listen checks that they do.
//
// Idle timeouts of a role or a database must not end the connection, so Listen turns them off. It does so only on a direct connection: behind a
// pooler the setting, like LISTEN, would stay on a server connection that other clients get.
func Listen(ctx context.Context, conn *pgx.Conn, pool *pgxpool.Pool, channel string, heard func(payload string)) error {
	pooled, _, err := processOf(ctx, conn)
	if err != nil {
		return err
	}
	if !pooled {
		if _, err := conn.Exec(ctx, "SET idle_session_timeout = 0"); err != nil {
			return fmt.Errorf("turning off the timeout of the session: %w", err)
		}
	}
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	if !pooled {
		return nil
	}
	return probeNotification(ctx, conn, pool, channel, heard)
}

// probeNotification sends a notification through another connection, and waits for it. No other sender of this module uses its payload.
func probeNotification(ctx context.Context, conn *pgx.Conn, pool *pgxpool.Pool, channel string, heard func(payload string)) error {
	payload := "probe/" + rand.Text()
	if _, err := pool.Exec(ctx, "SELECT pg_notify($1, $2)", channel, payload); err != nil {
		return fmt.Errorf("sending a notification: %w", err)
	}
	waiting, cancel := context.WithTimeoutCause(ctx, probeTimeout, ErrNotHeard)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(waiting)
		switch {
		case err != nil && context.Cause(waiting) != nil:
			return context.Cause(waiting)
		case err != nil:
			return err
		case n.Payload == payload:
			return nil
		case n.Channel == channel:
			heard(n.Payload)
		}
	}
}
