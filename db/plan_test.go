package db_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// What Postgres takes for dearer than jit_above_cost, 100,000 unless set otherwise, it compiles at each call: that takes longer
// than to run it. A table that is large and was never analyzed looks dearest.
func TestTheLargestStatementIsNotWorthCompiling(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), `ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE);
		INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts)
		SELECT 'thing', i::text, '{}', '\x00', 'default', 10 FROM generate_series(1, 100000) i`)
	require.NoError(t, err)
	var set []deltatype.ObjectInformParams
	for i := range db.InformPage {
		set = append(set, object(fmt.Sprint(i*97), "changed"))
	}
	explained := &costOf{DBTX: env.Pool}
	_, err = db.Inform(t.Context(), explained, set, plain)
	require.ErrorIs(t, err, errExplained)
	require.Positive(t, explained.cost)
	require.Less(t, explained.cost, 50_000.0)
	t.Logf("%d objects cost %.0f", db.InformPage, explained.cost)
}

var errExplained = errors.New("explained, not run")

// costOf is a connection that has the first statement explained and does not run it.
type costOf struct {
	db.DBTX
	cost float64
}

func (c *costOf) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	var plan []byte
	if err := c.QueryRow(ctx, "EXPLAIN (FORMAT JSON) "+sql, args...).Scan(&plan); err != nil {
		return nil, err
	}
	var explained []struct {
		Plan struct {
			Cost float64 `json:"Total Cost"`
		}
	}
	if err := json.Unmarshal(plan, &explained); err != nil {
		return nil, err
	}
	c.cost = explained[0].Plan.Cost
	return nil, errExplained
}

// What the engine asks for again and again reads what it is about, and not the whole table: whether Postgres
// knows the table or not, and whether it plans a statement with its arguments or once for all of them.
func TestStatementsReadWhatTheyAreAboutAndNotTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	// Of the tests' kind, rest are synced and due in a day, and few are of interest; as many again are of another kind.
	const rest, few = 20_000, 40
	fill := fmt.Sprintf(`
		INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, priority, created_at, synced_at, due_at, dispatch_at)
		SELECT k, lpad(i::text, 6, '0'), '{}', '\x00', 'default', 10, 'synced', 1 + i %% 5, now() - interval '3 days', now() - interval '2 days',
			now() + interval '1 day', now() + interval '1 day'
		FROM unnest('{thing,other}'::text[]) k, generate_series(1, %d) i`, rest)
	beliefs := map[string]string{
		"analyzed":       fill + "; ANALYZE delta_resource, delta_claim, delta_listing",
		"never analyzed": fill,
		"believed empty": fill + "; DELETE FROM delta_resource; VACUUM (ANALYZE, TRUNCATE FALSE) delta_resource; " + fill,
	}
	for belief, made := range beliefs {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(belief+", "+mode, func(t *testing.T) {
				t.Parallel()
				env := deltatest.New(t)
				exec := func(sql string, args ...any) {
					_, err := env.Pool.Exec(t.Context(), sql, args...)
					require.NoError(t, err)
				}
				exec(`ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE); ALTER TABLE delta_claim SET (autovacuum_enabled = FALSE);
					ALTER TABLE delta_listing SET (autovacuum_enabled = FALSE)`)
				for statement := range strings.SplitSeq(made, ";") { // VACUUM wants to be alone
					exec(statement)
				}
				for name, s := range frequentStatements(few) {
					t.Run(name, func(t *testing.T) {
						read := readBy(t, env.Pool, mode, few, s)
						if belief != "believed empty" {
							require.Zero(t, read.sequential, "%s reads the whole table", t.Name())
						}
						require.LessOrEqual(t, read.sequential, 3*2*rest)
						require.Zero(t, read.claims, "it reads all claims")
						most := s.most
						if belief == "believed empty" {
							// Until the table is analyzed it is read as a whole, a few times, and not once for each row.
							most += 3 * 2 * rest
						}
						require.LessOrEqual(t, read.fetched, most, "%s reads more rows than it is about", t.Name())
					})
				}
			})
		}
	}
}
