package db_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// Encoding again reads the refused objects that it is about, of however many shards others are.
func TestEncodingRefusedObjectsReadsAPage(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const shards, each, few = 50, 400, 20
	fill := fmt.Sprintf(`
		INSERT INTO delta_refused (kind, shard, object_id, rule, object, resource_hash)
		SELECT 'thing', s::text, CASE WHEN i = 0 THEN '' ELSE lpad((s * %[2]d + i)::text, 6, '0') END, 'rule', '{}', '\x00' FROM generate_series(0, %[1]d - 1) s, generate_series(0, %[2]d - 1) i;
		INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state)
		SELECT 'thing', lpad((i * 7)::text, 6, '0'), '{}', '\x00', 'default', 10, 'failed' FROM generate_series(1, %[3]d) i;`, shards, each, few)
	for belief, made := range map[string]string{"analyzed": fill + "ANALYZE delta_refused, delta_resource", "never analyzed": fill} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(belief+", "+mode, func(t *testing.T) {
				t.Parallel()
				env := deltatest.New(t)
				_, err := env.Pool.Exec(t.Context(), "ALTER TABLE delta_refused SET (autovacuum_enabled = FALSE); ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE);"+made)
				require.NoError(t, err)
				tx, err := env.Pool.Begin(t.Context())
				require.NoError(t, err)
				defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
				_, err = tx.Exec(t.Context(), "SET LOCAL plan_cache_mode = "+mode)
				require.NoError(t, err)
				q := db.New()
				read := func(most int, do func(conn db.DBTX)) {
					t.Helper()
					counted := &countedReads{Tx: tx, of: []string{"delta_refused"}}
					do(counted)
					require.NoError(t, counted.err)
					require.Positive(t, counted.read.others)
					require.LessOrEqual(t, counted.read.others, most)
				}

				var rows []db.RefusedObjectsRow
				read(2*few, func(conn db.DBTX) {
					rows, err = q.RefusedObjects(t.Context(), db.Planned(conn, 200), db.RefusedObjectsParams{FromKind: "thing", FromShard: "7", Most: few})
				})
				require.NoError(t, err)
				require.Len(t, rows, few)
				require.Empty(t, rows[0].ObjectID, "an object can have been refused because it has no id")
				require.Equal(t, "002801", rows[1].ObjectID)

				read(4, func(conn db.DBTX) {
					written, err := q.ReencodeRefused(t.Context(), conn, db.ReencodeRefusedParams{
						Object: []byte("{1}"), Kind: "thing", Shard: "7", ObjectID: "002801", OldObject: []byte("{}"),
					})
					require.NoError(t, err)
					require.EqualValues(t, 1, written)
				})

				var p db.ReencodeObjectsParams
				require.NoError(t, tx.QueryRow(t.Context(), "SELECT array_agg(id) FROM delta_resource").Scan(&p.Ids))
				for range p.Ids {
					p.OldObjects, p.Objects = append(p.OldObjects, []byte("{}")), append(p.Objects, []byte(`{"delta.encoded": "AA=="}`))
					p.OldSyncedObjects, p.SyncedObjects, p.Hashes = append(p.OldSyncedObjects, ""), append(p.SyncedObjects, ""), append(p.Hashes, []byte{1})
				}
				read(4*few, func(conn db.DBTX) {
					written, err := q.ReencodeObjects(t.Context(), db.Planned(conn, 200), p)
					require.NoError(t, err)
					require.Len(t, written, few)
				})
				var taken int
				require.NoError(t, tx.QueryRow(t.Context(), `SELECT count(*) FROM delta_refused WHERE resource_hash = '\x01'`).Scan(&taken))
				require.Equal(t, few, taken)
			})
		}
	}
}
