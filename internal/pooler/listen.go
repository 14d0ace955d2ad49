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

// probePatience is how long a notification may take from the pool to a connection that listens through a pooler.
const probePatience = 5 * time.Second

// ErrNotHeard is of a connection whose notifications are lost on the way. LISTEN itself succeeds there.
var ErrNotHeard = errors.New("no notification comes through: the pool's address is that of a pooler in transaction mode, such as PgBouncer. " +
	"Give it a direct connection to Postgres, or a pooler in session mode")

// Listen has a connection, which is the caller's alone, hear a channel. heard is called with what comes while that is tried out.
//
// Idle timeouts of a role or a database must not end the connection. The setting is only made on a direct connection: behind a pooler it would
// stay on a connection of the server that others get, as LISTEN does.
func Listen(ctx context.Context, conn *pgx.Conn, pool *pgxpool.Pool, channel string, heard func(payload string)) error {
	pooled, _, err := processOf(ctx, conn)
	if err != nil {
		return err
	}
	if !pooled {
		if _, err := conn.Exec(ctx, "SET idle_session_timeout = 0"); err != nil {
			return fmt.Errorf("ending the timeout of the session: %w", err)
		}
	}
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	if !pooled {
		return nil
	}
	return probe(ctx, conn, pool, channel, heard)
}

// probe sends a notification by another connection, and waits for it. The payload is none that a sender of this module has.
func probe(ctx context.Context, conn *pgx.Conn, pool *pgxpool.Pool, channel string, heard func(payload string)) error {
	payload := "probe/" + rand.Text()
	if _, err := pool.Exec(ctx, "SELECT pg_notify($1, $2)", channel, payload); err != nil {
		return fmt.Errorf("sending a notification: %w", err)
	}
	waiting, cancel := context.WithTimeoutCause(ctx, probePatience, ErrNotHeard)
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
