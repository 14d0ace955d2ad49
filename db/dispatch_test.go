package db_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestTheMostUrgentIsDispatchedFirstAndNothingOfAPausedKind(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	for _, priority := range []int16{4, 3, 2} { // the least urgent is the oldest
		var set []deltatype.ObjectInformParams
		for i := range 10 {
			o := object(fmt.Sprintf("p%d-%d", priority, i), "1")
			o.Priority = priority
			set = append(set, o)
		}
		_, err := db.InformRetrying(t.Context(), env.Pool, set, plain)
		require.NoError(t, err)
	}
	lease := func() (ids []string) {
		rows, err := db.New().LeaseDue(t.Context(), env.Pool, db.LeaseDueParams{
			Kind: "thing", Lease: time.Hour, WorkflowIDPrefix: "x/", Batch: 15,
		})
		require.NoError(t, err)
		for _, r := range rows {
			ids = append(ids, r.ObjectID)
		}
		return ids
	}
	require.NoError(t, db.New().PauseKind(t.Context(), env.Pool, db.PauseKindParams{Name: "thing", Paused: true}))
	require.Empty(t, lease())
	require.NoError(t, db.New().PauseKind(t.Context(), env.Pool, db.PauseKindParams{Name: "thing", Paused: false}))

	var urgent, middle int
	for _, id := range lease() {
		switch id[:2] {
		case "p2":
			urgent++
		case "p3":
			middle++
		}
	}
	require.Equal(t, 10, urgent)
	require.Equal(t, 5, middle)
	require.Len(t, lease(), 15)
	require.Empty(t, lease(), "what is leased is left alone")
}

// With many rows that are not due, the ones that are due are found by index.
func TestDueRowsAreFoundByIndex(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, due_at, dispatch_at)
		SELECT 'thing', i::text, '{}', '\x00', 'default', 10, 'synced', now() + interval '1 day', now() + interval '1 day'
		FROM generate_series(1, 20000) i;
		ANALYZE delta_resource`)
	require.NoError(t, err)
	rows, err := env.Pool.Query(t.Context(), `EXPLAIN SELECT found.id FROM (SELECT unnest(ARRAY[1, 2, 3, 4, 5]::smallint[]) AS priority) p
		CROSS JOIN LATERAL (SELECT d.id FROM delta_resource d
			WHERE d.kind = 'thing' AND d.priority = p.priority AND d.dispatch_at <= now() ORDER BY d.dispatch_at LIMIT 256) found LIMIT 256`)
	require.NoError(t, err)
	plan := ""
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		plan += line + "\n"
	}
	require.NoError(t, rows.Err())
	require.Contains(t, plan, "delta_resource_dispatch_idx")
	require.NotContains(t, plan, "Seq Scan on delta_resource")
}
