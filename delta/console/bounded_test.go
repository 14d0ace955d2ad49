package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// boundedScreens are the screens that must read a bounded part of the table. The empty path is the overview.
var boundedScreens = []string{"", "kind?kind=thing", "doctor", "resource?kind=thing&id=00000500"}

func TestScreensReadABoundedPartOfTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, analyzed := range []bool{true, false} {
		t.Run(fmt.Sprintf("analyzed %t", analyzed), func(t *testing.T) {
			t.Parallel()
			// The statistics sample 2,000 pages, which have about 32,000 rows.
			readScreens(t, 100_000, analyzed)
		})
	}
}

func TestScreensReadABoundedPartOfAMillionResources(t *testing.T) {
	soak.Only(t)
	for _, analyzed := range []bool{true, false} {
		t.Run(fmt.Sprintf("analyzed %t", analyzed), func(t *testing.T) { readScreens(t, 1_000_000, analyzed) })
	}
}

// readScreens loads each screen with a table of that many resources, checks how many rows each statement reads, and logs the time to the first byte.
func readScreens(t *testing.T, rows int, analyzed bool) {
	t.Helper()
	env := deltatest.New(t)
	exec := func(sql string) {
		_, err := env.Pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	const troubled, few = 30, 40
	exec("ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE)")
	exec(fmt.Sprintf(`
		INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, priority, attempt, errors, created_at, synced_at, due_at, dispatch_at)
		SELECT CASE WHEN i <= %[1]d THEN 'few' ELSE 'thing' END, lpad(i::text, 8, '0'), 'default',
			(CASE WHEN i <= %[1]d THEN 'synced' WHEN i <= %[1]d + %[2]d THEN 'degraded' WHEN i <= %[1]d + 2 * %[2]d THEN 'failed' ELSE 'synced' END)::delta_resource_state,
			10, '', '{"name": "Ada Lovelace", "email": "ada@example.com"}', 1 + i %% 5, 1,
			CASE WHEN i BETWEEN %[1]d + 1 AND %[1]d + 2 * %[2]d THEN ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', 'no ' || i)] ELSE '{}' END,
			now() - interval '3 days', now() - interval '2 days', now() + interval '1 day', now() + interval '1 day'
		FROM generate_series(1, %[3]d) i`, few, troubled, rows))
	if analyzed {
		exec("ANALYZE delta_resource")
	}
	traced := &statementTracer{}
	config := env.Pool.Config()
	config.ConnConfig.Tracer = traced
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	client, err := delta.NewClient(pool, &delta.Config{
		Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	for _, screen := range boundedScreens {
		traced.takeAll()
		address := serveConsole(t, client, console.Config{ReadTimeout: patience}) // a new console, so that it makes a new survey
		first, again := loadPage(t, address+screen), loadPage(t, address+screen)
		seen := 0
		for _, s := range traced.takeAll() {
			if !strings.Contains(s.SQL, "delta_") {
				continue
			}
			for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
				read := readByStatement(t, env.Pool, mode, s)
				require.Empty(t, read.sequential, "%s reads the whole table:\n%s", screen, s.SQL)
				require.LessOrEqual(t, read.rows, 45_000.0, "%s reads too much of the table:\n%s", screen, s.SQL)
				if read.rows > 0 {
					seen++
				}
			}
		}
		require.Positive(t, seen, "%s reads no resource", screen)
		t.Logf("%d resources, analyzed %t: %s: first byte after %s, and after %s the second time", rows, analyzed, screen, first.Round(time.Millisecond), again.Round(time.Millisecond))
	}

	kinds, err := client.Kinds(t.Context())
	require.NoError(t, err)
	require.Len(t, kinds, 2)
	require.Equal(t, "few", kinds[0].Kind)
	require.False(t, kinds[0].IsEstimated)
	require.Equal(t, map[deltatype.ResourceState]int64{deltatype.ResourceStateSynced: few}, kinds[0].Counts)
	require.True(t, kinds[1].IsEstimated)
	require.EqualValues(t, troubled, kinds[1].Counts[deltatype.ResourceStateDegraded])
	require.EqualValues(t, troubled, kinds[1].Counts[deltatype.ResourceStateFailed])
	require.InEpsilon(t, rows, kinds[1].Counts[deltatype.ResourceStateSynced], 0.25)
}

// loadPage returns the time to the first byte of a page.
func loadPage(t *testing.T, address string) time.Duration {
	t.Helper()
	began := time.Now()
	response, err := http.Get(address)
	require.NoError(t, err)
	took := time.Since(began)
	defer response.Body.Close() //nolint:errcheck // the body was read
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", body)
	return took
}

// statements records the statements of a pool.
type statementTracer struct {
	mu  sync.Mutex
	all []pgx.TraceQueryStartData
}

func (s *statementTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, data)
	return ctx
}

func (s *statementTracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// takeAll returns the statements since its last call.
func (s *statementTracer) takeAll() (taken []pgx.TraceQueryStartData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken, s.all = s.all, nil
	return taken
}

// plan is a node of an executed plan.
type plan struct {
	Node     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Rows     float64 `json:"Actual Rows"`
	Removed  float64 `json:"Rows Removed by Filter"`
	Loops    float64 `json:"Actual Loops"`
	Plans    []plan
}

// resourcesRead is how many resources a statement reads, and the nodes that read the whole table.
type resourcesRead struct {
	rows       float64
	sequential []string
}

func (r *resourcesRead) add(p plan) {
	if p.Relation == "delta_resource" {
		r.rows += (p.Rows + p.Removed) * p.Loops
		if p.Node == "Seq Scan" {
			r.sequential = append(r.sequential, p.Node)
		}
	}
	for _, child := range p.Plans {
		r.add(child)
	}
}

// readByStatement executes a statement once more in a transaction that is rolled back.
func readByStatement(t *testing.T, pool *pgxpool.Pool, mode string, s pgx.TraceQueryStartData) (read resourcesRead) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it only undoes the statement
	_, err = tx.Exec(t.Context(), "SET LOCAL plan_cache_mode = "+mode)
	require.NoError(t, err)
	var text []byte
	require.NoError(t, tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+s.SQL, s.Args...).Scan(&text), s.SQL)
	var explained []struct{ Plan plan }
	require.NoError(t, json.Unmarshal(text, &explained))
	read.add(explained[0].Plan)
	return read
}
