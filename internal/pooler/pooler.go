// Package pooler tells connections to Postgres from those to a pooler, such as PgBouncer, on which a session's state is not the caller's.
package pooler

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Refuse refuses a pool whose connections are a pooler's in transaction mode. The lock that has one client at a time migrate would be
// taken on one connection of the server and freed on another: it would hold nobody back, and stay with a connection that others use.
//
// It is transaction mode where a connection has two processes in turn: while another one is in a transaction, with the process that this one has
// just had. That another client may take that process meanwhile makes this miss a pooler at times, and never refuse wrongly. Where the pooler has
// no second connection of the server to give, because as many migrate at once as it has, the first one waits: in session mode it would have its own.
func Refuse(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	pooled, first, err := processOf(ctx, conn.Conn())
	if err != nil || !pooled || pool.Config().MaxConns == 1 {
		return err
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // it has done nothing
	if _, _, err := processOf(ctx, tx.Conn()); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	_, second, err := processOf(waiting, conn.Conn())
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case waiting.Err() != nil, err == nil && first != second:
		return errors.New("the pool connects through a pooler in transaction mode, such as PgBouncer, where no lock can be held: migrate through a direct connection")
	}
	return err
}
