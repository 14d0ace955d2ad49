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
			Kind: "thing", Lease: time.Hour, Longest: time.Hour, Batch: 15, Priorities: allPriorities, PassedBy: []string{},
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

func TestACrowdedNamespaceIsLeasedByItself(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), `INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, priority, due_at, dispatch_at)
		SELECT 'thing', n || p || '-' || i, n, 'scheduled', 10, '', '{}', p, now(), now() - interval '1 hour' + i * interval '1 ms'
		FROM unnest('{full,roomy,quiet}'::text[]) n, unnest('{2,3}'::smallint[]) p, generate_series(1, 100) i`)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), `UPDATE delta_resource SET due_at = now() + interval '1 hour', dispatch_at = now() + interval '1 hour' WHERE namespace = 'quiet' AND priority = 2`)
	require.NoError(t, err)

	found, err := db.New().FirstDue(t.Context(), env.Pool, db.FirstDueParams{Kind: "thing", LimitedNamespaces: []string{"full", "roomy", "idle"}, Margin: 2 * time.Hour})
	require.NoError(t, err)
	first, due := map[string]time.Time{}, map[string]int64{}
	for _, row := range found {
		key := fmt.Sprint(row.Namespace, row.Priority)
		first[key], due[key] = row.Since, row.Due
	}
	require.Equal(t, map[string]int64{"full2": 100, "full3": 100, "roomy2": 100, "roomy3": 100, "3": 100, "1": 1}, due)
	require.Equal(t, time.Hour, first["3"].Sub(first["1"]).Round(time.Minute))

	p := leaseParams("")
	p.Priorities, p.Namespaces = []int16{2, 2, 3, 3}, []string{"roomy", "", "roomy", ""}
	p.Since, p.Most = []time.Time{first["roomy2"], {}, first["roomy3"].Add(50 * time.Millisecond), first["3"].Add(98 * time.Millisecond)}, []int32{2, 10, 1, 10}
	p.PassedBy, p.LimitedNamespaces, p.Rooms = []string{"full", "roomy"}, []string{"roomy"}, []int32{5}
	rows, err := db.New().LeaseDue(t.Context(), env.Pool, p)
	require.NoError(t, err)
	var leased []string
	for _, row := range rows {
		leased = append(leased, row.ObjectID)
	}
	require.ElementsMatch(t, []string{"roomy2-1", "roomy2-2", "roomy3-51", "quiet3-99", "quiet3-100"}, leased)

	next := func(namespaces ...string) bool {
		next, err := db.New().NextDispatch(t.Context(), env.Pool, db.NextDispatchParams{
			Kind: "thing", Looked: time.Minute, Namespaces: namespaces, Since: first["3"].Add(98 * time.Millisecond),
		})
		require.NoError(t, err)
		return next.LeftBehind
	}
	require.False(t, next())
	require.False(t, next("quiet", "idle"), "the rows before are not looked at")
	require.True(t, next("idle", "full"))
}

// The most urgent row comes first whatever the name of its namespace is, and within the room of a namespace, too.
func TestTheMostUrgentIsDispatchedFirstOfAllNamespaces(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), `INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, priority, due_at, dispatch_at)
		SELECT 'thing', n || p || '-' || i, n, 'scheduled', 10, '', '{}', p, now(), now() - interval '1 hour' - p * interval '1 minute' + i * interval '1 ms'
		FROM unnest('{a,m,z}'::text[]) n, unnest('{2,3,4}'::smallint[]) p, generate_series(1, 10) i WHERE n = 'm' OR p <> CASE n WHEN 'a' THEN 2 ELSE 4 END`)
	require.NoError(t, err)
	p := leaseParams("")
	p.Batch = 20
	p.LimitedNamespaces, p.Rooms = []string{"m"}, []int32{3}
	lease := func() map[string]int {
		rows, err := db.New().LeaseDue(t.Context(), env.Pool, p)
		require.NoError(t, err)
		leased := map[string]int{}
		for _, row := range rows {
			leased[fmt.Sprint(row.Namespace, row.Priority)]++
			if row.Namespace == "m" {
				require.Contains(t, []string{"m2-1", "m2-2", "m2-3"}, row.ObjectID)
			}
		}
		return leased
	}
	require.Equal(t, map[string]int{"m2": 3, "z2": 10}, lease())
	p.PassedBy, p.LimitedNamespaces, p.Rooms = []string{"m"}, nil, nil
	require.Equal(t, map[string]int{"a3": 10, "z3": 10}, lease())
	require.Equal(t, map[string]int{"a4": 10}, lease())
}
