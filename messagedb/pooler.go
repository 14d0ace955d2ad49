package messagedb

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// This file is the same in messagedb and migrations, but for its package: a test compares them. Both are leaves, which import nothing of this
// module.

// refusePooler refuses a pool whose connections are a pooler's in transaction mode. The lock that has one client at a time migrate would be
// taken on one connection of the server and freed on another: it would hold nobody back, and stay with a connection that others use.
//
// It is transaction mode where a connection has two processes in turn: while another one is in a transaction, with the process that this one has
// just had. That another client may take that process meanwhile makes this miss a pooler at times, and never refuse wrongly.
func refusePooler(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	pooled, first, err := behindPooler(ctx, conn.Conn())
	if err != nil || !pooled || pool.Config().MaxConns == 1 {
		return err
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // it has done nothing
	if _, _, err := behindPooler(ctx, tx.Conn()); err != nil {
		return err
	}
	_, second, err := behindPooler(ctx, conn.Conn())
	if err == nil && first != second {
		err = errors.New("the pool connects through a pooler in transaction mode, such as PgBouncer, where no lock can be held: migrate through a direct connection")
	}
	return err
}
