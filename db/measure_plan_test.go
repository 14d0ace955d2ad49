package db_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// pagesOf is a connection that analyzes a statement, and keeps how many pages it read, and whether it was compiled first.
type pagesOf struct {
	db.DBTX
	pages    int64
	compiled bool
}

func (c *pagesOf) analyze(ctx context.Context, sql string, args ...any) error {
	var plan []byte
	if err := c.DBTX.QueryRow(ctx, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&plan); err != nil {
		return err
	}
	var explained []struct {
		JIT  json.RawMessage `json:"JIT"`
		Plan struct {
			Hit  int64 `json:"Shared Hit Blocks"`
			Read int64 `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(plan, &explained); err != nil {
		return err
	}
	c.pages = explained[0].Plan.Hit + explained[0].Plan.Read
	c.compiled = explained[0].JIT != nil
	return errExplained
}

func (c *pagesOf) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return nil, c.analyze(ctx, sql, args...)
}

func (c *pagesOf) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return failedRow{c.analyze(ctx, sql, args...)}
}

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }

// logOfChanges is a log of 100,000 entries, with three consumers.
func logOfChanges(t *testing.T, belief string) *pgxpool.Pool {
	t.Helper()
	pool := deltatest.New(t).Pool
	require.True(t, makePartition(t, pool, 0))
	require.True(t, makePartition(t, pool, 1))
	for _, sql := range []string{
		"ALTER TABLE delta_change_default SET (autovacuum_enabled = FALSE)",
		`INSERT INTO delta_change (order_xid, at, change, kind, object_id, namespace, resource_id, generation, sync_count)
				SELECT '3', now() - i % 2 * interval '2 days', 'updated', 'thing', i::text, 'default', 1, 1, 1 FROM generate_series(1, 100000) i`,
		`INSERT INTO delta_change_consumer (name, members, member, epoch, order_xid, id)
				SELECT n, 1, 0, 1, '3', CASE n WHEN 'slow' THEN 0 WHEN 'middle' THEN 50000 ELSE 1000000 END FROM unnest('{slow,middle,quick}'::text[]) n`,
		belief,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	return pool
}

// What is measured of the log of changes every few seconds reads as many entries as are counted, and not the log: whether the planner
// knows the log or not. So does a page of a reader, and it is not believed to be so much that Postgres compiles it first: that took six times as long as the page.
func TestMeasuringTheLogOfChangesDoesNotReadIt(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const entries, most = 100_000, 100
	for _, belief := range []string{"SELECT", "ANALYZE delta_change"} {
		t.Run(belief, func(t *testing.T) {
			t.Parallel()
			conn := &pagesOf{DBTX: logOfChanges(t, belief)}
			_, err := db.New().ListChangeConsumers(t.Context(), conn, most)
			require.ErrorIs(t, err, errExplained)
			require.Positive(t, conn.pages)
			require.Less(t, conn.pages, int64(entries/100), "of consumers")
			require.False(t, conn.compiled)
			_, err = db.New().HeldChanges(t.Context(), conn, most)
			require.ErrorIs(t, err, errExplained)
			require.Less(t, conn.pages, int64(entries/100), "of what is held")
			require.False(t, conn.compiled)
			for _, after := range []int64{0, entries / 2} {
				_, err = db.New().ReadChanges(t.Context(), conn, db.ReadChangesParams{AfterXid: 3, AfterID: after, Kinds: []string{}, Members: 1, Most: 500})
				require.ErrorIs(t, err, errExplained)
				require.Positive(t, conn.pages)
				require.Less(t, conn.pages, int64(entries/100), "of a page")
				require.False(t, conn.compiled, "a page")
			}
		})
	}
}
