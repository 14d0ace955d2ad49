package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatest"
)

// filled returns a table with one row that the engine has synced, and a number of loaded rows.
func filled(t *testing.T, loaded int) *largeBench {
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, synced_generation, sync_count, attempt, workflow_id,
			synced_at, due_at, dispatch_at)
		VALUES ($1, 'batch-fill-0-0', '{"key": "batch-fill-0-0"}', '\x00', 'default', 10, 'synced', 1, 1, 1, 'bench_large/batch/0123456789',
			now(), now() + interval '1 day', now() + interval '1 day 1 minute')`, batchedKind)
	require.NoError(t, err)
	l := &largeBench{b: &bench{options: options{large: loaded + 1}}, s: &syncBench{pool: env.Pool, kind: batchedKind}}
	require.NoError(t, l.loadRows(t.Context(), loaded))
	return l
}

func TestLoadedRowsLookAsIfTheyHadBeenSynced(t *testing.T) {
	t.Parallel()
	l := filled(t, 2500)
	require.Equal(t, 2500, l.report.Loaded)
	var rows, batches int
	var first, last time.Duration
	err := l.s.pool.QueryRow(t.Context(), `
		SELECT count(DISTINCT hash), count(DISTINCT workflow_id), min(due_at) - now(), max(due_at) - now() FROM delta_resource
		WHERE kind = $1 AND state = 'synced' AND sync_count = 1 AND claimed_until IS NULL AND object_id LIKE 'loaded-%'
			AND object ->> 'key' = object_id AND dispatch_at = due_at + interval '1 minute'`, batchedKind).Scan(&rows, &batches, &first, &last)
	require.NoError(t, err)
	require.Equal(t, 2500, rows)
	require.Equal(t, 3, batches)
	require.Greater(t, first, 22*time.Hour)
	require.Less(t, last, 25*time.Hour)
}

// The measured statements run and leave no trace, because the client would work the rows that they make due.
func TestCostsAreTakenBack(t *testing.T) {
	t.Parallel()
	l := filled(t, 5000)
	_, err := l.s.pool.Exec(t.Context(), "VACUUM ANALYZE delta_resource")
	require.NoError(t, err)
	require.NoError(t, l.measureCosts(t.Context(), "now"))
	require.Len(t, l.report.Costs, 4)
	for _, c := range l.report.Costs {
		require.Positive(t, c.Milliseconds, c.Name)
		require.Positive(t, c.Buffers, c.Name)
	}
	require.Greater(t, l.report.Costs[1].Buffers, float64(leasedAtOnce), "a thousand rows are leased")
	var due int
	require.NoError(t, l.s.pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource WHERE dispatch_at < now() + interval '1 hour'").Scan(&due))
	require.Zero(t, due)
}

func TestALargeRunIsRefusedWithoutRoom(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, checkDisk(1_000_000_000_000), "-large 1000000000000 takes up to")
	_, err := run(options{large: 1})
	require.ErrorContains(t, err, "-large 1: it must be at least 20000")
}

// The report mentions loaded rows next to the rates.
func TestTheReportSaysWhatWasLoaded(t *testing.T) {
	t.Parallel()
	r := largeReport{Rows: 100, Slices: []slicePart{{5, 5, 10}, {5, 99, 8}}, Sizes: []sizePart{{"t", 9900}}, WAL: 990, Expiry: &expiryPart{Rows: 1, PerSecond: 7}}
	require.NotContains(t, r.renderMarkdown(), "loaded")
	require.Contains(t, r.renderMarkdown(), "| t | 0.0 MB | 100 B |")
	r.Loaded = 89
	require.Contains(t, r.renderMarkdown(), "**89 of the 100 were not synced through Delta, but loaded")
	require.Contains(t, r.renderMarkdown(), "of 11 resources")
	require.NotPanics(t, func() { _ = largeReport{}.renderMarkdown() })
}
