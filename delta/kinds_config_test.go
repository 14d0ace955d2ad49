package delta_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestSettingsOfAnEnvironmentGoOverThoseOfTheKind(t *testing.T) {
	inBothGears(t, func(t *testing.T, g gear) {
		var running, most atomic.Int64
		open := make(chan struct{})
		config := g.config(g.controller(func(ctx context.Context, _ job) error {
			most.Store(max(most.Load(), running.Add(1)))
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
			row := g.await(name, synced(1))
			require.Equal(t, g.kind == "batched", row.WorkflowID != g.Prefix+"/"+g.kind+"/"+name, "BatchSize is the kind's own still")
		}
		require.EqualValues(t, 2, most.Load())
	})
}

func TestTheRetryPolicyOfAnEnvironmentIsTakenFieldByField(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[tuned]{work: func(context.Context, *delta.Resource[tuned]) error { return context.Canceled }}))
	// The kind's own has 20 ms at first and 50 ms at most: an hour at first alone would be refused.
	config.Kinds = map[string]delta.ObjectSettings{"tuned": {RetryPolicy: delta.RetryPolicy{InitialInterval: time.Hour, MaximumInterval: 2 * time.Hour}}}
	c := h.start(config)
	_, err := c.Inform(t.Context(), tuned{account{Name: "a"}}, nil)
	require.NoError(t, err)
	row := h.eventually("tuned", "a", inState(deltatype.ResourceStateFailed))
	require.Greater(t, row.DueAt.Sub(*row.AttemptedAt), 50*time.Minute)
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
