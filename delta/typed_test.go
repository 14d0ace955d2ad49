package delta_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestResourcesAreReadWithTheirTypes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	_, err := c.InformMany(t.Context(), []delta.Object{
		payment2[single]{"a", 12}, payment2[single]{"b", 13}, payment1[single]{"old", "twelve"}, account{Name: "ann"},
	}, nil)
	require.NoError(t, err)

	got, err := delta.GetAs[payment2[single]](t.Context(), c, "a")
	require.NoError(t, err)
	require.Equal(t, payment2[single]{"a", 12}, got.Object)
	require.Equal(t, h.row("payment", "a"), got.ResourceRow)
	require.ErrorContains(t, got.CompleteTx(t.Context(), nil), "not one that Work was given")
	pointer, err := delta.GetAs[*account](t.Context(), c, "ann")
	require.NoError(t, err)
	require.Equal(t, &account{Name: "ann"}, pointer.Object)
	_, err = delta.GetAs[account](t.Context(), c, "nobody")
	require.ErrorIs(t, err, delta.ErrNotFound)
	_, err = delta.GetAs[delta.Object](t.Context(), c, "a")
	require.ErrorContains(t, err, "is an interface")
	undecodable := new(delta.UndecodableError)
	_, err = delta.GetAs[payment2[single]](t.Context(), c, "old")
	require.ErrorAs(t, err, &undecodable)
	require.Equal(t, "old", undecodable.ObjectID)

	// An object that does not decode neither hides others nor breaks the pages.
	all, err := delta.ListAs[payment2[single]](t.Context(), c, delta.Filter{}, delta.Page{})
	require.ErrorAs(t, err, &undecodable)
	require.ErrorContains(t, err, "payment/old: the stored object does not decode")
	require.Len(t, all, 3)
	objects := map[string]payment2[single]{}
	for _, r := range all {
		objects[r.ObjectID] = r.Object
	}
	require.Equal(t, map[string]payment2[single]{"a": {"a", 12}, "b": {"b", 13}, "old": {}}, objects)
	all, err = delta.ListAs[payment2[single]](t.Context(), c, delta.Filter{ObjectIDs: []string{"b"}, Kinds: []string{"payment"}}, delta.Page{Limit: 1})
	require.NoError(t, err)
	require.Len(t, all, 1)
	_, err = delta.ListAs[payment2[single]](t.Context(), c, delta.Filter{Kinds: []string{"account"}}, delta.Page{})
	require.ErrorContains(t, err, `Kinds "account": must be empty, or the kind of`)

	// A client with the controller upgrades stored objects too.
	with := h.client(h.config(func(cs *delta.Controllers) { delta.AddController(cs, &upgrading[single]{}) }))
	upgraded, err := delta.GetAs[payment3[single]](t.Context(), with, "a")
	require.NoError(t, err)
	require.Equal(t, payment3[single]{"a", 1200}, upgraded.Object)
	_, err = delta.GetAs[payment3[single]](t.Context(), c, "a")
	require.ErrorAs(t, err, &undecodable, "without it, the JSON has another id")
}
