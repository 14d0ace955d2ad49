package delta_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// A change applies to settled resources at once: a timer of a day, or none, is replaced by the new settings.
func TestSettingANamespaceWakesSettledResources(t *testing.T) {
	soak.Long(t)
	inEachModeBut(t, "each", func(t *testing.T, g mode) {
		var calls atomic.Int64
		config := g.config(g.controller(func(_ context.Context, j job) error {
			if j.Namespace == "slow" {
				calls.Add(1)
			}
			return nil
		}))
		config.Namespaces = map[string]delta.NamespaceConfig{"slow": {ResourceExpiry: 24 * time.Hour}, "kept": {SyncedResourceRetentionPeriod: -1}}
		c := g.start(config)
		g.inform(c, &delta.InformOpts{Namespace: "slow"}, names("s", 20)...)
		g.inform(c, &delta.InformOpts{Namespace: "kept"}, names("k", 20)...)
		g.inform(c, nil, "other")
		for _, name := range append(append(names("s", 20), names("k", 20)...), "other") {
			g.awaitRow(name, synced(1))
		}
		require.Nil(t, g.row(g.kind, "k00").DueAt)
		other := g.row(g.kind, "other")

		require.NoError(t, c.SetNamespace(t.Context(), "slow", delta.NamespaceConfig{ResourceExpiry: time.Second}))
		require.NoError(t, c.SetNamespace(t.Context(), "kept", delta.NamespaceConfig{SyncedResourceRetentionPeriod: time.Second}))
		for _, name := range names("s", 20) {
			g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.SyncCount > 1 })
		}
		for _, name := range names("k", 20) {
			g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r == nil })
		}
		require.Equal(t, other, g.row(g.kind, "other"), "other namespaces are left as they are")
		// And longer again.
		require.NoError(t, c.SetNamespace(t.Context(), "slow", delta.NamespaceConfig{ResourceExpiry: time.Hour}))
		for _, name := range names("s", 20) {
			g.awaitRow(name, func(r *deltatype.ResourceRow) bool {
				return r.State == deltatype.ResourceStateSynced && r.DueAt.Sub(*r.SyncedAt) > 50*time.Minute
			})
		}
	})
}

// Settings changed while clients are running apply to all of them at once, and to clients that start later, until they are reset.
func TestANamespaceIsSetForAllClientsAndGoesBeforeTheirConfig(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		var running atomic.Int64
		open := make(chan struct{})
		config := g.config(g.controller(func(ctx context.Context, _ job) error {
			running.Add(1)
			defer running.Add(-1)
			select {
			case <-open:
			case <-ctx.Done():
			}
			return ctx.Err()
		}))
		config.ResourceWorkTimeout = 10 * patience
		config.Namespaces = map[string]delta.NamespaceConfig{"slow": {MaxWorkers: 1, ResourceExpiry: time.Hour}}
		c := g.start(config)
		g.inform(c, &delta.InformOpts{Namespace: "slow"}, names("r", 20)...)
		until(t, func() bool { return running.Load() == 1 })

		admin := g.client(&delta.Config{Temporal: g.Temporal, WorkflowIDPrefix: g.Prefix})
		require.NoError(t, admin.SetNamespace(t.Context(), "slow", delta.NamespaceConfig{MaxWorkers: 3, DegradedResourceRetentionPeriod: -1}))
		until(t, func() bool { return running.Load() == 3 }, "another client has set it")
		late := g.start(config)
		all, err := late.Namespaces(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.True(t, all[0].Overridden)
		require.Equal(t, 3, all[0].MaxWorkers)
		require.Zero(t, all[0].ResourceExpiry, "the client that starts does not change it")

		require.NoError(t, admin.ResetNamespace(t.Context(), "slow"))
		close(open)
		for _, name := range names("r", 20) {
			g.awaitRow(name, synced(1))
		}
		g.start(config)
		all, err = late.Namespaces(t.Context())
		require.NoError(t, err)
		require.False(t, all[0].Overridden)
		require.Equal(t, time.Hour, all[0].ResourceExpiry)

		err = admin.SetNamespace(t.Context(), "slow", delta.NamespaceConfig{MaxWorkers: -1})
		require.ErrorContains(t, err, "namespace slow.MaxWorkers -1: must be between 1 and 10000")
		require.ErrorContains(t, admin.SetNamespace(t.Context(), "a/b", delta.NamespaceConfig{}), `namespace "a/b"`)
	})
}
