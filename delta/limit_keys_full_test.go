package delta_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// A key's slots go to resources whose namespaces have room. Those of a full one, of which many wait for the key, do not keep them.
func TestAFullNamespaceKeepsNoSlotOfAKey(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	mode := tenantModes()[0]
	begun, open := make(chan string, 100), make(chan struct{})
	config := h.config(mode.controller(func(ctx context.Context, r *deltatype.ResourceRow) error {
		if r.Namespace != "full" {
			return nil
		}
		begun <- r.ObjectID
		return waitFor(ctx, open)
	}))
	config.ResourceWorkTimeout = 10 * patience
	config.Namespaces = map[string]delta.NamespaceConfig{"full": {MaxWorkers: 1}}
	config.Kinds = map[string]delta.ObjectSettings{mode.kind: {HeartbeatTimeout: patience}}
	c := h.startWithoutPoll(config)
	var crowd []delta.Object
	for _, name := range names("crowd", 20) {
		crowd = append(crowd, mode.object(tenant{Name: name, Key: "shared"}))
	}
	_, err := c.InformMany(t.Context(), crowd, &delta.InformOpts{Namespace: "full"})
	require.NoError(t, err)
	got(t, begun)
	for _, name := range names("free", 5) {
		h.informKeyed(c, mode, "shared", name)
		h.eventually(mode.kind, name, synced(1))
	}
	require.Empty(t, begun, "MaxWorkers holds")
	close(open)
	for _, name := range names("crowd", 20) {
		h.eventually(mode.kind, name, synced(1))
	}
}
