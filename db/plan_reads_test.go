package db_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// rowsRead counts the rows that a statement has read: of delta_resource by a scan of all and by index, of delta_claim by a scan of all, and of other tables
// either way.
type rowsRead struct{ sequential, fetched, claims, others int }

// readBy runs a statement in a transaction, which is rolled back, and tells what it has read.
func readBy(t *testing.T, pool *pgxpool.Pool, mode string, few int, s frequent) (read rowsRead) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
	_, err = tx.Exec(t.Context(), "SET LOCAL plan_cache_mode = "+mode)
	require.NoError(t, err)
	before := s.before
	if before == "" {
		before = "kind = kind"
	}
	var ids []int64
	err = tx.QueryRow(t.Context(), fmt.Sprintf(`WITH few AS (UPDATE delta_resource SET %s WHERE kind = 'thing'
		AND object_id = ANY (ARRAY(SELECT lpad((i * 100)::text, 6, '0') FROM generate_series(1, %d) i)) RETURNING id)
		SELECT array_agg(id ORDER BY md5(id::text)) FROM few`, before, few)).Scan(&ids)
	require.NoError(t, err)
	require.Len(t, ids, few)
	_, err = tx.Exec(t.Context(), "INSERT INTO delta_claim SELECT gen_random_uuid(), now() + interval '1 hour' FROM generate_series(1, 5000)")
	require.NoError(t, err)

	counted := &countedReads{Tx: tx}
	n, err := s.do(t.Context(), counted, ids)
	require.NoError(t, err)
	require.NoError(t, counted.err)
	require.Equal(t, s.does, n)
	return counted.read
}

// countedReads counts what queries have read; what tests do with Exec is not counted, unless it is one of Delta's statements.
type countedReads struct {
	pgx.Tx
	// of are further tables whose reads are counted.
	of   []string
	read rowsRead
	err  error
}

const readStatistics = `SELECT sum(seq_tup_read) FILTER (WHERE relname = 'delta_resource')::bigint, sum(idx_tup_fetch) FILTER (WHERE relname = 'delta_resource')::bigint,
	sum(seq_tup_read) FILTER (WHERE relname = 'delta_claim')::bigint,
	coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FILTER (WHERE relname = ANY ($1)), 0)::bigint
	FROM pg_stat_xact_user_tables WHERE relid = ANY (ARRAY['delta_resource'::regclass, 'delta_claim'::regclass]) OR relid = ANY ($1::regclass[]::oid[])`

func (c *countedReads) statistics(ctx context.Context) (read rowsRead) {
	err := c.Tx.QueryRow(ctx, readStatistics, append([]string{}, c.of...)).Scan(&read.sequential, &read.fetched, &read.claims, &read.others)
	if err != nil && c.err == nil {
		c.err = err
	}
	return read
}

func (c *countedReads) count(ctx context.Context, before rowsRead) {
	after := c.statistics(ctx)
	c.read.sequential += after.sequential - before.sequential
	c.read.fetched += after.fetched - before.fetched
	c.read.claims += after.claims - before.claims
	c.read.others += after.others - before.others
}

func (c *countedReads) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	before := c.statistics(ctx)
	rows, err := c.Tx.Query(ctx, sql, args...)
	return &countedRows{Rows: rows, done: func() { c.count(ctx, before) }}, err
}

func (c *countedReads) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	before := c.statistics(ctx)
	return countedRow{row: c.Tx.QueryRow(ctx, sql, args...), done: func() { c.count(ctx, before) }}
}

func (c *countedReads) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	before := c.statistics(ctx)
	tag, err := c.Tx.Exec(ctx, sql, args...)
	if sql[:2] == "--" { // one of sqlc's
		c.count(ctx, before)
	}
	return tag, err
}

type countedRow struct {
	row  pgx.Row
	done func()
}

func (r countedRow) Scan(to ...any) error {
	err := r.row.Scan(to...)
	r.done()
	return err
}

type countedRows struct {
	pgx.Rows
	done func()
}

func (r *countedRows) Close() {
	r.Rows.Close()
	if r.done != nil {
		r.done()
		r.done = nil
	}
}
