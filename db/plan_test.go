package db_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
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
	var kinds, ids []string
	var objects, hashes [][]byte
	var priorities []int16
	for i := range db.InformPage {
		kinds, ids, priorities = append(kinds, "thing"), append(ids, fmt.Sprint(i*97)), append(priorities, 3)
		objects, hashes = append(objects, []byte(`{}`)), append(hashes, []byte{1})
	}
	var plan []byte
	err = env.Pool.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+db.InformResourcesSQL,
		int16(10), time.Second, false, kinds, ids, []string(nil), objects, hashes, []string(nil), []string(nil), []string(nil), []int16(nil),
		[]time.Time(nil), priorities, true, false, false, "").Scan(&plan)
	require.NoError(t, err)
	var explained []struct {
		Plan struct {
			Cost float64 `json:"Total Cost"`
		}
	}
	require.NoError(t, json.Unmarshal(plan, &explained))
	require.Positive(t, explained[0].Plan.Cost)
	require.Less(t, explained[0].Plan.Cost, 50_000.0)
	t.Logf("%d objects cost %.0f", db.InformPage, explained[0].Plan.Cost)
}
