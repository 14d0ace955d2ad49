package delta_test

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestTheRateLimitOfANamespaceHoldsForAllClientsAndKinds(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		var mu sync.Mutex
		var calls []time.Time
		called := func() {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, time.Now())
		}
		controllers := []func(*delta.Controllers){
			g.controller(func(context.Context, job) error { called(); return nil }),
			with(&controller[serial]{work: func(context.Context, *delta.Resource[serial]) error { called(); return nil }}),
		}
		// Two clients, one without the rate in its Config: the rate belongs to the namespace.
		config := g.config(controllers...)
		config.Namespaces = map[string]delta.NamespaceConfig{"slow": {MaxWorkers: 100, RateLimit: 10}}
		c := g.start(config)
		g.start(g.config(controllers...))
		slow := &delta.InformOpts{Namespace: "slow"}
		before := time.Now()
		g.inform(c, slow, names("r", 30)...)
		for _, name := range names("s", 10) {
			_, err := c.Inform(t.Context(), serial{account{Name: name}}, slow)
			require.NoError(t, err)
		}
		for _, name := range names("r", 30) {
			require.Equal(t, 1, g.awaitRow(name, synced(1)).Attempt)
		}
		for _, name := range names("s", 10) {
			g.eventually("serial", name, synced(1))
		}
		mu.Lock()
		defer mu.Unlock()
		slices.SortFunc(calls, time.Time.Compare)
		took := calls[len(calls)-1].Sub(before)
		t.Logf("40 calls took %s", took)
		// Ten a second. Calls that each client has reserved for each kind may come at once. A call may be late, even the first one, but never early:
		// so compare each with the time before the first inform.
		require.Greater(t, took, 3*time.Second)
		for i, at := range calls {
			require.Greater(t, at.Sub(before), time.Duration(i-10)*time.Second/10, "%d calls have begun by then", i+1)
		}
	})
}

// Resources that wait for the rate of their namespace take no slot of their kind, and none of the worker.
func TestARateLimitedNamespaceDoesNotDelayOthers(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		var slow atomic.Int64
		config := g.config(g.controller(func(_ context.Context, j job) error {
			if j.Namespace == "slow" {
				slow.Add(1)
			}
			return nil
		}))
		config.Namespaces = map[string]delta.NamespaceConfig{"slow": {MaxWorkers: 1000, RateLimit: 0.001}}
		c := g.start(config)
		g.inform(c, &delta.InformOpts{Namespace: "slow"}, names("crowd", 100)...)
		until(t, func() bool { return slow.Load() == 1 })
		g.informEach(c, nil, names("free", 10)...)
		g.inform(c, nil, names("wide", 60)...)
		for _, name := range append(names("free", 10), names("wide", 60)...) {
			g.awaitRow(name, synced(1))
		}
		require.EqualValues(t, 1, slow.Load())
	})
}

// Wake-ups that lead to no call of Work, as of deleted resources, take nothing from the room of their namespace.
func TestDeletedResourcesTakeNoRoomInARatedNamespace(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		config := g.config(g.controller(func(context.Context, job) error { return nil }))
		config.Namespaces = map[string]delta.NamespaceConfig{"slow": {MaxWorkers: 100, RateLimit: 4}}
		c := g.startWithoutPoll(config)
		slow := &delta.InformOpts{Namespace: "slow"}
		before := names("before", 12)
		g.inform(c, slow, before...)
		for _, name := range before {
			g.awaitRow(name, synced(1))
		}
		_, err := c.DeleteAll(t.Context(), delta.Filter{Kinds: []string{g.kind}})
		require.NoError(t, err)
		g.inform(c, slow, names("after", 4)...)
		for _, name := range names("after", 4) {
			g.awaitRow(name, synced(1))
		}
	})
}

// Calls that wait for the rate of their kind keep no slot of their namespace from another kind, which has room there.
func TestACallThatWaitsForItsRateKeepsNoSlot(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		var slow atomic.Int64
		config := g.config(
			g.controller(func(context.Context, job) error { slow.Add(1); return nil }),
			with(&controller[serial]{work: func(context.Context, *delta.Resource[serial]) error { return nil }}))
		config.Namespaces = map[string]delta.NamespaceConfig{"shared": {MaxWorkers: 2}}
		config.Kinds = map[string]delta.ObjectSettings{g.kind: {RateLimit: 0.001}}
		c := g.startWithoutPoll(config)
		shared := &delta.InformOpts{Namespace: "shared"}
		g.inform(c, shared, names("r", 20)...)
		until(t, func() bool { return slow.Load() == 1 })
		for _, name := range names("s", 20) {
			_, err := c.Inform(t.Context(), serial{account{Name: name}}, shared)
			require.NoError(t, err)
		}
		for _, name := range names("s", 20) {
			g.eventually("serial", name, synced(1))
		}
		require.EqualValues(t, 1, slow.Load())
	})
}

func TestARateLimitThatBreaksTheRuleIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, rate := range []float64{-1, math.NaN(), math.Inf(1)} {
		config := h.config(with(&controller[account]{}))
		config.Namespaces = map[string]delta.NamespaceConfig{"slow": {MaxWorkers: 1, RateLimit: rate}}
		_, err := delta.NewClient(h.Pool, config)
		require.ErrorContains(t, err, `Config.Namespaces["slow"].RateLimit`)
		require.ErrorContains(t, err, "must be positive, or 0 for no limit")
	}
}
