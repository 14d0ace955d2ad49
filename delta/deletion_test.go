package delta_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// A resource that a listing marked deleted is live again when it reappears, changed or not.
func TestAListedResourceIsLiveAgain(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		c := g.startListed(nil, func(context.Context, job) error { return nil })
		g.setUpstream("ann", "bob", "eve")
		g.runInformer(c)
		g.awaitAll(3, deltatype.ResourceStateSynced)
		g.setUpstream("ann")
		require.Equal(t, 2, g.runInformer(c).Deleted)
		require.Equal(t, deltatype.CauseUnlisted, g.row(g.kind, "bob").Cause)

		g.upstream.set(account{Name: "ann"}, account{Name: "bob"}, account{Name: "eve", Plan: "changed"})
		require.Equal(t, 2, g.runInformer(c).Scheduled)
		for _, name := range []string{"bob", "eve"} {
			row := g.awaitRow(name, synced(3))
			require.EqualValues(t, 2, row.SyncCount, "it is synced again")
		}
		require.Zero(t, g.runInformer(c).Scheduled, "once")
	})
}

// A resource that Work or a person deleted stays deleted, whatever a listing has.
func TestAnExplicitDeletionHoldsUntilTheResourceIsRevived(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		c := g.startListed(nil, func(_ context.Context, r job) error {
			if r.Object.Name == "gone" && r.Generation == 1 {
				return delta.ResourceDelete(errors.New("410"))
			}
			return nil
		})
		all := []string{"gone", "deleted", "informed", "ann"}
		g.setUpstream(all...)
		g.runInformer(c)
		for _, name := range []string{"deleted", "informed"} {
			_, err := c.Delete(t.Context(), g.kind, name)
			require.NoError(t, err)
			require.Equal(t, deltatype.CauseCommand, g.row(g.kind, name).Cause)
		}
		require.Equal(t, deltatype.CauseWork, g.row(g.kind, "gone").Cause)
		g.upstream.set(account{Name: "gone", Plan: "changed"}, account{Name: "deleted", Plan: "changed"}, account{Name: "informed"}, account{Name: "ann"})
		require.Zero(t, g.runInformer(c).Scheduled)
		// Omitted, and listed again: the listing had not deleted them.
		g.setUpstream("ann")
		require.Zero(t, g.runInformer(c).Deleted)
		g.setUpstream(all...)
		require.Zero(t, g.runInformer(c).Scheduled)
		require.Equal(t, 3, g.countStates(g.kind)[deltatype.ResourceStateDeleted])

		row, err := c.Revive(t.Context(), g.kind, "gone")
		require.NoError(t, err)
		require.Equal(t, deltatype.ResourceStateScheduled, row.State)
		g.awaitRow("gone", synced(2))
		n, err := c.ReviveAll(t.Context(), delta.Filter{ObjectIDs: []string{"deleted", "ann"}})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		g.awaitRow("deleted", synced(3))
		g.inform(c, nil, "informed")
		g.awaitRow("informed", synced(3))

		refused := new(delta.StateError)
		_, err = c.Revive(t.Context(), g.kind, "ann")
		require.ErrorAs(t, err, &refused)
		require.ErrorContains(t, err, "its state is synced, and must be deleted")
		_, err = c.Revive(t.Context(), g.kind, "nobody")
		require.ErrorIs(t, err, delta.ErrNotFound)
	})
}

// The row is not removed while the object is listed: otherwise the next listing would sync it as a new one.
func TestADeletedResourceIsKeptWhileItIsListed(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		const retention = 20 * time.Hour
		var worked atomic.Int64
		c := g.startListed(func(c *delta.Config) { c.DeletedResourceRetentionPeriod = retention }, func(_ context.Context, r job) error {
			worked.Add(1)
			if r.Object.Name == "gone" {
				return delta.ResourceDelete(errors.New("410"))
			}
			return nil
		})
		g.setUpstream("gone", "deleted", "ann")
		g.runInformer(c)
		_, err := c.Delete(t.Context(), g.kind, "deleted")
		require.NoError(t, err)
		passRetention := func() {
			t.Helper()
			g.exec("UPDATE delta_resource SET synced_at = synced_at - $1::interval, listed_at = listed_at - $1::interval WHERE state = 'deleted'", retention)
		}
		endRetention := func() {
			t.Helper()
			g.exec("UPDATE delta_resource SET due_at = now(), dispatch_at = now() WHERE state = 'deleted'")
		}
		for range 2 {
			passRetention()
			require.Zero(t, g.runInformer(c).Scheduled)
			endRetention()
			for _, name := range []string{"gone", "deleted"} {
				row := g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r == nil || (r.DueAt != nil && r.DueAt.After(g.now())) })
				require.NotNil(t, row, "it is removed: %s", name)
				require.Equal(t, deltatype.ResourceStateDeleted, row.State, name)
				require.Equal(t, retention, row.DueAt.Sub(*row.ListedAt), name)
			}
		}
		require.EqualValues(t, 3, worked.Load())

		g.setUpstream("ann")
		require.Zero(t, g.runInformer(c).Deleted)
		passRetention()
		endRetention()
		g.awaitRow("gone", isGone)
		g.awaitRow("deleted", isGone)
		g.setUpstream("gone", "deleted", "ann")
		require.Equal(t, 2, g.runInformer(c).Scheduled, "it is new")
	})
}

// A row whose object is listed less often than its retention is kept anyway, until a complete listing omits it.
func TestADeletedResourceIsKeptUntilACompleteListingOmitsIt(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		const retention = 20 * time.Hour
		c := g.startListed(func(c *delta.Config) { c.DeletedResourceRetentionPeriod = retention }, func(_ context.Context, r job) error {
			if r.Object.Name == "gone" {
				return delta.ResourceDelete(errors.New("410"))
			}
			return nil
		})
		g.setUpstream("gone", "deleted", "ann")
		g.runInformer(c)
		_, err := c.Delete(t.Context(), g.kind, "deleted")
		require.NoError(t, err)

		g.exec("UPDATE delta_shard SET last_full_listing = last_full_listing - $1::interval", 2*retention)
		pass := func() {
			t.Helper()
			g.exec(`UPDATE delta_resource SET synced_at = synced_at - $1::interval, listed_at = listed_at - $1::interval, due_at = now(), dispatch_at = now()
				WHERE state = 'deleted'`, retention)
			for _, name := range []string{"gone", "deleted"} {
				row := g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r == nil || r.DueAt == nil })
				require.NotNil(t, row, "it is removed before a listing could leave it out: %s", name)
				require.Equal(t, deltatype.ResourceStateDeleted, row.State, name)
			}
		}
		pass()
		g.setUpstream("gone", "deleted", "ann")
		require.Zero(t, g.runInformer(c).Scheduled, "it stays deleted")
		g.exec("UPDATE delta_shard SET last_full_listing = last_full_listing - $1::interval", retention)
		pass()

		g.setUpstream("ann")
		require.Zero(t, g.runInformer(c).Deleted)
		g.awaitRow("gone", isGone)
		g.awaitRow("deleted", isGone)
	})
}

// If there will be no complete listing, the row does not wait for one.
func TestADeletedResourceIsRemovedIfCompleteListingsAreOff(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	none := with(&controller[account]{})
	c := h.start(h.config(none))
	_, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	_, err = c.Delete(t.Context(), "account", "ann")
	require.NoError(t, err)
	h.exec("UPDATE delta_controller SET lists_all = true WHERE name = 'account'")
	h.exec("UPDATE delta_resource SET synced_at = now() - interval '2 days', due_at = now(), dispatch_at = now()")
	h.eventually("account", "ann", func(r *deltatype.ResourceRow) bool { return r != nil && r.DueAt == nil })
	h.start(h.config(none))
	h.eventually("account", "ann", isGone)
}
