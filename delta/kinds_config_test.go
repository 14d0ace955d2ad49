package delta_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestConfigKindsOverrideTheSettingsOfTheKind(t *testing.T) {
	inEachMode(t, func(t *testing.T, g mode) {
		var running, most atomic.Int64
		open := make(chan struct{})
		config := g.config(g.controller(func(ctx context.Context, _ job) error {
			raiseTo(&most, running.Add(1))
			defer running.Add(-1)
			select {
			case <-open:
			case <-ctx.Done():
			}
			return ctx.Err()
		}))
		config.Kinds = map[string]delta.ObjectSettings{g.kind: {Parallelism: 2}}
		config.Namespaces = map[string]delta.NamespaceConfig{"default": {}} // no bound
		c := g.start(config)
		g.inform(c, nil, names("r", 20)...)
		until(t, func() bool { return running.Load() == 2 })
		close(open)
		for _, name := range names("r", 20) {
			row := g.awaitRow(name, synced(1))
			require.Equal(t, g.kind == "batched", row.WorkflowID != g.Prefix+"/"+g.kind+"/"+name, "BatchSize is the kind's own still")
		}
		require.EqualValues(t, 2, most.Load())
	})
}

// raiseTo sets a number to the larger of itself and n. Concurrent calls lose none.
func raiseTo(most *atomic.Int64, n int64) {
	for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
	}
}

func TestTheRetryPolicyOfAnEnvironmentIsTakenFieldByField(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[tuned]{work: func(_ context.Context, r *delta.Resource[tuned]) error {
		if r.Attempt < 3 {
			return errors.New("not yet")
		}
		return nil
	}}))
	config.Kinds = map[string]delta.ObjectSettings{"tuned": {RetryPolicy: delta.RetryPolicy{BackoffCoefficient: 100, MaximumInterval: time.Second}}}
	c := h.start(config)
	_, err := c.Inform(t.Context(), tuned{account{Name: "a"}}, nil)
	require.NoError(t, err)
	waits := h.timerDurations(h.eventually("tuned", "a", synced(1)).WorkflowID)
	// The kind sets 20 ms for the first interval, and Config.Kinds the growth.
	require.InDelta(t, 20, waits[0].Seconds()*1000, 3, "%s", waits)
	require.InDelta(t, 1000, waits[1].Seconds()*1000, 101, "%s", waits)
}

func TestKindsOfAConfigurationThatBreakARuleAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for want, kinds := range map[string]map[string]delta.ObjectSettings{
		`Config.Kinds["acount"] "acount": must be a kind that Config.Controllers has: there are ["account"]`: {"acount": {Parallelism: 2}},
		`Config.Kinds["account"].Parallelism 10001: must be between 1 and 10000`:                             {"account": {Parallelism: 10_001}},
		`Config.Kinds["account"].FullListingInterval 1h0m0s: must not be set together with CompleteListing`: {
			"account": {FullListingInterval: time.Hour, CompleteListing: true},
		},
	} {
		config := h.config(with(&controller[account]{}))
		config.Kinds = kinds
		_, err := delta.NewClient(h.Pool, config)
		require.ErrorContains(t, err, want)
	}
	_, err := delta.NewClient(h.Pool, &delta.Config{Kinds: map[string]delta.ObjectSettings{"account": {}}})
	require.ErrorContains(t, err, `must be a kind that Config.Controllers has: there are []`)
}
