package db

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// preparedSets is the largest set with a statement that is planned once per connection. Until Postgres analyzes a
// table, a plan from when it was small may read the whole of it for each set, or even for each row. For a few rows that
// is the usual risk of a prepared statement; for hundreds, planning each time costs less.
const preparedSets = 64

// Planned returns conn, or a connection that plans each statement, for a set of n rows.
func Planned(conn DBTX, n int) DBTX {
	if n <= preparedSets {
		return conn
	}
	return plannedEachTime{conn}
}

// plannedEachTime sends unnamed statements, so that Postgres plans each with its arguments and for the current table.
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
