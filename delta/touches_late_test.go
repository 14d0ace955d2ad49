package delta_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// Pending touches are a metric, and a finding of the doctor if they wait for long.
func TestTouchesThatNoClientMakesAreSeen(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	h.exec(`INSERT INTO delta_controller (name, inform_interval) VALUES ('account', '1 hour'), ('payment', '1 hour')`)
	h.exec(`INSERT INTO delta_touch (kind, parent, changed_at) VALUES ('payment', 'account/ann', now() - interval '10 minutes'), ('payment', 'account/bob', now())`)
	require.NotContains(t, checksByName(c.Doctor(t.Context())), "touches payment", "they may be on their way")
	h.exec(`UPDATE delta_touch SET changed_at = now() - interval '20 minutes' WHERE parent = 'account/ann'`)
	found := checksByName(c.Doctor(t.Context()))
	require.NotContains(t, found, "touches account")
	require.Equal(t, delta.CheckWarning, found["touches payment"].State)
	require.Equal(t, "the children of 2 parents are still to be touched, the first changed 20m ago", found["touches payment"].Detail)
	require.Contains(t, found["touches payment"].Remedy, "the controller of payment")
	var text bytes.Buffer
	require.NoError(t, c.WriteMetrics(t.Context(), &text))
	require.Contains(t, text.String(), "delta_touches{kind=\"payment\"} 2\n")
	require.Regexp(t, `delta_touches_age_seconds\{kind="payment"\} 12\d\d`, text.String())
	require.NotContains(t, text.String(), `delta_touches{kind="account"`)
}
