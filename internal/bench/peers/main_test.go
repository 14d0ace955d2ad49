package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// Each peer runs its turns on a real Postgres, and leaves no row for the next.
func TestPeersAnswerOrders(t *testing.T) {
	t.Parallel()
	for name, left := range map[string]string{
		"river": "SELECT count(*) FROM river_job",
		"nats":  "SELECT 0",
		"log":   "SELECT count(*) FROM delta_change",
		"dbos":  "SELECT (SELECT count(*) FROM dbos.workflow_status) + (SELECT count(*) FROM dbos.operation_outputs)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := emptyDatabase(t, "peers_"+name)
			var orders, answers bytes.Buffer
			for turn := range 2 {
				require.NoError(t, json.NewEncoder(&orders).Encode(protocol.Order{Turn: turn, Count: protocol.PageSize + 1}))
			}
			require.NoError(t, run(t.Context(), options{peer: name, databaseURL: database, connections: 4}, &orders, &answers))

			lines := json.NewDecoder(&answers)
			var hello protocol.Hello
			require.NoError(t, lines.Decode(&hello))
			require.NotEmpty(t, hello.Settings)
			require.NotEmpty(t, hello.Version)
			for range 2 {
				var answer protocol.Answer
				require.NoError(t, lines.Decode(&answer))
				require.Empty(t, answer.Error)
				require.Positive(t, answer.Took)
			}
			require.False(t, lines.More())
			var rows int
			pool, err := pgxpool.New(t.Context(), database)
			require.NoError(t, err)
			defer pool.Close()
			require.NoError(t, pool.QueryRow(t.Context(), left).Scan(&rows))
			require.Zero(t, rows)
		})
	}
}

// A failed turn is answered with its error, and the next order is read.
func TestATurnThatFailsIsAnswered(t *testing.T) {
	t.Parallel()
	database := emptyDatabase(t, "peers_fails")
	var answers bytes.Buffer
	orders := strings.NewReader(`{"turn": 0, "count": 1}` + "\n" + `{"turn": 1, "count": 1}`)
	pool, err := pgxpool.New(t.Context(), database)
	require.NoError(t, err)
	defer pool.Close()
	p, err := startRiver(t.Context(), options{}, pool, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "DROP TABLE river_job")
	require.NoError(t, err)
	require.NoError(t, answerOrders(t.Context(), p, json.NewEncoder(&answers), orders))
	lines := json.NewDecoder(&answers)
	for range 2 {
		var answer protocol.Answer
		require.NoError(t, lines.Decode(&answer))
		require.Contains(t, answer.Error, "river_job")
	}
}

func TestFlagsAreChecked(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, run(t.Context(), options{peer: "x"}, nil, nil), `-peer "x": it must be river, dbos, nats or log`)
	require.ErrorContains(t, run(t.Context(), options{peer: "river", databaseURL: "postgres://%"}, nil, nil), "-database-url")
}

// emptyDatabase creates a database beside the test's, and drops it when the test ends.
func emptyDatabase(t *testing.T, name string) string {
	env := deltatest.New(t)
	quoted := pgx.Identifier{name + "_" + env.Schema}.Sanitize()
	_, err := env.Pool.Exec(t.Context(), "CREATE DATABASE "+quoted)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := env.Pool.Exec(context.WithoutCancel(t.Context()), "DROP DATABASE "+quoted+" WITH (FORCE)")
		require.NoError(t, err)
	})
	database, err := url.Parse(env.DatabaseURL)
	require.NoError(t, err)
	settings := database.Query()
	settings.Del("search_path")
	database.Path, database.RawQuery = "/"+name+"_"+env.Schema, settings.Encode()
	return database.String()
}
