package delta_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// payment1 and payment2 are two versions of a type.
type payment1 struct {
	Key    string
	Amount string
}

func (p payment1) ID() string { return p.Key }
func (payment1) Kind() string { return "payment" }

type payment2 struct {
	Key    string
	Amount int
}

func (p payment2) ID() string { return p.Key }
func (payment2) Kind() string { return "payment" }

func TestResourcesAreReadWithTheirTypes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	_, err := c.InformMany(t.Context(), []delta.Object{
		payment2{"a", 12}, payment2{"b", 13}, payment1{"old", "twelve"}, account{Name: "ann"},
	}, nil)
	require.NoError(t, err)

	got, err := delta.GetAs[payment2](t.Context(), c, "a")
	require.NoError(t, err)
	require.Equal(t, payment2{"a", 12}, got.Object)
	require.Equal(t, h.row("payment", "a"), got.ResourceRow)
	require.ErrorContains(t, got.CompleteTx(t.Context(), nil), "not one that Work was given")
	pointer, err := delta.GetAs[*account](t.Context(), c, "ann")
	require.NoError(t, err)
	require.Equal(t, &account{Name: "ann"}, pointer.Object)
	_, err = delta.GetAs[account](t.Context(), c, "nobody")
	require.ErrorIs(t, err, delta.ErrNotFound)
	_, err = delta.GetAs[delta.Object](t.Context(), c, "a")
	require.ErrorContains(t, err, "is an interface")
	unreadable := new(delta.UnreadableError)
	_, err = delta.GetAs[payment2](t.Context(), c, "old")
	require.ErrorAs(t, err, &unreadable)
	require.Equal(t, "old", unreadable.ObjectID)

	// One that does not decode does not hide the others, nor does it break the pages.
	all, err := delta.ListAs[payment2](t.Context(), c, delta.Filter{}, delta.Page{})
	require.ErrorAs(t, err, &unreadable)
	require.ErrorContains(t, err, "payment/old: the stored object does not decode")
	require.Len(t, all, 3)
	objects := map[string]payment2{}
	for _, r := range all {
		objects[r.ObjectID] = r.Object
	}
	require.Equal(t, map[string]payment2{"a": {"a", 12}, "b": {"b", 13}, "old": {}}, objects)
	all, err = delta.ListAs[payment2](t.Context(), c, delta.Filter{ObjectIDs: []string{"b"}, Kinds: []string{"payment"}}, delta.Page{Limit: 1})
	require.NoError(t, err)
	require.Len(t, all, 1)
	_, err = delta.ListAs[payment2](t.Context(), c, delta.Filter{Kinds: []string{"account"}}, delta.Page{})
	require.ErrorContains(t, err, `Kinds "account": must be empty, or the kind of`)
}
