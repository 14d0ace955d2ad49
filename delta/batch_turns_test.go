package delta_test

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// queued is a kind with more batches than slots for batches.
type queued struct{ account }

func (queued) Kind() string                   { return "queued" }
func (queued) Settings() delta.ObjectSettings { return batchSettings(25) }

const queuedMembers = 400

func newQueued(a account) queued { return queued{a} }

// workQueued notes each call. After hangsAfter calls, all calls in this process hang.
func workQueued(pool *pgxpool.Pool, hangsAfter int64) worker[queued] {
	var begun atomic.Int64
	return func(ctx context.Context, r *delta.Resource[queued]) error {
		if _, err := pool.Exec(ctx, "INSERT INTO calls VALUES ($1, $2)", r.ObjectID, os.Getpid()); err != nil {
			return err
		}
		if begun.Add(1) > hangsAfter {
			select {}
		}
		return nil
	}
}

func (h *harness) awaitQueued() {
	h.t.Helper()
	until(h.t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'synced' AND claimed_until IS NULL") == queuedMembers
	})
}

// A process dies while its calls of Work hang in some batches and other batches wait.
func TestAProcessKilledWithQueuedBatchesCostsOnlyItsClaims(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "CREATE TABLE calls (object_id text, pid integer)")
	require.NoError(t, err)
	kill := h.startChild("queued", "started")
	_, err = h.client(&delta.Config{}).InformMany(t.Context(), makeObjects(newQueued, names("member", queuedMembers)...), nil)
	require.NoError(t, err)
	const turns, parallelism = 4, 8
	claimed := func() int {
		return h.countRows("SELECT count(DISTINCT workflow_id) FROM delta_resource WHERE state = 'pending'")
	}
	until(t, func() bool { return claimed() > turns }, "waiting batches run in time")
	kill()
	h.awaitEnd()
	_, err = h.Pool.Exec(t.Context(), "CREATE TABLE killed AS SELECT object_id, state FROM delta_resource")
	require.NoError(t, err)
	t.Logf("killed with %d batches that had claimed members", claimed())
	h.loseClaims()

	h.start(withLongClaims(h.config(with(&controller[queued]{work: workQueued(h.Pool, queuedMembers*2)})), "queued"))
	h.awaitQueued()
	require.Zero(t, h.countRows(`SELECT count(*) FROM delta_resource r JOIN killed k USING (object_id)
		WHERE r.sync_count <> 1 OR r.attempt <> CASE WHEN k.state = 'pending' THEN 2 ELSE 1 END`))
}

// Connections that break while some batches run and others wait cost no resource and no slot.
func TestConnectionsThatBreakWhileBatchesWaitForTurnsCostNone(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "CREATE TABLE calls (object_id text, pid integer)")
	require.NoError(t, err)
	settings, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(t, err)
	broken := "broken-" + h.Schema
	settings.ConnConfig.RuntimeParams["application_name"] = broken
	pool, err := pgxpool.NewWithConfig(t.Context(), settings)
	require.NoError(t, err)
	defer pool.Close()
	var calls atomic.Int64
	c, err := delta.NewClient(pool, h.config(with(&controller[queued]{work: func(context.Context, *delta.Resource[queued]) error {
		calls.Add(1)
		time.Sleep(50 * time.Millisecond)
		return nil
	}})))
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // the test is over
	_, err = h.client(&delta.Config{}).InformMany(t.Context(), makeObjects(newQueued, names("member", queuedMembers)...), nil)
	require.NoError(t, err)
	until(t, func() bool { return calls.Load() > 0 })
	ended := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		ended += h.countRows("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1", broken)
	}
	require.Positive(t, ended)
	h.awaitQueued()
	require.Zero(t, h.countRows("SELECT count(*) FROM delta_resource WHERE sync_count <> 1"))
	t.Logf("%d connections were broken; %d members were tried again", ended, h.countRows("SELECT count(*) FROM delta_resource WHERE attempt > 1"))
}
