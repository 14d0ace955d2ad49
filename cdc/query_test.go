package cdc_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

func TestSnapshotAnswersQueries(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, at timestamptz, b bytea, none text)`,
		`insert into t select i, '2026-01-01 00:00+02', '\x00ff' from generate_series(1, 100000) i`)
	s := d.createSnapshot(func(c *cdc.SnapshotConfig) { c.Connections = 2 })
	d.exec(`update t set none = 'late'`)
	var rows [][]cdc.Value
	for row, err := range s.Query(t.Context(), `select id, at, b, none from t where id <= $1 order by id desc limit 1`, "7") {
		require.NoError(t, err)
		rows = append(rows, row)
	}
	require.Equal(t, [][]cdc.Value{{{State: cdc.ValuePresent, Text: "7"}, {State: cdc.ValuePresent, Text: "2025-12-31 22:00:00+00"}, {State: cdc.ValuePresent, Text: `\x00ff`}, {}}}, rows)
	// Loops that are left early, failing queries and ended contexts do not affect other loops.
	for range 5 {
		for _, err := range s.Query(t.Context(), `select id from t`) {
			require.NoError(t, err)
			break
		}
		n := 0
		for row, err := range s.Query(t.Context(), `select 1 / (id - 50000) from t order by id`) {
			if n++; err != nil {
				require.Nil(t, row)
				require.ErrorContains(t, err, "division by zero")
			}
		}
		require.Positive(t, n)
		for _, err := range s.Query(t.Context(), `select 1; drop table t`) {
			require.ErrorContains(t, err, "cannot insert multiple commands")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for _, err := range s.Query(ctx, `select repeat('x', 10000), pg_sleep(0.001) from t`) {
			cancel()
			last = err
		}
		require.ErrorIs(t, last, context.Canceled)
	}
	s.Close()
	for _, err := range s.Query(t.Context(), `select 1`) {
		require.ErrorIs(t, err, cdc.ErrClosed)
	}
}
