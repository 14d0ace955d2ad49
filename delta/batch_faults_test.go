package delta_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// herd is a kind of large batches.
type herd struct{ account }

func (herd) Kind() string { return "herd" }
func (herd) Settings() delta.ObjectSettings {
	s := batchSettings(1000)
	s.BatchWait = 200 * time.Millisecond
	s.HeartbeatTimeout = longClaim // loseClaims ends claims of processes that were killed
	return s
}

// workHerd notes each call, and hangs for those objects that hang in this process.
func workHerd(pool *pgxpool.Pool, hangs bool) worker[herd] {
	return func(ctx context.Context, r *delta.Resource[herd]) error {
		if _, err := pool.Exec(ctx, "INSERT INTO calls SELECT $1, $2 FROM pg_sleep(0.002)", r.ObjectID, os.Getpid()); err != nil {
			return err
		}
		if hangs && strings.HasPrefix(r.ObjectID, "z-hangs") {
			select {}
		}
		return nil
	}
}

// makeObjects returns objects of a kind with the names.
func makeObjects[T delta.Object](make func(account) T, names ...string) (all []delta.Object) {
	for _, name := range names {
		all = append(all, make(account{Name: name}))
	}
	return all
}

func (h *harness) countRows(query string, args ...any) (n int) {
	h.t.Helper()
	require.NoError(h.t, h.Pool.QueryRow(context.Background(), query, args...).Scan(&n))
	return n
}

// If a worker process is killed in a batch, only the members without a written result lose an attempt.
func TestAKilledProcessCostsOnlyUnwrittenMembersOfItsBatch(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const resources = 600
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "CREATE TABLE calls (object_id text, pid integer)")
	require.NoError(t, err)
	var objects []string
	for i := range resources - 3 {
		objects = append(objects, fmt.Sprintf("ok%03d", i))
	}
	// Members that hang keep the batch open until the process is killed.
	objects = append(objects, "z-hangs1", "z-hangs2", "z-hangs3")
	kill := h.startChild("herd", "started")
	_, err = h.client(&delta.Config{}).InformMany(t.Context(), makeObjects(func(a account) herd { return herd{a} }, objects...), nil)
	require.NoError(t, err)
	when := rand.IntN(resources - 50)
	until(t, func() bool {
		return h.countRows("SELECT count(*) FROM calls") > when && h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'synced'") > 0
	})
	kill()
	h.awaitEnd()
	written := h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'synced'")
	pending := h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'pending'")
	begun := h.countRows("SELECT count(*) FROM calls")
	_, err = h.Pool.Exec(t.Context(), "CREATE TABLE killed AS SELECT object_id, state, attempt FROM delta_resource")
	require.NoError(t, err)
	require.Positive(t, pending)
	h.loseClaims()

	h.start(h.config(with(&controller[herd]{work: workHerd(h.Pool, false)})))
	until(t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'synced'") == resources
	})
	calls := h.countRows("SELECT count(*) FROM calls")
	t.Logf("killed after %d calls: %d results were written, %d members were claimed; %d calls of Work beyond one a resource",
		begun, written, pending, calls-resources)
	require.Equal(t, resources, h.countRows("SELECT count(DISTINCT object_id) FROM calls"), "no member was left out")
	require.Equal(t, begun-written, calls-resources, "only members without a written result are called again, once")
	require.Zero(t, h.countRows(`SELECT count(*) FROM delta_resource r JOIN killed k USING (object_id)
		WHERE r.generation <> 1 OR r.sync_count <> 1 OR r.claimed_until IS NOT NULL
		OR r.attempt <> CASE WHEN k.state = 'pending' THEN 2 ELSE 1 END
		OR cardinality(r.errors) <> CASE WHEN k.state = 'pending' THEN 1 ELSE 0 END`), "only the lost attempts count")
}

// After a wipe of Temporal, batches are rebuilt from the rows like singles: running, settled and due ones.
func TestBatchesOfAWipedTemporalAreRebuiltFromTheRows(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const kind = "brief-batched" // the attempts that are lost with Temporal are claimed for seconds only
	all := func(names ...string) []delta.Object {
		return makeObjects(func(a account) briefBatched { return briefBatched{a} }, names...)
	}
	h := newHarness(t)
	server := startTemporal(t)
	temporal := server.dial()

	var wiped atomic.Bool
	running := make(chan struct{}, 1000)
	config := h.config(with(&controller[briefBatched]{work: func(ctx context.Context, r *delta.Resource[briefBatched]) error {
		if strings.HasPrefix(r.ObjectID, "runs") && !wiped.Load() {
			running <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}))
	config.Temporal, config.TemporalNamespace = temporal, ""
	config.ResourceWorkTimeout = 5 * time.Second // the end of Temporal does not end what runs
	config.MaintenanceJobInterval = 200 * time.Millisecond
	config.Namespaces = map[string]delta.NamespaceConfig{
		"default": {MaxWorkers: 100}, "brief": {MaxWorkers: 100, ResourceExpiry: 10 * time.Second},
	}
	c := h.start(config)
	rests, expires, runs := names("rests", 120), names("expires", 20), names("runs", 50)
	_, err := c.InformMany(t.Context(), all(rests...), nil)
	require.NoError(t, err)
	_, err = c.InformMany(t.Context(), all(expires...), &delta.InformOpts{Namespace: "brief"})
	require.NoError(t, err)
	for _, name := range rests {
		h.eventually(kind, name, synced(1))
	}
	for _, name := range expires {
		h.eventually(kind, name, func(r *deltatype.ResourceRow) bool { return r.SyncCount > 0 }) // it may have expired by now
	}
	_, err = c.InformMany(t.Context(), all(runs...), nil)
	require.NoError(t, err)
	<-running

	server.end()
	wiped.Store(true)
	_, err = c.InformMany(t.Context(), all(names("due", 20)...), nil)
	require.NoError(t, err, "informing needs no Temporal")
	again := h.now()
	server.again()

	for _, name := range append(runs, names("due", 20)...) {
		h.eventually(kind, name, synced(1))
	}
	for _, name := range expires {
		h.eventually(kind, name, func(r *deltatype.ResourceRow) bool { return r.SyncCount >= 2 && r.SyncedAt.After(again) })
	}
	for _, name := range rests {
		require.EqualValues(t, 1, h.row(kind, name).SyncCount, "resources that are not due are not synced")
	}
	h.awaitOwners(temporal, kind, rests)
	until(t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE namespace = 'default' AND state = 'synced' AND dispatch_at < due_at") == 0
	}, "settled resources are not dispatched before they are due")
}

// awaitOwners waits until each settled resource of a batch is a member of exactly one running batch.
func (h *harness) awaitOwners(temporal client.Client, kind string, names []string) {
	h.t.Helper()
	until(h.t, func() bool {
		owned := map[string]int{}
		for _, name := range names {
			owned[h.row(kind, name).WorkflowID]++
		}
		for id, members := range owned {
			var step activities.BatchStep
			value, err := temporal.QueryWorkflow(h.t.Context(), id, "", "state")
			if err != nil || value.Get(&step) != nil || step.Resting < members {
				return false
			}
		}
		return true
	})
}

// Members that were lost twice in the same batch, as by Work that kills its process, get their own workflows.
func TestMembersThatKeepLosingTheirWorkerLeaveTheirBatch(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "CREATE TABLE calls (object_id text, pid integer)")
	require.NoError(t, err)
	kill := h.startChild("herd", "started")
	objects := append(names("ok", 20), "z-hangs")
	_, err = h.client(&delta.Config{}).InformMany(t.Context(), makeObjects(func(a account) herd { return herd{a} }, objects...), nil)
	require.NoError(t, err)
	called := func(times int) {
		until(t, func() bool {
			return h.countRows("SELECT count(*) FROM calls WHERE object_id = 'z-hangs'") == times
		})
	}
	called(1)
	kill()
	h.awaitEnd()
	h.loseClaims()
	kill = h.startChild("herd", "started")
	called(2)
	require.Contains(t, h.row("herd", "z-hangs").WorkflowID, ":batch/", "one death of a worker makes no singles")
	kill()
	h.awaitEnd()
	h.loseClaims()

	h.start(h.config(with(&controller[herd]{work: workHerd(h.Pool, false)})))
	row := h.eventually("herd", "z-hangs", synced(1))
	require.Equal(t, h.Prefix+"/herd/z-hangs", row.WorkflowID)
	require.Equal(t, 3, row.Attempt)
	require.Len(t, row.Errors, 2)
	for _, e := range row.Errors {
		require.Contains(t, e.Error, "the worker was lost")
	}
	for _, name := range names("ok", 20) {
		h.eventually("herd", name, synced(1))
	}
}

// A call of WorkBatch that times out fails as a whole: its members get their own workflows, and no other call is delayed.
func TestABatchWorkerThatIsTooSlowFailsThatCallOnly(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	stuck := make(chan struct{})
	release := sync.OnceFunc(func() { close(stuck) })
	defer release()
	config := h.config(withBulk(&bulk{
		controller: controller[batched]{timeout: 300 * time.Millisecond},
		batch: func(ctx context.Context, all []*delta.Resource[batched]) []error {
			switch all[0].Namespace {
			case "slow":
				<-ctx.Done()
				return make([]error, len(all)) // done all the same
			case "late":
				<-ctx.Done()
				results := make([]error, len(all))
				for i := range results {
					results[i] = ctx.Err()
				}
				return results
			case "stuck":
				<-stuck
			}
			return make([]error, len(all))
		},
	}))
	c := h.client(config)
	// A busy machine may take this long to run calls whose context has ended. Only calls that hang are abandoned.
	c.SetTiming(0, 0, 3*time.Second)
	require.NoError(t, c.Start(context.Background()))
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Stop(ctx)
	}()
	reasons := map[string]string{"slow": "", "late": "timed out after 300ms", "stuck": "WorkBatch did not return within", "fine": ""}
	for namespace := range reasons {
		_, err := c.InformMany(t.Context(), manyBatched(names(namespace, 5)...), &delta.InformOpts{Namespace: namespace})
		require.NoError(t, err)
	}
	for _, name := range names("stuck", 5) {
		row := h.eventually("batched", name, inState(deltatype.ResourceStateFailed))
		require.NotNil(t, row.ClaimedUntil, "no other call begins before this one returns")
	}
	release()
	for namespace, reason := range reasons {
		for _, name := range names(namespace, 5) {
			row := h.eventually("batched", name, synced(1))
			if reason == "" {
				require.Empty(t, row.Errors)
				require.Equal(t, 1, row.Attempt)
				continue
			}
			require.Contains(t, row.Errors[0].Error, reason)
			require.Equal(t, 2, row.Attempt)
		}
	}
}

// If the batch of a member with a claimed last attempt is gone from Temporal, the member's own workflow records the outcome.
func TestAMemberLostInItsLastAttemptWithItsBatchIsDegraded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(&delta.Config{}).InformMany(t.Context(), manyBatched(names("ok", 5)...), &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	h.leaseBatch("batched", time.Hour)
	// The batch claimed it a quarter of an hour ago.
	_, err = h.Pool.Exec(t.Context(), `UPDATE delta_resource SET state = 'pending', attempt = 1, attempted_at = now(), due_at = NULL,
		dispatch_at = now(), claimed_until = now()`)
	require.NoError(t, err)
	h.start(h.config(with(&controller[batched]{})))
	for _, name := range names("ok", 5) {
		h.eventually("batched", name, inState(deltatype.ResourceStateDegraded))
	}
}
