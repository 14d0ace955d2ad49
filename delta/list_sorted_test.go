package delta_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// insertFailing inserts degraded and failed resources in the order of their ids, each with an earlier and a latest error, and some healthy ones.
func insertFailing(t *testing.T, h *harness) {
	t.Helper()
	_, err := h.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, namespace, state, attempt, max_attempts, hash, object, finalized, generation_at, attempted_at, due_at, errors)
		SELECT 'account', id, 'default', state::delta_resource_state, attempt, 10, '', '{}', finalized, now() - interval '1 day', now() - hours * interval '1 hour',
			now() + hours * interval '1 hour', ARRAY['{"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "earlier"}'::jsonb,
				jsonb_build_object('at', now(), 'attempt', 2, 'error', error)]
		FROM (VALUES
			('a', 'degraded', 3, NULL::boolean, 5, 'quota: 100% used'), ('b', 'failed', 1, NULL, 4, 'user_id is wrong'), ('c', 'pending', 2, NULL, 3, 'user_id is wrong'),
			('d', 'degraded', 3, NULL, 2, E'no \\ here\nsecond line'), ('e', 'deleted', 1, FALSE, 1, '100% of it'),
			('f', 'synced', 1, NULL, 1, 'user_id is wrong'), ('g', 'pending', 1, NULL, 1, 'user_id is wrong'), ('h', 'deleted', 1, TRUE, 1, '100% of it')
		) v (id, state, attempt, finalized, hours, error)`)
	require.NoError(t, err)
}

func idsOf(rows []*deltatype.ResourceRow) string {
	ids := []string{}
	for _, row := range rows {
		ids = append(ids, row.ObjectID)
	}
	return strings.Join(ids, "")
}

func TestResourcesAreFoundByTheirLatestError(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	insertFailing(t, h)
	for text, want := range map[string]string{
		"user_id": "bc", "user-id": "", "user%": "", "%": "ae", "100%": "ae", "_": "bc", `\`: "d", "second": "d", "USER": "", "earlier": "", "nothing": "",
	} {
		filter := delta.Filter{Error: text}
		rows, err := c.List(t.Context(), filter, delta.Page{})
		require.NoError(t, err)
		require.Equal(t, want, idsOf(rows), text)
		listed, err := c.ListSorted(t.Context(), filter, delta.SortedPage{Descending: true})
		require.NoError(t, err)
		slices.Reverse(listed.Rows)
		require.Equal(t, want, idsOf(listed.Rows), text)
	}
	rows, err := c.List(t.Context(), delta.Filter{Error: "wrong", States: []deltatype.ResourceState{deltatype.ResourceStateFailed}}, delta.Page{})
	require.NoError(t, err)
	require.Equal(t, "b", idsOf(rows))
	n, err := c.CountForAll(t.Context(), delta.BulkDelete, delta.Filter{Error: "wrong"}, 100)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	n, err = c.RetryAll(t.Context(), delta.Filter{Error: "%"})
	require.NoError(t, err)
	require.Equal(t, 1, n, "deleted resources are not retried")
	row, err := c.Get(t.Context(), "account", "a")
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateScheduled, row.State)

	for name, filter := range map[string]delta.Filter{
		"too long": {Error: strings.Repeat("x", 1001)}, "NUL": {Error: "a\x00"}, "no UTF-8": {Error: "\xff"}, "with All": {Error: "x", All: true}, "late with All": {Late: true, All: true},
	} {
		_, err := c.List(t.Context(), filter, delta.Page{})
		require.ErrorAs(t, err, new(*delta.InputError), name)
	}
	for _, filter := range []delta.Filter{{Error: "x"}, {Late: true}} {
		_, err := c.Count(t.Context(), filter)
		require.ErrorAs(t, err, new(*delta.InputError))
	}
}

// Filter.Late matches exactly the resources that KindStatus.Late counts.
func TestLateResourcesAreFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	_, err := h.Pool.Exec(t.Context(), `
		INSERT INTO delta_controller (name, inform_interval, paused) VALUES ('account', '1h', FALSE), ('still', '1h', TRUE);
		INSERT INTO delta_namespace (name, snoozed_until) VALUES ('asleep', now() + interval '1 hour');
		INSERT INTO delta_claim (id, claimed_until) VALUES ('018f2f6e-33aa-7c11-9e55-0242ac120002', now() + interval '1 day');
		INSERT INTO delta_resource (kind, object_id, namespace, state, attempt, max_attempts, hash, object, due_at, claim, claimed_until, dispatch_at, paused)
		SELECT kind, id, namespace, state::delta_resource_state, 1, 10, '', '{}', now() - due, claim::uuid, now() - claimed, now() + interval '1 minute', paused
		FROM (VALUES
			('account', 'a', 'default', 'scheduled', interval '1 hour', NULL, NULL::interval, FALSE), ('account', 'b', 'default', 'degraded', '2 hours', NULL, NULL, FALSE),
			('account', 'c', 'default', 'pending', NULL, '018f2f6e-33aa-7c11-9e55-0242ac120001', '3 hours', FALSE), ('other', 'd', 'default', 'synced', '4 hours', NULL, NULL, FALSE),
			('account', 'not due', 'default', 'scheduled', '-1 hour', NULL, NULL, FALSE), ('account', 'just due', 'default', 'scheduled', '1 second', NULL, NULL, FALSE),
			('account', 'claimed', 'default', 'pending', NULL, '018f2f6e-33aa-7c11-9e55-0242ac120002', '1 hour', FALSE), ('account', 'paused', 'default', 'scheduled', '1 hour', NULL, NULL, TRUE),
			('still', 'of a paused kind', 'default', 'scheduled', '1 hour', NULL, NULL, FALSE), ('account', 'snoozed', 'asleep', 'scheduled', '1 hour', NULL, NULL, FALSE)
		) v (kind, id, namespace, state, due, claim, claimed, paused)`)
	require.NoError(t, err)
	list := func(filter delta.Filter, page delta.SortedPage) string {
		t.Helper()
		filter.Late = true
		listed, err := c.ListSorted(t.Context(), filter, page)
		require.NoError(t, err)
		return idsOf(listed.Rows)
	}
	require.Equal(t, "abcd", list(delta.Filter{}, delta.SortedPage{}))
	require.Equal(t, "dcba", list(delta.Filter{}, delta.SortedPage{Descending: true}))
	require.Equal(t, "dcba", list(delta.Filter{}, delta.SortedPage{Sort: delta.SortDue}))
	require.Equal(t, "abc", list(delta.Filter{Kinds: []string{"account"}}, delta.SortedPage{Sort: delta.SortDue, Descending: true}))
	require.Equal(t, "b", list(delta.Filter{States: []deltatype.ResourceState{deltatype.ResourceStateDegraded}}, delta.SortedPage{}))
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	late := map[string]int64{}
	for _, k := range kinds {
		late[k.Kind] = k.Late
	}
	require.Equal(t, map[string]int64{"account": 3, "other": 1, "still": 0}, late)

	rows, err := c.List(t.Context(), delta.Filter{Late: true}, delta.Page{Limit: 3})
	require.NoError(t, err)
	require.Equal(t, "abc", idsOf(rows))
	rows, err = c.List(t.Context(), delta.Filter{Late: true}, delta.Page{After: rows[2].ID, Limit: 3})
	require.NoError(t, err)
	require.Equal(t, "d", idsOf(rows))

	n, err := c.CountForAll(t.Context(), delta.BulkTouch, delta.Filter{Late: true}, 100)
	require.NoError(t, err)
	require.Equal(t, 4, n)
	n, err = c.CountForAll(t.Context(), delta.BulkTouch, delta.Filter{Late: true}, 2)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	n, err = c.TouchAll(t.Context(), delta.Filter{Late: true, Kinds: []string{"account"}})
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.Equal(t, "d", list(delta.Filter{}, delta.SortedPage{}), "touched resources are due now")
}

// A command for late resources checks each page again: resources worked meanwhile are left alone.
func TestACommandForLateResourcesSkipsThoseWorkedMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	const rows, page = 450, 200
	_, err := h.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, due_at, dispatch_at)
		SELECT 'account', lpad(i::text, 3, '0'), 'default', 'synced', 10, '', '{}', now() - interval '1 hour', now() FROM generate_series(1, $1) i`, rows)
	require.NoError(t, err)
	pages := 0
	n, err := c.CommandAll(t.Context(), delta.BulkDelete, delta.Filter{Late: true}, func(done []*deltatype.ResourceRow) error {
		if pages++; pages == 1 {
			require.Len(t, done, page)
			_, err := h.Pool.Exec(context.WithoutCancel(t.Context()), `UPDATE delta_resource SET due_at = now() + interval '1 hour' WHERE object_id > '200' AND object_id <= '420'`)
			return err
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, rows-220, n)
	require.Equal(t, map[deltatype.ResourceState]int{deltatype.ResourceStateDeleted: rows - 220, deltatype.ResourceStateSynced: 220}, h.countStates("account"))
}

func TestPagesOfEachOrderGoForwardsAndBackwards(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	insertFailing(t, h)
	failing := delta.Filter{States: []deltatype.ResourceState{deltatype.ResourceStateDegraded, deltatype.ResourceStateFailed}}
	_, err := h.Pool.Exec(t.Context(), `UPDATE delta_resource SET state = 'failed' WHERE object_id IN ('c', 'e', 'f')`)
	require.NoError(t, err)
	_, err = h.Pool.Exec(t.Context(), `UPDATE delta_resource SET due_at = NULL WHERE object_id = 'e'`)
	require.NoError(t, err)
	for _, test := range []struct {
		sort       delta.Sort
		descending bool
		want       string
	}{
		{"", false, "abcdef"},
		{delta.SortCreated, true, "fedcba"},
		{delta.SortChanged, false, "abcdef"}, // e and f at the same time
		{delta.SortChanged, true, "fedcba"},
		{delta.SortDue, false, "fdcbae"},
		{delta.SortDue, true, "eabcdf"},
		{delta.SortError, false, "eda" + "bcf"},
		{delta.SortError, true, "fcb" + "ade"},
	} {
		for _, limit := range []int{1, 2, 3, 6, 7} {
			page := delta.SortedPage{Sort: test.sort, Descending: test.descending, Limit: limit}
			read := func(cursor string) *delta.SortedRows {
				t.Helper()
				page.Cursor = cursor
				listed, err := c.ListSorted(t.Context(), failing, page)
				require.NoError(t, err)
				return listed
			}
			at := read("")
			require.Empty(t, at.Previous)
			pages := []string{idsOf(at.Rows)}
			for at.Next != "" {
				require.Len(t, at.Rows, limit)
				require.Less(t, len(pages), 10, "pages do not end")
				at = read(at.Next)
				require.NotEmpty(t, at.Previous)
				pages = append(pages, idsOf(at.Rows))
			}
			require.Equal(t, test.want, strings.Join(pages, ""), "%s, descending: %t, %d a page", test.sort, test.descending, limit)
			for i := len(pages) - 2; i >= 0; i-- {
				at = read(at.Previous)
				require.Equal(t, pages[i], idsOf(at.Rows), "%s, descending: %t, %d a page, back on page %d", test.sort, test.descending, limit, i)
				require.NotEmpty(t, at.Next)
			}
			require.Empty(t, at.Previous)
		}
	}

	// A page continues where the last one ended, even if earlier rows have changed.
	page := delta.SortedPage{Sort: delta.SortError, Limit: 2}
	first, err := c.ListSorted(t.Context(), failing, page)
	require.NoError(t, err)
	require.Equal(t, "ed", idsOf(first.Rows))
	_, err = h.Pool.Exec(t.Context(), `UPDATE delta_resource SET state = 'synced' WHERE object_id IN ('d', 'e')`)
	require.NoError(t, err)
	page.Cursor = first.Next
	second, err := c.ListSorted(t.Context(), failing, page)
	require.NoError(t, err)
	require.Equal(t, "ab", idsOf(second.Rows))

	for name, refused := range map[string]struct {
		filter delta.Filter
		page   delta.SortedPage
		says   string
	}{
		"an order of all":         {delta.Filter{Kinds: []string{"account"}}, delta.SortedPage{Sort: delta.SortChanged}, "needs a filter with Late"},
		"an order of synced ones": {delta.Filter{States: []deltatype.ResourceState{deltatype.ResourceStateSynced, deltatype.ResourceStateFailed}}, delta.SortedPage{Sort: delta.SortError}, "needs a filter with Late"},
		"no order":                {failing, delta.SortedPage{Sort: "name"}, "must be made, changed, due or error"},
		"the cursor of another":   {failing, delta.SortedPage{Sort: delta.SortDue, Cursor: first.Next}, "Cursor"},
		"no cursor":               {failing, delta.SortedPage{Cursor: "x"}, "Cursor"},
		"too many":                {failing, delta.SortedPage{Limit: 1001}, "Limit"},
	} {
		_, err := c.ListSorted(t.Context(), refused.filter, refused.page)
		require.ErrorAs(t, err, new(*delta.InputError), name)
		require.ErrorContains(t, err, refused.says, name)
	}
	none, err := c.ListSorted(t.Context(), delta.Filter{Kinds: []string{}}, delta.SortedPage{Sort: delta.SortCreated})
	require.NoError(t, err)
	require.Empty(t, none.Rows)
}
