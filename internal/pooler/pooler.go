// Package pooler tells connections to Postgres from those to a pooler, such as PgBouncer, on which a session's state is not the caller's.
package pooler

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Kind is what the connections of a pool lead to.
type Kind int

const (
	// None is Postgres itself.
	None Kind = iota
	// Session is a pooler on which nothing has shown that it is not in session mode.
	Session
	// Transaction is a pooler in transaction mode: a connection has another one of the server in each transaction.
	Transaction
)

// Refuse refuses a pool whose connections are a pooler's in transaction mode. The lock that has one client at a time migrate would be
// taken on one connection of the server and freed on another: it would hold nobody back, and stay with a connection that others use.
func Refuse(ctx context.Context, pool *pgxpool.Pool) error {
	kind, err := Find(ctx, pool)
	if err == nil && kind == Transaction {
		err = errors.New("the pool connects through a pooler in transaction mode, such as PgBouncer, where no lock can be held: migrate through a direct connection")
	}
	return err
}

// Find finds out where the connections of a pool lead. It takes two of them, for a moment.
//
// It is transaction mode where a connection has two processes in turn: while another one is in a transaction, with the process that this one has
// just had. That another client may take that process meanwhile makes this miss a pooler at times, and never find one wrongly. Where the pooler has
// no second connection of the server to give, because as many migrate at once as it has, the first one waits: in session mode it would have its own.
func Find(ctx context.Context, pool *pgxpool.Pool) (Kind, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return None, err
	}
	defer conn.Release()
	pooled, first, err := processOf(ctx, conn.Conn())
	switch {
	case err != nil || !pooled:
		return None, err
	case pool.Config().MaxConns == 1:
		return Session, nil
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		return Session, err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // it has done nothing
	if _, _, err := processOf(ctx, tx.Conn()); err != nil {
		return Session, err
	}
	waiting, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	_, second, err := processOf(waiting, conn.Conn())
	switch {
	case ctx.Err() != nil:
		return Session, ctx.Err()
	case waiting.Err() != nil, err == nil && first != second:
		return Transaction, nil
	}
	return Session, err
}
