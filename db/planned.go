package db

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// preparedSets is the largest set whose statement is planned once a connection. A plan from when the table was small may
// read the whole of it for each set, or even for each row, until Postgres analyzes the table: for a few rows that is what any prepared
// statement risks, for hundreds planning each time costs less.
const preparedSets = 64

// Planned chooses how a statement for a set of n rows is planned.
func Planned(conn DBTX, n int) DBTX {
	if n <= preparedSets {
		return conn
	}
	return plannedEachTime{conn}
}

// plannedEachTime sends statements unnamed, so that Postgres plans each with its arguments and for the table as it is now.
type plannedEachTime struct{ conn DBTX }

func (c plannedEachTime) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return c.conn.Query(ctx, sql, withoutName(args)...)
}

func (c plannedEachTime) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return c.conn.QueryRow(ctx, sql, withoutName(args)...)
}

func (c plannedEachTime) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return c.conn.Exec(ctx, sql, withoutName(args)...)
}

func withoutName(args []any) []any { return append([]any{pgx.QueryExecModeCacheDescribe}, args...) }
