package delta_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// Databases that were copied before any client had started, such as from a template, have the same id and no note of where they were. They must not share
// the workflows of one prefix.
func TestCopiesOfATemplateAreToldApart(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	all := []*harness{newHarness(t), newHarness(t)}
	var id string
	require.NoError(t, all[0].Pool.QueryRow(t.Context(), "SELECT id FROM delta_installation").Scan(&id))
	all[1].exec("UPDATE delta_installation SET id = $1", id)
	all[1].Prefix = all[0].Prefix
	clients := make([]*delta.Client, len(all))
	errs := make([]error, len(all))
	var starts sync.WaitGroup
	for i, h := range all {
		clients[i] = h.client(h.config(with(&controller[account]{})))
		starts.Go(func() { errs[i] = clients[i].Start(t.Context()) })
	}
	starts.Wait()
	first := 0
	if errs[0] != nil {
		first = 1
	}
	h, beside := all[first], all[1-first]
	require.NoError(t, errs[first])
	require.ErrorIs(t, errs[1-first], delta.ErrRestoredDatabase)
	require.ErrorContains(t, errs[1-first], "delta restored separate")
	_, err := clients[first].Inform(t.Context(), account{Name: "a"}, nil)
	require.NoError(t, err)
	h.eventually("account", "a", synced(1))
	require.NoError(t, clients[first].Stop(t.Context()))

	// The other one takes its place, and what was the first is the copy.
	config := beside.config(with(&controller[account]{}))
	beside.exec("UPDATE delta_installation SET place = delta_place()") // an adopting process died before it wrote to Temporal
	beside.requireRestored(config)
	require.NoError(t, beside.client(config).AdoptRestored(t.Context()))
	c := beside.start(config)
	h.requireRestored(h.config(with(&controller[account]{})))
	require.NoError(t, c.Stop(t.Context()))

	require.NoError(t, h.client(h.config()).SeparateCopy(t.Context()))
	own := h.config(with(&controller[account]{}))
	own.WorkflowIDPrefix += "-own"
	h.start(own)
}
