package delta_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestInvalidateAllAndDeleteAllObeyTheirFilter(t *testing.T) {
	soak.Long(t)
	inEachModeBut(t, "each", func(t *testing.T, g mode) {
		c := g.startWorker(func(_ context.Context, j job) error {
			if j.Object.Name == "degrades" {
				return delta.ResourceDegrade(errors.New("closed"))
			}
			return nil
		})
		const resources = 210 // more than a page
		var red, blue []string
		for i := range resources {
			red = append(red, fmt.Sprintf("red%03d", i))
			blue = append(blue, fmt.Sprintf("blue%03d", i))
		}
		g.inform(c, &delta.InformOpts{Tags: []string{"red"}}, append(red, "degrades")...)
		g.inform(c, &delta.InformOpts{Tags: []string{"blue"}}, blue...)
		settled := func(state deltatype.ResourceState, syncs, n int) {
			t.Helper()
			until(t, func() bool {
				return g.countRows("SELECT count(*) FROM delta_resource WHERE kind = $1 AND state = $2::text::delta_resource_state AND sync_count = $3", g.kind, string(state), syncs) == n
			})
		}
		settled(deltatype.ResourceStateSynced, 1, 2*resources)
		g.awaitRow("degrades", inState(deltatype.ResourceStateDegraded))

		n, err := c.InvalidateAll(t.Context(), delta.Filter{Kinds: []string{g.kind}, Tags: []string{"red"}})
		require.NoError(t, err)
		require.Equal(t, resources, n, "a degraded resource is not synced")
		settled(deltatype.ResourceStateSynced, 2, resources)
		settled(deltatype.ResourceStateSynced, 1, resources)
		n, err = c.InvalidateAll(t.Context(), delta.Filter{States: []deltatype.ResourceState{deltatype.ResourceStateDegraded}})
		require.NoError(t, err)
		require.Zero(t, n)

		events, cancel := c.SubscribeConfig(&delta.SubscribeConfig{ChanSize: 2 * resources, Categories: []delta.EventCategory{delta.EventCategoryObjectDeleted}})
		defer cancel()
		n, err = c.DeleteAll(t.Context(), delta.Filter{Tags: []string{"red"}, States: []deltatype.ResourceState{deltatype.ResourceStateSynced}})
		require.NoError(t, err)
		require.Equal(t, resources, n)
		settled(deltatype.ResourceStateDeleted, 2, resources)
		require.Len(t, events, resources)
		require.Equal(t, deltatype.ResourceStateDegraded, g.row(g.kind, "degrades").State)
		row := g.row(g.kind, "red000")
		require.NotNil(t, row.DueAt, "it is removed after its retention")
		n, err = c.DeleteAll(t.Context(), delta.Filter{Tags: []string{"red"}})
		require.NoError(t, err)
		require.Equal(t, 1, n, "deleted resources are not deleted again")

		_, err = c.DeleteAll(t.Context(), delta.Filter{})
		require.ErrorContains(t, err, "would choose everything")
		for _, all := range []func(context.Context, delta.Filter) (int, error){c.InvalidateAll, c.DeleteAll} {
			_, err = all(t.Context(), delta.Filter{States: []deltatype.ResourceState{"strange"}})
			require.ErrorContains(t, err, `States "strange"`)
		}
	})
}

// The callback gets the changed rows of each page, and its error ends the command there.
func TestCommandAllReportsItsPagesAndStopsBetweenThem(t *testing.T) {
	soak.Long(t)
	inModes(t, commandAllStops, modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account }))
}

func commandAllStops(t *testing.T, g mode) {
	c := g.startWorker(func(context.Context, job) error { return nil })
	const resources, page = 450, 200
	var names []string
	for i := range resources {
		names = append(names, fmt.Sprintf("red%03d", i))
	}
	g.inform(c, &delta.InformOpts{Tags: []string{"red"}}, names...)
	until(t, func() bool {
		return g.countRows("SELECT count(*) FROM delta_resource WHERE kind = $1 AND state = 'synced'", g.kind) == resources
	})
	filter := delta.Filter{Kinds: []string{g.kind}, Tags: []string{"red"}}
	for most, want := range map[int]int{7: 7, resources: resources, 10_000: resources} {
		n, err := c.CountForAll(t.Context(), delta.BulkInvalidate, filter, most)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	for _, command := range []delta.BulkCommand{delta.BulkRetry, delta.BulkRevive} {
		n, err := c.CountForAll(t.Context(), command, filter, resources)
		require.NoError(t, err)
		require.Zero(t, n, "%s is not for what is synced", command)
	}

	stop := errors.New("enough")
	told := map[string]bool{}
	n, err := c.CommandAll(t.Context(), delta.BulkInvalidate, filter, func(rows []*deltatype.ResourceRow) error {
		for _, row := range rows {
			told[row.ObjectID] = true
			require.EqualValues(t, 2, row.Generation)
		}
		if len(told) == 2*page {
			return stop
		}
		return nil
	})
	require.ErrorIs(t, err, stop)
	require.Equal(t, 2*page, n)
	require.Len(t, told, 2*page)
	require.Equal(t, 2*page, g.countRows("SELECT count(*) FROM delta_resource WHERE kind = $1 AND generation = 2", g.kind), "the command continued after it was stopped")

	_, err = c.CommandAll(t.Context(), "drop", filter, nil)
	require.ErrorContains(t, err, `command "drop"`)
	_, err = c.CountForAll(t.Context(), delta.BulkDelete, delta.Filter{}, resources)
	require.ErrorContains(t, err, "would choose everything")
	_, err = c.CountForAll(t.Context(), delta.BulkDelete, filter, 0)
	require.ErrorContains(t, err, "most")
}
