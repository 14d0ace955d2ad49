package delta_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestGetListAndCount(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	var objects []delta.Object
	for i := range 25 {
		objects = append(objects, account{Name: fmt.Sprintf("a%02d", i)})
	}
	_, err := c.InformMany(t.Context(), objects[:20], &delta.InformOpts{Namespace: "red", Tags: []string{"gold", "east"}, Metadata: []byte(`{"team": "x", "n": 1}`)})
	require.NoError(t, err)
	_, err = c.InformMany(t.Context(), objects[20:], &delta.InformOpts{Tags: []string{"gold"}})
	require.NoError(t, err)
	_, err = c.Inform(t.Context(), raw{Name: "r", Body: []byte("1")}, nil)
	require.NoError(t, err)
	_, err = h.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'degraded' WHERE object_id IN ('a03', 'a22')")
	require.NoError(t, err)

	row, err := c.Get(t.Context(), "account", "a03")
	require.NoError(t, err)
	require.Equal(t, h.row("account", "a03"), row)
	_, err = c.Get(t.Context(), "account", "nobody")
	require.ErrorIs(t, err, delta.ErrNotFound)

	ids := func(filter delta.Filter, page delta.Page) (all []string) {
		rows, err := c.List(t.Context(), filter, page)
		require.NoError(t, err)
		for _, r := range rows {
			all = append(all, r.ObjectID)
		}
		return all
	}
	require.Len(t, ids(delta.Filter{}, delta.Page{}), 26)
	require.Len(t, ids(delta.Filter{Kinds: []string{"account"}}, delta.Page{}), 25)
	require.Equal(t, []string{"r"}, ids(delta.Filter{Kinds: []string{"raw", "other"}}, delta.Page{}))
	require.Equal(t, []string{"a03", "a22"}, ids(delta.Filter{States: []deltatype.ResourceState{"degraded"}}, delta.Page{}))
	require.Len(t, ids(delta.Filter{Namespaces: []string{"red"}, Tags: []string{"east", "gold"}}, delta.Page{}), 20)
	require.Len(t, ids(delta.Filter{Tags: []string{"gold"}}, delta.Page{}), 25)
	require.Len(t, ids(delta.Filter{Labels: map[string]string{"team": "x"}}, delta.Page{}), 20)
	require.Empty(t, ids(delta.Filter{Labels: map[string]string{"team": "y"}}, delta.Page{}))
	require.Equal(t, []string{"a07"}, ids(delta.Filter{ObjectIDs: []string{"a07"}}, delta.Page{}))

	// Pages neither miss nor repeat rows, whatever is written meanwhile.
	var paged []string
	for after := int64(0); ; {
		rows, err := c.List(t.Context(), delta.Filter{Kinds: []string{"account"}}, delta.Page{After: after, Limit: 7})
		require.NoError(t, err)
		for _, r := range rows {
			paged = append(paged, r.ObjectID)
			after = r.ID
		}
		if len(rows) < 7 {
			break
		}
		_, err = c.Inform(t.Context(), account{Name: "a00", Plan: fmt.Sprint(after)}, nil)
		require.NoError(t, err)
	}
	require.Len(t, paged, 25)
	require.IsIncreasing(t, paged)

	counts, err := c.Count(t.Context(), delta.Filter{})
	require.NoError(t, err)
	require.Equal(t, []delta.Count{
		{Kind: "account", State: "scheduled", Count: 23},
		{Kind: "account", State: "degraded", Count: 2},
		{Kind: "raw", State: "scheduled", Count: 1},
	}, counts)
	counts, err = c.Count(t.Context(), delta.Filter{Namespaces: []string{"red"}, Kinds: []string{"account"}})
	require.NoError(t, err)
	require.Equal(t, []delta.Count{{Kind: "account", State: "scheduled", Count: 19}, {Kind: "account", State: "degraded", Count: 1}}, counts)

	for _, bad := range []struct {
		err  func() error
		says string
	}{
		{func() error { _, err := c.List(t.Context(), delta.Filter{}, delta.Page{Limit: 1001}); return err }, "Limit 1001"},
		{func() error { _, err := c.List(t.Context(), delta.Filter{}, delta.Page{Limit: -1}); return err }, "Limit -1"},
		{func() error {
			_, err := c.List(t.Context(), delta.Filter{States: []deltatype.ResourceState{"asleep"}}, delta.Page{})
			return err
		}, `States "asleep": must be one of`},
		{func() error { _, err := c.Count(t.Context(), delta.Filter{Tags: []string{"x"}}); return err }, "Tags [x]: must be empty"},
	} {
		input := new(delta.InputError)
		err := bad.err()
		require.ErrorAs(t, err, &input)
		require.ErrorContains(t, err, bad.says)
	}
}

func TestTheSettingsOfNamespacesCanBeRead(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.Namespaces = map[string]delta.NamespaceConfig{
		"red": {MaxWorkers: 1, ResourceExpiry: time.Hour}, "blue": {MaxWorkers: 1, DeletedResourceRetentionPeriod: -1},
		"white": {MaxWorkers: 1, SyncedResourceRetentionPeriod: 3 * time.Hour},
	}
	before := h.now()
	c := h.start(config)
	all, err := c.Namespaces(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Equal(t, "blue", all[0].Name)
	require.Negative(t, all[0].DeletedResourceRetentionPeriod)
	require.Zero(t, all[0].SyncedResourceRetentionPeriod, "it differs by kind")
	require.Equal(t, 3*time.Hour, all[2].SyncedResourceRetentionPeriod)
	require.Equal(t, time.Hour, all[1].ResourceExpiry)
	require.WithinRange(t, all[1].CreatedAt, before, h.now())
}
