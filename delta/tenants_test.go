package delta_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// Two tenants have an object with the same id: the second does not take over the first one's resource.
func TestAnObjectOfAnotherTenantWithTheSameIDIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	acme, globex := &delta.InformOpts{Namespace: "acme"}, &delta.InformOpts{Namespace: "globex"}
	_, err := c.Inform(t.Context(), account{Name: "1001", Plan: "acme's"}, acme)
	require.NoError(t, err)
	before := h.row("account", "1001")

	refused := new(delta.NamespaceError)
	_, err = c.Inform(t.Context(), account{Name: "1001", Plan: "globex's"}, globex)
	require.ErrorAs(t, err, &refused)
	require.Equal(t, delta.NamespaceError{Kind: "account", ObjectID: "1001", Namespace: "acme", Given: "globex"}, *refused)
	_, err = c.Sync(t.Context(), account{Name: "1001"}, globex)
	require.ErrorAs(t, err, &refused)

	// In a set, only this object is refused.
	results, err := c.InformMany(t.Context(), []delta.Object{account{Name: "1001"}, account{Name: "1002"}}, globex)
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, `their ids must differ`)
	require.ErrorAs(t, results[0].Refused, &refused)
	require.NoError(t, results[1].Refused)
	require.True(t, results[1].Scheduled)
	require.NoError(t, pgx.BeginFunc(t.Context(), h.Pool, func(tx pgx.Tx) error {
		_, err := c.InformManyTx(t.Context(), tx, []delta.Object{account{Name: "1001"}, account{Name: "1003"}}, globex)
		require.ErrorAs(t, err, &refused)
		_, err = c.InformTx(t.Context(), tx, account{Name: "1001"}, globex)
		require.ErrorAs(t, err, &refused)
		return nil
	}))
	require.NotNil(t, h.row("account", "1003"))
	require.Equal(t, before, h.row("account", "1001"))

	// The error does not name all of many refused objects.
	var many []delta.Object
	for i := range 20 {
		many = append(many, account{Name: fmt.Sprint("many", i)})
	}
	_, err = c.InformMany(t.Context(), many, acme)
	require.NoError(t, err)
	_, err = c.InformMany(t.Context(), many, globex)
	require.ErrorContains(t, err, "and 15 more are refused")

	// MoveNamespace moves an object on purpose.
	result, err := c.Inform(t.Context(), account{Name: "1001"}, &delta.InformOpts{Namespace: "globex", MoveNamespace: true})
	require.NoError(t, err)
	require.True(t, result.Scheduled)
	require.Equal(t, "globex", h.row("account", "1001").Namespace)
}

// Concurrent informs share a statement: a refused one does not affect the others.
func TestARefusedInformHarmsNoneThatItIsGatheredWith(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	_, err := c.Inform(t.Context(), account{Name: "taken"}, &delta.InformOpts{Namespace: "acme"})
	require.NoError(t, err)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			name := fmt.Sprint("n", i)
			if i%10 == 0 {
				name = "taken"
			}
			result, err := c.Inform(t.Context(), account{Name: name}, &delta.InformOpts{Namespace: "globex"})
			if refused := new(delta.NamespaceError); name == "taken" {
				require.ErrorAs(t, err, &refused)
				return
			}
			require.NoError(t, err)
			require.True(t, result.Scheduled)
		})
	}
	all.Wait()
	require.Equal(t, "acme", h.row("account", "taken").Namespace)
}
