package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// Each case runs its turns on a real Postgres and Temporal, with and without telemetry, and leaves no row for the next.
func TestCasesAnswerOrders(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		measured string
		with     bool
	}{{"inform", true}, {"inform", false}, {"batches", true}, {"batches", false}} {
		t.Run(one.measured, func(t *testing.T) {
			t.Parallel()
			env := deltatest.New(t)
			var orders, answers bytes.Buffer
			for turn := range 2 {
				require.NoError(t, json.NewEncoder(&orders).Encode(protocol.Order{Turn: turn, Count: protocol.PageSize + 1}))
			}
			o := options{
				measured: one.measured, databaseURL: env.DatabaseURL, connections: 4, temporalAddress: env.TemporalAddress,
				temporalNamespace: env.TemporalNamespace, prefix: env.Prefix, hasTelemetry: one.with,
			}
			require.NoError(t, run(t.Context(), o, &orders, &answers))
			lines := json.NewDecoder(&answers)
			var hello protocol.Hello
			require.NoError(t, lines.Decode(&hello))
			for range 2 {
				var answer protocol.Answer
				require.NoError(t, lines.Decode(&answer))
				require.Empty(t, answer.Error)
				require.Positive(t, answer.Took)
			}
			var rows int
			require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource").Scan(&rows))
			require.Zero(t, rows)
		})
	}
}

func TestACaseThatThereIsNot(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, run(t.Context(), options{measured: "many"}, nil, nil), "it must be inform or batches")
}
