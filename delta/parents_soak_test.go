package delta_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// A hundred thousand payments of one account wait for it, and are touched when it changes: each is worked once, and what is informed meanwhile does not come
// after all of them.
func TestSoakOfAParentWithManyChildren(t *testing.T) {
	children := soak.Count(t, 3000, 100_000)
	t.Parallel()
	f := newFamily[batches](t)
	// As a hundred informs of a thousand would have left them.
	f.exec(`INSERT INTO delta_resource (kind, object_id, namespace, max_attempts, hash, object, due_at, parents, awaited_parents, priority)
		SELECT 'payment', 'p' || n, 'default', 10, '\x00', jsonb_build_object('Name', 'p' || n, 'Of', '[{"Kind": "account", "ID": "ann"}]'::jsonb), now(),
			'{account/ann}', '{account/ann}', 2 FROM generate_series(1, $1) n`, children)
	f.c = f.start(f.touchedConfig(f.payments(), f.accounts()))
	worked := func(generation int) {
		t.Helper()
		began := f.now()
		neighbour := payment[batches]{Name: "neighbour", Of: []delta.Ref{accountRef("bob")}, Plan: began.Format(time.RFC3339Nano)}
		f.inform(account{Name: "bob"})
		f.eventually("account", "bob", inState(deltatype.ResourceStateSynced))
		f.inform(account{Name: "ann", Plan: began.Format(time.RFC3339Nano)})
		until(t, func() bool {
			return f.count(`SELECT count(*) FROM (SELECT FROM delta_resource WHERE kind = 'payment' AND parents = '{account/ann}' AND attempted_at > $1 LIMIT 1) r`, began) == 1
		}, "the first of them is worked")
		f.inform(neighbour)
		for last := -1; ; { // the patience is for a part of them
			left := f.count(`SELECT count(*) FROM delta_resource WHERE kind = 'payment' AND parents = '{account/ann}' AND (state <> 'synced' OR generation <> $1)`, generation)
			if left == 0 {
				break
			}
			require.NotEqual(t, last, left, "they are worked on")
			last = left
			until(t, func() bool {
				return f.count(`SELECT count(*) FROM delta_resource WHERE kind = 'payment' AND parents = '{account/ann}' AND (state <> 'synced' OR generation <> $1)`, generation) < left
			})
		}
		row := f.eventually("payment", "neighbour", func(r *deltatype.ResourceRow) bool { return r != nil && r.State == deltatype.ResourceStateSynced })
		after := func(at time.Time) int {
			return f.count(`SELECT count(*) FROM delta_resource WHERE parents = '{account/ann}' AND synced_at > $1`, at)
		}
		if n := after(row.GenerationAt); n > 20_000 { // there was much left when it was informed
			require.Positive(t, after(*row.SyncedAt), "it came after all %d that were left", n)
		}
		f.calmed()
		require.Equal(t, children, f.count(`SELECT count(*) FROM delta_resource WHERE parents = '{account/ann}' AND generation = $1 AND sync_count = $1`, generation), "each once")
	}
	worked(1)
	worked(2)
}
