package delta_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// workersTogether leaves slots of the keys to the other processes: calls of workTogether wait for these while holding theirs.
var workersTogether = map[string]delta.NamespaceConfig{"default": {MaxWorkers: 2}}

// workTogether notes the process and waits for a call of another one, because a quick process might do all the work.
func workTogether(ctx context.Context, pool *pgxpool.Pool, id string) error {
	if err := notePID(ctx, pool, id); err != nil {
		return err
	}
	for {
		var several bool
		if err := pool.QueryRow(ctx, "SELECT count(DISTINCT pid) > 1 FROM calls").Scan(&several); err != nil || several {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// clientTogether returns a client that is not started, for a test whose children have the mode "together".
func (h *harness) clientTogether(mode tenantMode) *delta.Client {
	h.t.Helper()
	h.exec("CREATE TABLE calls (id text, pid integer)")
	config := h.config(mode.controller(func(ctx context.Context, r *deltatype.ResourceRow) error {
		return workTogether(ctx, h.Pool, r.ObjectID)
	}))
	config.Namespaces = workersTogether
	return h.client(config)
}

// Three processes take slots of a few keys, and one dies with its slots. The oracle counts living claims in the database.
func TestProcessesTogetherKeepToTheConcurrencyOfAKey(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	mode := tenantModes()[0]
	c := h.clientTogether(mode)
	dies := h.startChild("together", "started")
	h.startChild("together", "started")
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	most := h.watchKeys(mode.kind)
	all := names("short", 120)
	var objects []delta.Object
	for i, name := range all {
		objects = append(objects, mode.object(tenant{Name: name, Key: fmt.Sprint("key", i%3)}))
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	until(t, func() bool { return h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'synced'") >= 20 })
	dies()
	for _, name := range all {
		h.eventually(mode.kind, name, synced(1))
	}
	require.Greater(t, h.countRows("SELECT count(DISTINCT pid) FROM calls"), 1, "several processes have called Work")
	require.LessOrEqual(t, most(), keySlots)
	require.Zero(t, h.countRows("SELECT count(*) FROM delta_resource WHERE slot_key IS NOT NULL"))
}

func TestAKilledClientFreesItsKeys(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	mode := tenantModes()[0]
	idle := mode.controller(func(context.Context, *deltatype.ResourceRow) error { return nil })
	c := h.client(h.config(idle))
	var objects []delta.Object
	for _, name := range names("a", keySlots+4) {
		objects = append(objects, mode.object(tenant{Name: name, Key: "key"}))
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	kill := h.startChild("keys", "holding")
	h.eventually(mode.kind, "a00", inState(deltatype.ResourceStatePending))
	kill()
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	for _, name := range names("a", keySlots+4) {
		h.eventually(mode.kind, name, synced(1))
	}
}
