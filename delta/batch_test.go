package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	querypb "go.temporal.io/api/query/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// bulk is a controller with a WorkBatch.
type bulk struct {
	controller[batched]
	batch func(ctx context.Context, all []*delta.Resource[batched]) []error
}

func (b *bulk) WorkBatch(ctx context.Context, all []*delta.Resource[batched]) []error {
	return b.batch(ctx, all)
}

func withBulk(b *bulk) func(*delta.Controllers) {
	return func(cs *delta.Controllers) { delta.AddController(cs, b) }
}

func manyBatched(names ...string) (all []delta.Object) {
	for _, name := range names {
		all = append(all, batched{account{Name: name}})
	}
	return all
}

func TestABatchWorkerGivesAResultForEach(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var mu sync.Mutex
	var sizes []int
	calls := map[string]int{} // by batch and namespace
	single := make(chan string, 10)
	c := h.start(h.config(withBulk(&bulk{
		controller: controller[batched]{work: func(_ context.Context, r *delta.Resource[batched]) error {
			single <- r.ObjectID
			return nil
		}},
		batch: func(_ context.Context, all []*delta.Resource[batched]) []error {
			mu.Lock()
			defer mu.Unlock()
			sizes = append(sizes, len(all))
			calls[all[0].WorkflowID+" "+all[0].Namespace]++
			results := make([]error, len(all))
			for i, r := range all {
				if r.Namespace != all[0].Namespace || r.WorkflowID != all[0].WorkflowID {
					t.Error("a call has one namespace, and is of one batch")
				}
				switch r.Object.Name {
				case "fails":
					results[i] = errors.New("not this one")
				case "gone":
					results[i] = delta.ResourceDelete(nil)
				case "degrades":
					results[i] = delta.ResourceDegrade(nil)
				}
			}
			return results
		},
	})))
	_, err := c.InformMany(t.Context(), manyBatched(append(names("ok", 47), "fails", "gone", "degrades")...), nil)
	require.NoError(t, err)
	_, err = c.InformMany(t.Context(), manyBatched(names("other", 10)...), &delta.InformOpts{Namespace: "other"})
	require.NoError(t, err)
	for _, name := range append(names("ok", 47), names("other", 10)...) {
		h.eventually("batched", name, synced(1))
	}
	row := h.eventually("batched", "fails", synced(1))
	require.Equal(t, "not this one", row.Errors[0].Error)
	require.Equal(t, "fails", <-single, "a failed member becomes a single")
	h.eventually("batched", "gone", inState(deltatype.ResourceStateDeleted))
	h.eventually("batched", "degrades", inState(deltatype.ResourceStateDegraded))
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, sizes, 50, "a set that fills a batch is one call")
	for call, times := range calls {
		require.Equal(t, 1, times, "a batch makes one call for each namespace: %s", call)
	}
}

func TestABatchWorkerThatPanicsOrMiscountsFailsThatCallOnly(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(withBulk(&bulk{batch: func(_ context.Context, all []*delta.Resource[batched]) []error {
		switch all[0].Namespace {
		case "panics":
			panic("at the disco")
		case "short":
			return make([]error, len(all)-1)
		case "none":
			return nil
		}
		return make([]error, len(all))
	}})))
	for _, namespace := range []string{"panics", "short", "none", "fine"} {
		_, err := c.InformMany(t.Context(), manyBatched(names(namespace, 5)...), &delta.InformOpts{Namespace: namespace})
		require.NoError(t, err)
	}
	for namespace, reason := range map[string]string{
		"panics": "panic: at the disco", "short": "WorkBatch was given 5 resources and returned 4 results", "none": "returned 0 results", "fine": "",
	} {
		for _, name := range names(namespace, 5) {
			row := h.eventually("batched", name, synced(1)) // Work, by itself, syncs it
			if reason == "" {
				require.Empty(t, row.Errors)
				continue
			}
			require.Contains(t, row.Errors[0].Error, reason)
			require.Equal(t, 2, row.Attempt)
		}
	}
}

// If a worker dies in a batch, members without a written result lose one attempt, and no others do.
func TestADeadWorkerCostsOnlyUnwrittenMembersOfItsBatch(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	// The first client's worker hangs on one member and then stops heartbeating. Its connection to the database is closed, so that nothing it does
	// later counts.
	var calls sync.Map
	release := make(chan struct{})
	defer close(release)
	var first atomic.Bool
	work := func(_ context.Context, r *delta.Resource[batched]) error {
		n, _ := calls.LoadOrStore(r.Object.Name, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		if r.Object.Name == "slow" && first.CompareAndSwap(false, true) {
			<-release
			return errors.New("of a dead worker")
		}
		return nil
	}
	c := h.start(h.config(with(&controller[batched]{work: work})))
	_, err := c.InformMany(t.Context(), manyBatched(append(names("ok", 30), "slow")...), nil)
	require.NoError(t, err)
	for _, name := range names("ok", 30) {
		h.eventually("batched", name, synced(1))
	}
	row := h.eventually("batched", "slow", inState(deltatype.ResourceStatePending))
	require.NotNil(t, row.ClaimedUntil)
	require.Contains(t, row.WorkflowID, ":batch/")

	// After a missed heartbeat, Temporal runs the activity again on another worker.
	installation := ""
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT id FROM delta_installation").Scan(&installation))
	again := c.ActivitiesOf(installation, "batched")
	var ids []int64
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT array_agg(id ORDER BY object_id) FROM delta_resource").Scan(&ids))
	batch := activities.Batch{Installation: installation, Kind: "batched", WorkflowID: row.WorkflowID, IDs: activities.PackNumbers(ids)}
	step, err := again.AttemptBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, 1, step.Claimed, "its claim is alive")
	h.loseClaims()
	step, err = again.AttemptBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, 1, step.Synced)
	row = h.eventually("batched", "slow", synced(1))
	require.Equal(t, 2, row.Attempt)
	require.Contains(t, row.Errors[0].Error, "the worker was lost")
	calls.Range(func(name, n any) bool {
		want := int64(1)
		if name == "slow" {
			want = 2
		}
		require.Equal(t, want, n.(*atomic.Int64).Load(), name)
		return true
	})
}

// loseClaims gives all claims to an execution that is dead.
func (h *harness) loseClaims() {
	h.t.Helper()
	_, err := h.Pool.Exec(h.t.Context(), "UPDATE delta_resource SET claim = gen_random_uuid(), claimed_until = now() WHERE claimed_until IS NOT NULL")
	require.NoError(h.t, err)
}

// Members that a stopping client has not begun lose no attempt.
func TestAStoppedClientReleasesTheMembersOfItsBatches(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	begun := make(chan struct{}, 100)
	work := func(ctx context.Context, _ *delta.Resource[batched]) error {
		begun <- struct{}{}
		<-activity.GetWorkerStopChannel(ctx)
		return ctx.Err()
	}
	c := h.client(h.config(with(&controller[batched]{work: work})))
	require.NoError(t, c.Start(context.Background()))
	_, err := c.InformMany(t.Context(), manyBatched(names("ok", 50)...), nil)
	require.NoError(t, err)
	<-begun
	require.NoError(t, c.Stop(context.Background()))
	require.LessOrEqual(t, len(begun)+1, 8, "it has called Work for no more than its Parallelism")

	h.start(h.config(with(&controller[batched]{})))
	for _, name := range names("ok", 50) {
		row := h.eventually("batched", name, synced(1))
		require.Empty(t, row.Errors)
		require.Equal(t, 1, row.Attempt)
	}
}

func TestBatchesAreShownAndKeepObjectIDsFromTemporalIfAsked(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[batched]{work: func(_ context.Context, r *delta.Resource[batched]) error {
		if r.Object.Name == "secretive" {
			return delta.ResourceDegrade(errors.New("secretive is no good"))
		}
		return nil
	}}))
	config.HashObjectIDs = true
	c := h.start(config)
	_, err := c.InformMany(t.Context(), manyBatched(append(names("ok", 20), "secretive")...), nil)
	require.NoError(t, err)
	row := h.eventually("batched", "ok00", synced(1))
	bad := h.eventually("batched", "secretive", func(r *deltatype.ResourceRow) bool {
		return r.State == deltatype.ResourceStateDegraded && r.WorkflowID == h.Prefix+"/batched/"+r.HashedID
	})
	var step activities.BatchStep
	until(t, func() bool {
		value, err := h.Temporal.QueryWorkflow(t.Context(), row.WorkflowID, "", "state")
		return err == nil && value.Get(&step) == nil && step.Resting > 0
	})
	require.Equal(t, []activities.BatchFailure{{ID: bad.HashedID}}, step.Failures)
	require.Equal(t, 20, step.Resting)
	require.Equal(t, 20, step.Synced)
	description, err := h.Temporal.WorkflowService().QueryWorkflow(t.Context(), &workflowservice.QueryWorkflowRequest{
		Namespace: h.TemporalNamespace,
		Execution: &commonpb.WorkflowExecution{WorkflowId: row.WorkflowID},
		Query:     &querypb.WorkflowQuery{QueryType: "__temporal_workflow_metadata"},
	})
	require.NoError(t, err)
	details := string(description.GetQueryResult().GetPayloads()[0].GetData())
	require.Contains(t, details, "Synced **20**, failed 0, degraded 1")
	require.Contains(t, details, bad.HashedID)
	for _, event := range h.history(row.WorkflowID) {
		require.NotContains(t, event.String(), "secretive")
	}
}

func TestALargeObjectIsNotPutInABatch(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[batched]{})))
	var large strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&large, "%x", i*7919%104729) // text that does not compress well
	}
	_, err := c.InformMany(t.Context(), append(manyBatched(names("ok", 5)...), batched{account{Name: "large", Plan: large.String()}}), nil)
	require.NoError(t, err)
	require.Contains(t, h.eventually("batched", "ok00", synced(1)).WorkflowID, ":batch/")
	require.Equal(t, h.Prefix+"/batched/large", h.eventually("batched", "large", synced(1)).WorkflowID)
}

// A batch whose members are not settled leaves no workflow running.
func TestABatchEndsWithItsLastMember(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[batched]{}))
	config.SyncedResourceRetentionPeriod = -1
	c := h.start(config)
	_, err := c.InformMany(t.Context(), manyBatched(names("ok", 20)...), nil)
	require.NoError(t, err)
	batches := map[string]bool{}
	for _, name := range names("ok", 20) {
		batches[h.eventually("batched", name, synced(1)).WorkflowID] = true
	}
	for id := range batches {
		h.awaitWorkflowEnd(id)
	}
	until(t, func() bool {
		count, err := h.Temporal.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{
			Namespace: h.TemporalNamespace,
			Query:     fmt.Sprintf("WorkflowId STARTS_WITH '%s/batched' AND ExecutionStatus = 'Running'", h.Prefix),
		})
		return err == nil && count.GetCount() == 0
	})
}

// Work that fails after its CompleteTx was committed has synced, and the event says so.
func TestABatchReportsASyncByCompleteTx(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[batched]{work: func(ctx context.Context, r *delta.Resource[batched]) error {
		return h.completeAndFail(ctx, r.CompleteTx)
	}})))
	events, cancel := c.Subscribe(delta.EventCategoryObjectSynced, delta.EventCategoryObjectFailed)
	defer cancel()
	_, err := c.InformMany(t.Context(), manyBatched(names("ok", 5)...), nil)
	require.NoError(t, err)
	for range 5 {
		require.Equal(t, delta.EventCategoryObjectSynced, (<-events).EventCategory)
	}
}
