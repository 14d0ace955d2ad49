package delta_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// A computed list that is empty must not choose everything.
func TestAFilterWithAnEmptyListMatchesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	_, err := c.InformMany(t.Context(), []delta.Object{account{Name: "ann"}, account{Name: "bob"}}, nil)
	require.NoError(t, err)
	_, err = h.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'synced', due_at = NULL")
	require.NoError(t, err)
	for name, filter := range map[string]delta.Filter{
		"Kinds":      {Kinds: []string{}},
		"ObjectIDs":  {Kinds: []string{"account"}, ObjectIDs: []string{}},
		"Namespaces": {Namespaces: []string{}},
		"Shards":     {Kinds: []string{"account"}, Shards: []string{}},
		"States":     {States: []deltatype.ResourceState{}},
		"Tags":       {Kinds: []string{"account"}, Tags: []string{}},
		"Labels":     {Kinds: []string{"account"}, Labels: map[string]string{}},
	} {
		rows, err := c.List(t.Context(), filter, delta.Page{})
		require.NoError(t, err, name)
		require.Empty(t, rows, name)
		n, err := c.InvalidateAll(t.Context(), filter)
		require.NoError(t, err, name)
		require.Zero(t, n, name)
		n, err = c.RetryAll(t.Context(), filter)
		require.NoError(t, err, name)
		require.Zero(t, n, name)
		n, err = c.DeleteAll(t.Context(), filter)
		require.NoError(t, err, name)
		require.Zero(t, n, name)
	}
	counts, err := c.Count(t.Context(), delta.Filter{Kinds: []string{}})
	require.NoError(t, err)
	require.Empty(t, counts)
	require.Equal(t, 2, h.countStates("account")[deltatype.ResourceStateSynced])
}

func TestDeleteAllOfEverythingHasToBeMeant(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	_, err := c.InformMany(t.Context(), []delta.Object{account{Name: "ann"}, account{Name: "bob"}}, nil)
	require.NoError(t, err)
	var all []deltatype.ResourceState
	for _, state := range deltatype.ResourceStates() {
		if state != deltatype.ResourceStateDeleted {
			all = append(all, state)
		}
	}
	for name, filter := range map[string]delta.Filter{
		"no field": {}, "all states": {States: deltatype.ResourceStates()}, "all that can be deleted": {States: all},
	} {
		_, err := c.DeleteAll(t.Context(), filter)
		require.ErrorContains(t, err, "would choose everything", name)
	}
	for name, filter := range map[string]delta.Filter{
		"kind": {All: true, Kinds: []string{"account"}}, "an empty list": {All: true, Tags: []string{}},
	} {
		_, err := c.DeleteAll(t.Context(), filter)
		require.ErrorContains(t, err, "All true: must not be set together", name)
	}
	require.Equal(t, 2, h.countStates("account")[deltatype.ResourceStateScheduled])
	n, err := c.DeleteAll(t.Context(), delta.Filter{All: true, States: []deltatype.ResourceState{deltatype.ResourceStateSynced}})
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = c.DeleteAll(t.Context(), delta.Filter{All: true})
	require.NoError(t, err)
	require.Equal(t, 2, n)
}
