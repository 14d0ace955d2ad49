package activities_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// items are items with ids in order.
func items(n int) (all []activities.Listed, ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("o%04d", i))
		all = append(all, item(object(ids[i], "1")))
	}
	return all, ids
}

func TestAPassReportsWhereItWentOnFrom(t *testing.T) {
	t.Parallel()
	all, _ := items(1100)
	h := newInformer(t, lists(all...))
	progress, err := h.reportedPass()
	require.NoError(t, err)
	require.GreaterOrEqual(t, progress.Pass.Pages, 3, "a page that takes long to fill is written before it is full")
	require.Equal(t, &activities.PassReport{Pages: progress.Pass.Pages}, progress.Pass)

	cursor := h.cursor()
	progress, err = h.reportedPass()
	require.NoError(t, err)
	require.True(t, cursor.Equal(*progress.Pass.After))

	withCursor := func(in *activities.InformInput) { in.Options.Cursor = "page of ann" }
	progress, err = h.reportedPass(withCursor)
	require.NoError(t, err)
	require.Equal(t, "page of ann", progress.Pass.Cursor)
	h.HashObjectIDs = true
	progress, err = h.reportedPass(withCursor)
	require.NoError(t, err)
	require.Empty(t, progress.Pass.Cursor, "an id may be in it")
}

func TestAPassReportsWhatItDeletesAndWithholds(t *testing.T) {
	t.Parallel()
	for _, hashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("hashed: %t", hashed), func(t *testing.T) {
			t.Parallel()
			all, ids := items(30)
			h := newInformer(t, lists(all...))
			h.handler.work = does(synced)
			h.HashObjectIDs = hashed
			h.Listing = activities.Listing{Complete: true, MostDeleted: 25, MostDeletedShare: 0.1}
			pass := func(items ...activities.Listed) *activities.PassReport {
				h.handler.inform = lists(items...)
				progress, err := h.reportedPass(func(in *activities.InformInput) { in.Pass = uuid.NewString() })
				require.NoError(t, err)
				return progress.Pass
			}
			shown := func(ids []string) []string {
				if !hashed {
					return ids
				}
				rows, err := h.env.Pool.Query(t.Context(), "SELECT '#' || delta_hash_id($1, id) FROM unnest($2::text[]) AS id", kind, ids)
				require.NoError(t, err)
				defer rows.Close()
				var names []string
				for rows.Next() {
					var name string
					require.NoError(t, rows.Scan(&name))
					names = append(names, name)
				}
				return names
			}
			require.True(t, pass(all...).Complete)
			_, err := h.env.Pool.Exec(t.Context(), "UPDATE delta_resource SET hashed_id = delta_hash_id(kind, object_id) WHERE $1", hashed) // as a dispatcher does
			require.NoError(t, err)
			for _, id := range slices.Backward(ids) { // the rows are stored in another order than that of ids
				h.attempt(h.ref(id))
			}
			_, err = h.env.Pool.Exec(t.Context(), "ANALYZE delta_resource") // so that plans read a table of 30 rows as a whole
			require.NoError(t, err)
			require.Equal(t, shown(ids[2:22]), pass(all[:2]...).Withheld, "the first of 28, which are too many")
			report := pass(all[:8]...)
			require.Equal(t, shown(ids[8:28]), report.Deleted, "the first of 22")
			require.Empty(t, report.Withheld)
			require.Equal(t, deltatype.ResourceStateDeleted, h.row(h.ref("o0029")).State)
		})
	}
}
