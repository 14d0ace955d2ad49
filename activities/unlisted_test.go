package activities_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// A row that was deleted explicitly and revived is not among those that wait for a complete listing, which look at all of them.
func TestARevivedRowForgetsWhyItWasDeleted(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(deleted))
	h.Retention.SyncedRetention = -hour
	ref := h.inform(object("a", "1"))
	h.attempt(ref)
	require.Equal(t, deltatype.CauseWork, h.row(ref).Cause)
	h.handler.work = does(synced)
	h.inform(object("a", "1"))
	require.Equal(t, activities.Step{Next: activities.NextNone, Generation: 2, State: deltatype.ResourceStateSynced}, h.attempt(ref))
	row := h.row(ref)
	require.Empty(t, row.Cause)
	require.Nil(t, row.DispatchAt, "it rests for good, as the rows of delta_resource_unlisted_idx do")
}

// A pass's recorded listing is removed in pages, and that of a dead worker's pass once nothing can use it any more.
func TestWhatPassesListedIsRemoved(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	mine, running, dead, awaited := uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()
	fill := func(pass string, n int, age string) {
		_, err := h.Pool.Exec(t.Context(), `INSERT INTO delta_listing (pass, object_id, listed_at)
			SELECT $1, lpad(i::text, 6, '0'), now() - $3::interval FROM generate_series(1, $2) i`, pass, n, age)
		require.NoError(t, err)
	}
	left := func() map[string]int {
		all := map[string]int{}
		rows, err := h.Pool.Query(context.Background(), "SELECT pass::text, count(*) FROM delta_listing GROUP BY pass")
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var pass string
			var n int
			require.NoError(t, rows.Scan(&pass, &n))
			all[pass] = n
		}
		return all
	}
	fill(mine, 25_000, "0")
	fill(running, 10, "0")
	fill(dead, 15_000, "8 days")
	fill(awaited, 10, "8 days")
	require.NoError(t, db.New().TouchListing(t.Context(), h.Pool, db.TouchListingParams{Pass: awaited, ObjectID: "000007", Older: activities.ListingsKept / 2}))
	require.NoError(t, h.ForgetListing(t.Context(), activities.AwaitInput{Installation: h.Installation, Kind: kind, Pass: mine}))
	require.Equal(t, map[string]int{running: 10, dead: 15_000, awaited: 10}, left())
	require.NoError(t, db.SweepListings(t.Context(), h.Pool, activities.ListingsKept))
	require.Equal(t, map[string]int{running: 10, awaited: 10}, left(), "one row of it was noted as awaited")
}

// Objects that no pass lists any more are forgotten, and those that passes go on to find stale are not.
func TestStaleObjectsThatAreNoLongerListedAreForgotten(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	_, err := h.Pool.Exec(t.Context(), `INSERT INTO delta_stale (kind, object_id, pass, seen_at)
		SELECT k, i::text, gen_random_uuid(), now() - i * interval '1 hour' FROM unnest('{thing,other}'::text[]) k, generate_series(1, 1500) i`)
	require.NoError(t, err)
	require.NoError(t, db.SweepStale(t.Context(), h.Pool, 48*hour))
	var left, oldest int
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT count(*), max(object_id::integer) FROM delta_stale").Scan(&left, &oldest))
	require.Equal(t, 2*47, left)
	require.Equal(t, 47, oldest)
}
