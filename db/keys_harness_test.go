package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// keys are rows of a kind that limits limit keys.
type keys struct {
	*testing.T
	pool *pgxpool.Pool
}

func newKeys(t *testing.T, concurrency int, rate float64) keys {
	t.Helper()
	k := keys{t, deltatest.New(t).Pool}
	k.setLimits(concurrency, rate)
	return k
}

func (k keys) exec(sql string, args ...any) {
	k.Helper()
	_, err := k.pool.Exec(k.Context(), sql, args...)
	require.NoError(k, err)
}

func (k keys) count(sql string, args ...any) (n int) {
	k.Helper()
	require.NoError(k, k.pool.QueryRow(context.Background(), "SELECT count(*) FROM delta_resource WHERE "+sql, args...).Scan(&n))
	return n
}

func (k keys) setLimits(concurrency int, rate float64) {
	k.Helper()
	k.exec(`INSERT INTO delta_controller (name, inform_interval, key_concurrency, key_rate) VALUES ('thing', '0', $1, $2)
		ON CONFLICT (name) DO UPDATE SET key_concurrency = excluded.key_concurrency, key_rate = excluded.key_rate`, concurrency, rate)
}

// due makes rows of a key that are due; no key is none.
func (k keys) addDue(key string, n int) (ids []int64) {
	k.Helper()
	rows, err := k.pool.Query(k.Context(), `INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, due_at, dispatch_at, limit_key)
		SELECT 'thing', $1 || '/' || gen_random_uuid(), '{}', '\x00', 'default', 5, now() - interval '1 minute' + i * interval '1 microsecond', now() - interval '1 s',
			nullif($1, '') FROM generate_series(1, $2) i RETURNING id`, key, n)
	require.NoError(k, err)
	defer rows.Close()
	for rows.Next() {
		var id int64
		require.NoError(k, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(k, rows.Err())
	return ids
}

// takeSlots gives rows slots, and returns how many wait for one.
func (k keys) takeSlots(ids []int64, begins bool) (waiting int) {
	k.Helper()
	for _, row := range k.takeRows(ids, begins) {
		if row.Queued {
			waiting++
		}
	}
	return waiting
}

func (k keys) takeRows(ids []int64, begins bool) []db.TakeSlotsRow {
	k.Helper()
	rows, err := db.New().TakeSlots(k.Context(), k.pool, db.TakeSlotsParams{Kind: "thing", Ids: ids, Begins: begins, Lease: time.Minute})
	require.NoError(k, err)
	return rows
}

func (k keys) claim(claim string, ids []int64) []db.ClaimResourcesRow {
	k.Helper()
	p := claimParams(claim, "", ids)
	p.Keyed = true
	rows, err := db.New().ClaimResources(k.Context(), k.pool, p)
	require.NoError(k, err)
	return rows
}

func (k keys) sync(claim string, rows []db.ClaimResourcesRow) {
	k.Helper()
	written, err := db.New().WriteOutcomes(k.Context(), k.pool, outcomeParams(claim, deltatype.ResourceStateSynced, rows))
	require.NoError(k, err)
	require.Len(k, written, len(rows))
}

func (k keys) wakeKeys(named ...string) (woken int64) {
	k.Helper()
	woken, err := db.New().WakeKeys(k.Context(), k.pool, db.WakeKeysParams{Kind: "thing", Keys: named})
	require.NoError(k, err)
	return woken
}

// wakeAt makes keys due to be looked at.
func (k keys) wakeAt() {
	k.Helper()
	k.exec(`UPDATE delta_key SET wake_at = now() WHERE limit_key IN (SELECT limit_key FROM delta_key WHERE wake_at IS NOT NULL FOR UPDATE SKIP LOCKED)`)
}

const queued = "queued_at IS NOT NULL AND dispatch_at IS NULL"
