package delta_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func briefRetentions(c *delta.Config) {
	c.DegradedResourceRetentionPeriod, c.DeletedResourceRetentionPeriod = 50*time.Millisecond, 50*time.Millisecond
}

// If an upstream is down for longer than all attempts take, its resources degrade, and sync when it is back.
func TestResourcesThatDegradeInAnOutageSyncAfterIt(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		resources := 4
		if g.isBatched() {
			resources = 22 // more failures than become singles
		}
		var up atomic.Bool
		var slow atomic.Int64 // retries of degraded resources
		var mu sync.Mutex
		last := map[string]int{}
		c := g.startListed(briefRetentions, func(_ context.Context, r job) error {
			if up.Load() {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if r.Attempt == 2 {
				if last[r.ObjectID]++; last[r.ObjectID] == 2 {
					slow.Add(1)
				}
			}
			return errors.New("503 Service Unavailable")
		})
		g.inform(c, &delta.InformOpts{MaxAttempts: 2}, names("a", resources)...)
		var retried int64
		until(t, func() bool { retried = slow.Load(); return retried == int64(resources) }, "%s of %d resources were retried slowly", shown[int64]{&retried}, resources)
		require.Zero(t, g.countStates(g.kind)[deltatype.ResourceStateSynced])
		up.Store(true)
		g.awaitAll(resources, deltatype.ResourceStateSynced)
		row := g.row(g.kind, "a00")
		require.EqualValues(t, 1, row.Generation, "slow retries are attempts of the same generation")
		require.Equal(t, 2, row.Attempt)
		if g.isBatched() {
			require.Zero(t, g.ownWorkflows(), "slow retries are batched")
		}
	})
}

// A resource that Work calls hopeless is not retried. Its row is removed after its retention, and the log says so.
func TestAHopelessResourceIsNotRetriedAndIsRemovedWithAWarning(t *testing.T) {
	inListedModes(t, func(t *testing.T, g listedMode) {
		var calls atomic.Int64
		c := g.startListed(briefRetentions, func(context.Context, job) error {
			calls.Add(1)
			return delta.ResourceDegrade(errors.New("422 no such plan"))
		})
		events, cancel := c.Subscribe(delta.EventCategoryObjectFailed)
		defer cancel()
		g.inform(c, nil, "ann", "bob")
		require.Equal(t, deltatype.CauseHopeless, nextEvent(t, events).Resource.Cause)
		g.awaitRow("ann", isGone)
		g.awaitRow("bob", isGone)
		require.EqualValues(t, 2, calls.Load())
		until(t, func() bool {
			return g.logs.hasLine("is removed without having been synced", "object_id=bob ", "namespace=default ", "generation=1 ", "attempt=1 ", "workflow_id=")
		})
		// The line is logged after the row is removed; two lines may come in any order.
		until(t, func() bool {
			return g.logs.hasLine("is removed", "level=WARN", "kind="+g.kind, "object_id=ann", "422 no such plan")
		}, "%s", g.logs)
	})
}

// A listing retries exhausted resources at once, with all attempts. A hopeless one is not retried, and is kept while it is listed.
func TestAListingRetriesDegradedResources(t *testing.T) {
	inListedModes(t, func(t *testing.T, g listedMode) {
		var up atomic.Bool
		c := g.startListed(nil, func(_ context.Context, r job) error {
			switch {
			case r.Object.Name == "hopeless":
				return delta.ResourceDegrade(errors.New("422"))
			case !up.Load():
				return errors.New("503")
			}
			return nil
		})
		g.setUpstream("ann", "bob", "hopeless")
		_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: g.kind}, nil)
		require.NoError(t, err)
		g.awaitRow("hopeless", inState(deltatype.ResourceStateDegraded))
		// Not by a slow retry: none is due soon.
		_, err = g.Pool.Exec(t.Context(), `UPDATE delta_resource SET state = 'degraded', cause = 'exhausted', attempt = max_attempts, errors = '{}',
			due_at = now() + interval '1 hour', dispatch_at = now() + interval '1 hour' WHERE object_id <> 'hopeless'`)
		require.NoError(t, err)
		up.Store(true)
		run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: g.kind, RunForeground: true}, nil)
		require.ErrorContains(t, err, "1 of 3 resources degraded: hopeless")
		require.Equal(t, 2, run.Scheduled)
		for _, name := range []string{"ann", "bob"} {
			g.awaitRow(name, synced(2))
		}
		hopeless := g.row(g.kind, "hopeless")
		require.EqualValues(t, 1, hopeless.Generation)
		require.NotNil(t, hopeless.ListedAt)
		require.True(t, hopeless.ListedAt.After(*hopeless.AttemptedAt))
	})
}

// A deletion upstream is found by comparing rows, so rows are kept unless a retention is set.
func TestCompleteListingsKeepSyncedRowsWithoutARetention(t *testing.T) {
	inListedModes(t, func(t *testing.T, g listedMode) {
		const explicit, inNamespace = 5 * time.Hour, 6 * time.Hour
		start := func(configure func(*delta.Config)) *delta.Client {
			return g.startListed(func(c *delta.Config) {
				c.Namespaces = map[string]delta.NamespaceConfig{"plain": {MaxWorkers: 2}, "own": {MaxWorkers: 2, SyncedResourceRetentionPeriod: inNamespace}}
				configure(c)
			}, func(context.Context, job) error { return nil })
		}
		kept := func(c *delta.Client, name, namespace string) (retention time.Duration) {
			t.Helper()
			g.inform(c, &delta.InformOpts{Namespace: namespace}, name)
			row := g.awaitRow(name, synced(1))
			if row.DueAt == nil {
				return -1
			}
			return row.DueAt.Sub(*row.SyncedAt)
		}
		c := start(func(*delta.Config) {})
		require.False(t, g.logs.hasLine("is not noticed"))
		require.EqualValues(t, -1, kept(c, "a", "default"))
		require.EqualValues(t, -1, kept(c, "b", "plain"))
		require.Equal(t, inNamespace, kept(c, "c", "own"))
		require.NoError(t, c.Stop(t.Context()))
		c = start(func(config *delta.Config) { config.SyncedResourceRetentionPeriod = explicit })
		require.True(t, g.logs.hasLine("level=WARN", "is not noticed", "kind="+g.kind))
		require.Equal(t, explicit, kept(c, "d", "default"))
		require.Equal(t, explicit, kept(c, "e", "plain"))
		require.Equal(t, inNamespace, kept(c, "f", "own"))
	})
}

type listedInFull struct{ account }

func (listedInFull) Kind() string { return "listed-in-full" }
func (listedInFull) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, FullListingInterval: 24 * time.Hour}
}

func TestAKindWithFullListingsKeepsSyncedRows(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[listedInFull]{inform: func(context.Context, *delta.InformOptions) (<-chan listedInFull, error) {
		return nil, errors.New("not now")
	}})))
	_, err := c.Inform(t.Context(), listedInFull{account{Name: "ann"}}, nil)
	require.NoError(t, err)
	require.Nil(t, h.eventually("listed-in-full", "ann", synced(1)).DueAt)
}
