package db_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// touchChildren looks for the children of some parents that have changed now, or at the times, and touches them. It returns the children of the look, and how many were touched.
func touchChildren(t *testing.T, conn db.DBTX, changedAt time.Time, parents ...string) (ids []int64, touched int) {
	t.Helper()
	var times []time.Time
	for range parents {
		times = append(times, changedAt)
	}
	found, err := db.New().TouchableChildren(t.Context(), conn, db.TouchableChildrenParams{Kind: "thing", Parents: parents, ChangedAts: times, Page: 100})
	require.NoError(t, err)
	times = nil
	for _, row := range found {
		ids, times = append(ids, row.ID), append(times, row.ChangedAt)
	}
	rows, err := db.New().TouchChildren(t.Context(), conn, db.TouchChildrenParams{Ids: ids, ChangedAts: times, Priority: 4})
	require.NoError(t, err)
	return ids, len(rows)
}

// Rows that will be worked anyway are left alone, and so are those that have begun since, or were touched already.
func TestChildrenAreTouchedThatHaveNotSeenTheChange(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), `INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, attempted_at, generation_at, parents, priority, attempt, written_by)
		SELECT k, s::text || ' ' || seen, '{}', '\x00', 'default', 10, s, CASE WHEN seen THEN now() + interval '1 minute' ELSE now() - interval '1 minute' END,
			now() - interval '1 hour', '{parent/a,parent/b}', 2, 3, '3'
		FROM unnest(enum_range(NULL::delta_resource_state)) s, unnest('{thing,other}'::text[]) k, unnest('{f,t}'::boolean[]) seen`)
	require.NoError(t, err)
	var now time.Time
	require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT now()").Scan(&now))

	ids, touched := touchChildren(t, env.Pool, now, "parent/a", "parent/none")
	require.Len(t, ids, 3)
	require.Equal(t, 3, touched)
	rows, err := env.Pool.Query(t.Context(), `SELECT object_id || ': ' || state || ', ' || attempt || ', priority ' || priority || CASE WHEN dispatch_at <= now() AND due_at <= now() THEN ', due' ELSE '' END
		FROM delta_resource WHERE generation = 2 AND kind = 'thing' AND generation_at >= $1 AND written_by = '3' ORDER BY object_id`, now)
	require.NoError(t, err)
	changed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{
		"degraded false: scheduled, 0, priority 4, due", "pending false: scheduled, 0, priority 4, due", "synced false: expired, 0, priority 4, due",
	}, changed)
	var others int
	require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource WHERE generation <> 1").Scan(&others))
	require.Equal(t, 3, others)

	// The other parent has changed at the same time, and the clock of a server that has taken over is behind.
	ids, _ = touchChildren(t, env.Pool, now, "parent/b")
	require.Empty(t, ids)
	_, err = env.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'synced', attempted_at = now() - interval '1 minute' WHERE generation = 2")
	require.NoError(t, err)
	ids, _ = touchChildren(t, env.Pool, now, "parent/b")
	require.Empty(t, ids, "they are of the change already")
	ids, touched = touchChildren(t, env.Pool, now.Add(time.Hour), "parent/a", "parent/b")
	require.Len(t, ids, 12, "six, each by both parents: also those that had seen the change before")
	require.Equal(t, 6, touched)
	_, err = env.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'synced' WHERE generation > 1")
	require.NoError(t, err)
	ids, _ = touchChildren(t, env.Pool, now.Add(time.Hour), "parent/a")
	require.Empty(t, ids, "the change is of the future, and touches once all the same")
}
