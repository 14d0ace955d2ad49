// Package pooler distinguishes connections to Postgres from connections to a pooler such as PgBouncer, which may share a session among clients.
package pooler

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Kind says whether the connections of a pool lead to Postgres or to a pooler.
type Kind int

const (
	// None means Postgres itself.
	None Kind = iota
	// Session means a pooler in session mode, as far as Find can see.
	Session
	// Transaction means a pooler in transaction mode: each transaction of a connection may use another connection of the server.
	Transaction
)

// Refuse returns an error if the pool connects through a pooler in transaction mode. The lock that lets one client at a time migrate would be
// taken on one connection of the server and released on another: it would exclude no other client, and stay on a connection that others use.
func Refuse(ctx context.Context, pool *pgxpool.Pool) error {
	kind, err := Find(ctx, pool)
	if err == nil && kind == Transaction {
		err = errors.New("the pool connects through a pooler in transaction mode, such as PgBouncer, where no lock can be held: migrate through a direct connection")
	}
	return err
}

// Find finds out where the connections of a pool lead. It uses two of them for a moment.
//
// The mode is transaction mode if one connection uses two server processes in turn: Find starts a transaction on a second connection, which takes
// the process that the first one has just used. Another client may take that process meanwhile. Then Find misses the pooler, but it never reports
// one that is not there. If the pooler has no second connection of the server free, because as many clients migrate at once as it has connections,
// the first connection waits; in session mode it would have its own.
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
	defer tx.Rollback(ctx) //nolint:errcheck // the transaction has changed nothing
	if _, _, err := processOf(ctx, tx.Conn()); err != nil {
		return Session, err
	}
	waiting, cancel := context.WithTimeout(ctx, probeTimeout)
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
