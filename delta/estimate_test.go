package delta_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// A few matches are counted, even among many rows. For many, the planner estimates.
func TestAnEstimateCountsAFewAndAsksThePlannerOfMany(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	const rows = 60_000
	_, err := h.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, errors, due_at, dispatch_at)
		SELECT 'account', i::text, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END, (CASE WHEN i <= 7 THEN 'degraded' ELSE 'synced' END)::delta_resource_state, 10, '', '{}',
			CASE WHEN i <= 7 THEN ARRAY[jsonb_build_object('error', 'wrong ' || i)] ELSE '{}' END, now() - interval '1 hour' * (i % 3 - 1), now()
		FROM generate_series(1, $1) i`, rows)
	require.NoError(t, err)
	_, err = h.Pool.Exec(t.Context(), "ANALYZE delta_resource")
	require.NoError(t, err)
	estimate := func(filter delta.Filter) delta.Estimate {
		t.Helper()
		estimated, err := c.EstimateCount(t.Context(), filter)
		require.NoError(t, err)
		return estimated
	}
	degraded := []deltatype.ResourceState{deltatype.ResourceStateDegraded}
	require.Equal(t, delta.Estimate{Count: 7, IsExact: true}, estimate(delta.Filter{States: degraded}))
	require.Equal(t, delta.Estimate{Count: 1, IsExact: true}, estimate(delta.Filter{Error: "wrong 3"}))
	require.Equal(t, delta.Estimate{Count: 0, IsExact: true}, estimate(delta.Filter{Error: "right"}))
	require.Equal(t, delta.Estimate{Count: 2, IsExact: true}, estimate(delta.Filter{States: degraded, Late: true}))
	require.Equal(t, delta.Estimate{Count: 10_000, IsLowerBound: true}, estimate(delta.Filter{Late: true}))
	require.Equal(t, delta.Estimate{IsExact: true}, estimate(delta.Filter{Kinds: []string{}}))
	for name, of := range map[string]struct {
		filter delta.Filter
		about  int
	}{
		"all": {delta.Filter{}, rows}, "a kind": {delta.Filter{Kinds: []string{"account"}}, rows}, "a namespace": {delta.Filter{Namespaces: []string{"odd"}}, rows / 2},
	} {
		estimated := estimate(of.filter)
		require.False(t, estimated.IsExact, name)
		require.False(t, estimated.IsLowerBound, name)
		require.InEpsilon(t, of.about, estimated.Count, 0.3, name)
	}
	_, err = c.EstimateCount(t.Context(), delta.Filter{States: []deltatype.ResourceState{"no"}})
	require.ErrorAs(t, err, new(*delta.InputError))
}
