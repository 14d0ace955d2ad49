package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// sized and bulky are the same kind, before and after a change of its BatchSize.
type sized struct{ account }

func (sized) Kind() string                   { return "sized" }
func (sized) Settings() delta.ObjectSettings { return sizedSettings(1) }

type bulky struct{ account }

func (bulky) Kind() string                   { return "sized" }
func (bulky) Settings() delta.ObjectSettings { return sizedSettings(100) }

// sizedSettings bound the backoff: on a slow machine many attempts fail early in the test, and later ones would wait for minutes.
func sizedSettings(size int) delta.ObjectSettings {
	s := batchSettings(size)
	s.RetryPolicy.MaximumInterval = 2 * time.Second
	return s
}

// withSize is a controller of that kind.
func withSize(batches bool, work func(ctx context.Context, row *deltatype.ResourceRow) error) func(*delta.Controllers) {
	if batches {
		return with(&controller[bulky]{work: func(ctx context.Context, r *delta.Resource[bulky]) error { return work(ctx, r.ResourceRow) }})
	}
	return with(&controller[sized]{work: func(ctx context.Context, r *delta.Resource[sized]) error { return work(ctx, r.ResourceRow) }})
}

// Resources in any state survive a change of their kind's BatchSize, on all clients at once or client by client.
func TestABatchSizeCanBeChanged(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, c := range []struct {
		name           string
		batches, rolls bool
	}{{"to batches", true, false}, {"to one each", false, false}, {"to batches while it runs", true, true}, {"to one each while it runs", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testChangedBatchSize(t, newHarness(t), c.batches, c.rolls)
		})
	}
}

func testChangedBatchSize(t *testing.T, h *harness, batches, rolls bool) {
	const members = 4 // in each state
	var changed atomic.Bool
	running := make(chan struct{}, 100)
	work := func(ctx context.Context, r *deltatype.ResourceRow) error {
		switch name := strings.TrimRight(r.ObjectID, "0123456789"); {
		case name == "degraded":
			return delta.ResourceDegrade(errors.New("closed"))
		case name == "gone":
			return delta.ResourceDelete(nil)
		case changed.Load():
		case name == "fails":
			return errors.New("not yet")
		case name == "snoozes":
			return delta.ResourceSnooze(2 * time.Second)
		case name == "runs":
			running <- struct{}{}
			for !changed.Load() && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			return ctx.Err()
		}
		return nil
	}
	configured := func(batches bool) *delta.Config {
		config := h.config(withSize(batches, work))
		config.Namespaces = map[string]delta.NamespaceConfig{
			"default": {MaxWorkers: 100},
			"brief":   {MaxWorkers: 100, ResourceExpiry: 1500 * time.Millisecond},
			"short":   {MaxWorkers: 100, SyncedResourceRetentionPeriod: 4 * time.Second},
		}
		return config
	}
	inform := func(c *delta.Client, namespace, name string) {
		_, err := c.InformMany(t.Context(), makeObjects(func(a account) sized { return sized{a} }, names(name, members)...), &delta.InformOpts{Namespace: namespace, MaxAttempts: 1000})
		require.NoError(t, err)
	}
	each := func(name string, is func(*deltatype.ResourceRow) bool) {
		t.Helper()
		for _, id := range names(name, members) {
			h.eventually("sized", id, is)
		}
	}

	before := h.client(configured(!batches))
	before.SetTiming(0, 200*time.Millisecond, 0)
	require.NoError(t, before.Start(context.Background()))
	for _, name := range []string{"rests", "fails", "snoozes", "degraded", "gone"} {
		inform(before, "default", name)
	}
	inform(before, "brief", "brief")
	inform(before, "short", "short")
	for name, is := range map[string]func(*deltatype.ResourceRow) bool{
		"rests": synced(1), "degraded": inState(deltatype.ResourceStateDegraded),
		"gone":    inState(deltatype.ResourceStateDeleted),
		"short":   func(r *deltatype.ResourceRow) bool { return r == nil || r.SyncCount > 0 }, // the snooze may have ended
		"brief":   func(r *deltatype.ResourceRow) bool { return r.SyncCount > 0 },
		"fails":   func(r *deltatype.ResourceRow) bool { return r.Attempt > 1 },
		"snoozes": func(r *deltatype.ResourceRow) bool { return r.Snoozes > 0 },
	} {
		each(name, is)
	}
	inform(before, "default", "runs")
	<-running

	stop := func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel() // it does not wait for Work
		_ = before.Stop(ended)
	}
	if !rolls {
		stop()
	}
	inform(before, "default", "waits")
	after := h.client(configured(batches))
	after.SetTiming(0, 200*time.Millisecond, 0)
	require.NoError(t, after.Start(context.Background()))
	defer after.Stop(context.Background()) //nolint:errcheck // the test is over
	at := h.now()
	changed.Store(true)
	if rolls {
		each("waits", synced(1))
		stop()
	}

	for _, name := range []string{"waits", "runs", "fails", "snoozes"} {
		each(name, synced(1))
	}
	each("short", isGone)
	each("brief", func(r *deltatype.ResourceRow) bool {
		// Expired resources are dispatched by the new setting.
		return r.SyncCount > 2 && r.AttemptedAt.After(at.Add(2*time.Second)) && strings.Contains(r.WorkflowID, ":batch/") == batches
	})
	each("rests", func(r *deltatype.ResourceRow) bool { return r.SyncCount == 1 && r.Generation == 1 })
	each("degraded", inState(deltatype.ResourceStateDegraded))
	each("gone", inState(deltatype.ResourceStateDeleted))
	h.becomesAttendedOnce("sized")

	// A wake-up does not move a member from its batch to another workflow.
	own := h.Prefix + "/sized/rests03"
	started, err := h.Temporal.SignalWithStartWorkflow(t.Context(), own, workflows.WakeSignal, nil,
		client.StartWorkflowOptions{ID: own, TaskQueue: h.Prefix + "/sized"}, workflows.ResourceName,
		map[string]any{"kind": "sized", "object_id": "rests03"})
	require.NoError(t, err)
	if strings.Contains(h.row("sized", "rests03").WorkflowID, ":batch/") {
		require.NoError(t, h.Temporal.GetWorkflow(t.Context(), own, started.GetRunID()).Get(t.Context(), nil))
	}
	h.becomesAttendedOnce("sized")

	// And they take commands as ever.
	for _, name := range []string{"rests00", "fails00"} {
		_, err := after.Invalidate(t.Context(), sized{account{Name: name}})
		require.NoError(t, err)
		row := h.eventually("sized", name, synced(2))
		require.Equal(t, batches, strings.Contains(row.WorkflowID, ":batch/"), row.WorkflowID)
	}
}

// becomesAttendedOnce waits until attendedOnce finds no fault.
func (h *harness) becomesAttendedOnce(kind string) {
	h.t.Helper()
	var wrong string
	until(h.t, func() bool { wrong = h.attendedOnce(kind); return wrong == "" }, "%s", shown[string]{&wrong})
}

// attendedOnce checks that each settled resource of a kind is attended by the running workflow that its row names, and by no other, and returns a
// description of the fault. It asks the workflows themselves, because Temporal's list of them lags.
func (h *harness) attendedOnce(kind string) string {
	h.t.Helper()
	rows, err := h.Pool.Query(h.t.Context(), `SELECT object_id, workflow_id FROM delta_resource
		WHERE kind = $1 AND namespace = 'default' AND state IN ('synced', 'degraded', 'deleted')`, kind)
	require.NoError(h.t, err)
	named := map[string]string{}
	var id, workflowID string
	_, err = pgx.ForEachRow(rows, []any{&id, &workflowID}, func() error {
		named[id] = workflowID
		return nil
	})
	require.NoError(h.t, err)
	attends := map[string]int{} // how many each does
	ask := func(id string) error {
		if _, asked := attends[id]; asked {
			return nil
		}
		attends[id] = 0
		found, err := h.Temporal.DescribeWorkflow(h.t.Context(), id, "")
		if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
			return nil
		}
		if err != nil || found.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return err
		}
		value, err := h.Temporal.QueryWorkflow(h.t.Context(), id, "", "state")
		if err != nil {
			return err
		}
		var step struct {
			Resting int
			Next    activities.Next
		}
		if err := value.Get(&step); err != nil {
			return err
		}
		attends[id] = step.Resting
		if step.Next == activities.NextRetention {
			attends[id] = 1
		}
		return nil
	}
	for id, workflowID := range named {
		own := h.Prefix + "/" + kind + "/" + id
		if err := errors.Join(ask(workflowID), ask(own)); err != nil {
			return err.Error()
		}
		if own != workflowID && attends[own] > 0 {
			return id + " is attended to by " + own + " and by " + workflowID
		}
	}
	for id, workflowID := range named {
		if attends[workflowID]--; attends[workflowID] < 0 {
			return id + " is not attended to by " + workflowID
		}
	}
	return ""
}

// flock is the kind of herd, without batches.
type flock struct{ account }

func (flock) Kind() string                   { return "herd" }
func (flock) Settings() delta.ObjectSettings { return batchSettings(1) }

// A leftover batch and singles together obey the kind's Parallelism.
func TestABatchThatIsLeftOverKeepsToParallelism(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "CREATE TABLE calls (object_id text, pid integer)")
	require.NoError(t, err)
	kill := h.startChild("herd", "started")
	var hang []string
	for i := range 200 {
		hang = append(hang, fmt.Sprintf("z-hangs%03d", i))
	}
	informer := h.client(&delta.Config{})
	_, err = informer.InformMany(t.Context(), makeObjects(func(a account) herd { return herd{a} }, hang...), nil)
	require.NoError(t, err)
	until(t, func() bool { return h.countRows("SELECT count(*) FROM calls") > 0 })
	kill()
	h.awaitEnd()
	h.loseClaims()
	// The dispatcher leaves the members to their batch, however long Temporal takes to try its activity again.
	h.exec("UPDATE delta_resource SET dispatch_at = now() + interval '1 hour' WHERE object_id LIKE 'z-hangs%'")
	_, err = informer.InformMany(t.Context(), makeObjects(func(a account) herd { return herd{a} }, names("single", 90)...), nil)
	require.NoError(t, err)

	var now, most, ofBatch atomic.Int64
	h.start(withLongClaims(h.config(with(&controller[flock]{work: func(_ context.Context, r *delta.Resource[flock]) error {
		defer now.Add(-1)
		raiseTo(&most, now.Add(1))
		if strings.Contains(r.WorkflowID, ":batch/") {
			ofBatch.Add(1)
		}
		time.Sleep(20 * time.Millisecond)
		return nil
	}})), "herd"))
	for _, name := range append(names("single", 90), hang...) {
		h.eventually("herd", name, synced(1))
	}
	require.EqualValues(t, 200, ofBatch.Load())
	require.LessOrEqual(t, most.Load(), int64(8))
	t.Logf("at most %d at once", most.Load())
}
