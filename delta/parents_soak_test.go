package delta_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// A hundred thousand payments of two accounts wait for them, and are touched when both change: each is worked once, and an inform meanwhile does not
// wait for all of them.
func TestSoakOfAParentWithManyChildren(t *testing.T) {
	children := soak.Count(t, 3000, 100_000)
	t.Parallel()
	f := newFamily[batches](t)
	// The same rows as after a hundred informs of a thousand objects.
	f.exec(`INSERT INTO delta_resource (kind, object_id, namespace, max_attempts, hash, object, due_at, parents, awaited_parents, priority)
		SELECT 'payment', 'p' || n, 'default', 10, '\x00', jsonb_build_object('Name', 'p' || n, 'Of', jsonb_build_array(jsonb_build_object('Kind', 'account', 'ObjectID', a))), now(),
			ARRAY['account/' || a], ARRAY['account/' || a], 2 FROM generate_series(1, $1::integer / 2) m, unnest('{ann,bob}'::text[]) WITH ORDINALITY AS o (a, k), LATERAL (SELECT 2 * m + k AS n) x`, children)
	f.c = f.start(f.touchedConfig(f.payments(), f.accounts()))
	worked := func(generation int) {
		t.Helper()
		began := f.now()
		neighbour := payment[batches]{Name: "neighbour", Of: []delta.Ref{accountRef("cid")}, Plan: began.Format(time.RFC3339Nano)}
		f.inform(account{Name: "cid"})
		f.eventually("account", "cid", inState(deltatype.ResourceStateSynced))
		f.inform(account{Name: "ann", Plan: began.Format(time.RFC3339Nano)}, account{Name: "bob", Plan: began.Format(time.RFC3339Nano)})
		until(t, func() bool {
			return f.countRows(`SELECT count(*) FROM (SELECT FROM delta_resource WHERE kind = 'payment' AND object_id <> 'neighbour' AND attempted_at > $1 LIMIT 1) r`, began) == 1
		}, "the first of them is worked")
		f.inform(neighbour)
		for last := -1; ; { // patience applies to each part
			left := f.countRows(`SELECT count(*) FROM delta_resource WHERE kind = 'payment' AND object_id <> 'neighbour' AND (state <> 'synced' OR generation <> $1)`, generation)
			if left == 0 {
				break
			}
			require.NotEqual(t, last, left, "they are worked on")
			last = left
			until(t, func() bool {
				return f.countRows(`SELECT count(*) FROM delta_resource WHERE kind = 'payment' AND object_id <> 'neighbour' AND (state <> 'synced' OR generation <> $1)`, generation) < left
			})
		}
		row := f.eventually("payment", "neighbour", func(r *deltatype.ResourceRow) bool { return r != nil && r.State == deltatype.ResourceStateSynced })
		after := func(at time.Time) int {
			return f.countRows(`SELECT count(*) FROM delta_resource WHERE kind = 'payment' AND object_id <> 'neighbour' AND synced_at > $1`, at)
		}
		if n := after(row.GenerationAt); n > 20_000 { // so it did not wait for the others
			require.Positive(t, after(*row.SyncedAt), "it was synced after all %d remaining children", n)
		}
		f.awaitCalm()
		require.Equal(t, children, f.countRows(`SELECT count(*) FROM delta_resource WHERE kind = 'payment' AND object_id <> 'neighbour' AND generation = $1 AND sync_count = $1`, generation), "each once")
	}
	worked(1)
	worked(2)
}
