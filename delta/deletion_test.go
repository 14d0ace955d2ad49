package delta_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// What a listing left out is live again when it reappears, whether it changed meanwhile or not.
func TestWhatReappearsIsLiveAgain(t *testing.T) {
	inListedGears(t, func(t *testing.T, g listedGear) {
		c := g.startListed(nil, func(context.Context, job) error { return nil })
		g.lists("ann", "bob", "eve")
		g.list(c)
		g.awaitAll(3, deltatype.ResourceStateSynced)
		g.lists("ann")
		require.Equal(t, 2, g.list(c).Deleted)
		require.Equal(t, deltatype.CauseUnlisted, g.row(g.kind, "bob").Cause)

		g.upstream.set(account{Name: "ann"}, account{Name: "bob"}, account{Name: "eve", Plan: "changed"})
		require.Equal(t, 2, g.list(c).Scheduled)
		for _, name := range []string{"bob", "eve"} {
			row := g.await(name, synced(3))
			require.EqualValues(t, 2, row.SyncCount, "it is synced anew")
		}
		require.Zero(t, g.list(c).Scheduled, "once")
	})
}

// What Work or a person deleted stays so, whatever a listing says.
func TestWhatWasDeletedExplicitlyStaysSoUntilItIsRevived(t *testing.T) {
	inListedGears(t, func(t *testing.T, g listedGear) {
		c := g.startListed(nil, func(_ context.Context, r job) error {
			if r.Object.Name == "gone" && r.Generation == 1 {
				return delta.ResourceDelete(errors.New("410"))
			}
			return nil
		})
		all := []string{"gone", "deleted", "informed", "ann"}
		g.lists(all...)
		g.list(c)
		for _, name := range []string{"deleted", "informed"} {
			_, err := c.Delete(t.Context(), g.kind, name)
			require.NoError(t, err)
			require.Equal(t, deltatype.CauseCommand, g.row(g.kind, name).Cause)
		}
		require.Equal(t, deltatype.CauseWork, g.row(g.kind, "gone").Cause)
		g.upstream.set(account{Name: "gone", Plan: "changed"}, account{Name: "deleted", Plan: "changed"}, account{Name: "informed"}, account{Name: "ann"})
		require.Zero(t, g.list(c).Scheduled)
		// Left out, and listed once more: it was not the listing that deleted them.
		g.lists("ann")
		require.Zero(t, g.list(c).Deleted)
		g.lists(all...)
		require.Zero(t, g.list(c).Scheduled)
		require.Equal(t, 3, g.states(g.kind)[deltatype.ResourceStateDeleted])

		row, err := c.Revive(t.Context(), g.kind, "gone")
		require.NoError(t, err)
		require.Equal(t, deltatype.ResourceStateScheduled, row.State)
		g.await("gone", synced(2))
		n, err := c.ReviveAll(t.Context(), delta.Filter{ObjectIDs: []string{"deleted", "ann"}})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		g.await("deleted", synced(3))
		g.inform(c, nil, "informed")
		g.await("informed", synced(3))

		refused := new(delta.StateError)
		_, err = c.Revive(t.Context(), g.kind, "ann")
		require.ErrorAs(t, err, &refused)
		require.ErrorContains(t, err, "its state is synced, and must be deleted")
		_, err = c.Revive(t.Context(), g.kind, "nobody")
		require.ErrorIs(t, err, delta.ErrNotFound)
	})
}
