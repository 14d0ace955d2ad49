package delta_test

import (
	"cmp"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

// automatic is the kind of sized and bulky, and its BatchSize is left to Delta.
type automatic struct{ account }

func (automatic) Kind() string                   { return "sized" }
func (automatic) Settings() delta.ObjectSettings { return batchSettings(0) }

// automaticMode and bulkyMode are modes of that kind.
func automaticMode() mode {
	return modeFor(0, func(a account) automatic { return automatic{a} }, func(o automatic) account { return o.account })
}

func bulkyMode() mode {
	return modeFor(0, func(a account) bulky { return bulky{a} }, func(o bulky) account { return o.account })
}

// inBatchingModes runs a test with a BatchSize that is left to Delta, and with one that is given.
func inBatchingModes(t *testing.T, test func(t *testing.T, g mode)) {
	t.Helper()
	t.Parallel()
	for name, g := range map[string]mode{"automatic": automaticMode(), "given": bulkyMode()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g.harness = newHarness(t)
			test(t, g)
		})
	}
}

// callCounter counts the calls of Work for each object, and those that came while another went on for the same object.
type callCounter struct {
	mu         sync.Mutex
	calls, now map[string]int
	overlaps   int
}

func (c *callCounter) work(_ context.Context, j job) error {
	c.add(j.ObjectID, 1)
	time.Sleep(time.Millisecond)
	c.add(j.ObjectID, -1)
	return nil
}

func (c *callCounter) add(id string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls, c.now = map[string]int{}, map[string]int{}
	}
	if c.now[id] += n; c.now[id] > 1 {
		c.overlaps++
	}
	c.calls[id] += max(n, 0)
}

// startedBy is which client started the latest run of a workflow, and of how many resources; 0 for one with a workflow of its own.
func (h *harness) startedBy(workflowID string) (identity string, members int) {
	h.t.Helper()
	started := h.history(workflowID)[0].GetWorkflowExecutionStartedEventAttributes()
	if started.GetWorkflowType().GetName() != workflows.BatchName {
		return started.GetIdentity(), 0
	}
	var batch activities.Batch
	require.NoError(h.t, converter.GetDefaultDataConverter().FromPayload(started.GetInput().GetPayloads()[0], &batch))
	return started.GetIdentity(), batch.IDs.Len()
}

// Clients with different BatchSizes work one kind on one database. What a client leases has the workflow that its own setting says,
// whichever of them works it then.
func TestClientsWithDifferentBatchSizesShareAKind(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var counted callCounter
	start := func(identity string, controller func(work func(context.Context, job) error) func(*delta.Controllers)) *delta.Client {
		config := h.config(controller(counted.work))
		var err error
		config.Temporal, err = client.NewClientFromExisting(h.Temporal, client.Options{Identity: identity, Namespace: h.TemporalNamespace, Logger: quiet{}})
		require.NoError(t, err)
		return h.start(config)
	}
	singles := modeFor(0, func(a account) sized { return sized{a} }, func(o sized) account { return o.account })
	clients := map[string]*delta.Client{}
	var all []string
	inform := func(identity, prefix string, n int) {
		var objects []delta.Object
		for _, name := range names(prefix, n) {
			objects, all = append(objects, sized{account{Name: name}}), append(all, name)
		}
		_, err := clients[identity].InformMany(t.Context(), objects, nil)
		require.NoError(t, err)
	}
	// One of them alone, so that it is sure to lease something; the sets of the others are leased as they are informed.
	clients["one"] = start("one", singles.controller)
	inform("one", "first", 10)
	for _, name := range all {
		h.eventually("sized", name, synced(1))
	}
	clients["hundred"], clients["automatic"] = start("hundred", bulkyMode().controller), start("automatic", automaticMode().controller)
	for identity := range clients {
		inform(identity, identity+"-many", 60)
		for _, name := range names(identity+"-few", 10) {
			_, err := clients[identity].Inform(t.Context(), sized{account{Name: name}}, nil)
			require.NoError(t, err)
			all = append(all, name)
		}
	}
	leased, seen := map[string]int{}, map[string]bool{}
	for _, name := range all {
		row := h.eventually("sized", name, synced(1))
		require.Equal(t, 1, row.Attempt, name)
		require.EqualValues(t, 1, row.SyncCount, name)
		require.Empty(t, row.Errors, name)
		if seen[row.WorkflowID] {
			continue
		}
		seen[row.WorkflowID] = true
		identity, members := h.startedBy(row.WorkflowID)
		leased[identity] += max(members, 1)
		switch identity {
		case "one":
			require.Zero(t, members, "it has a workflow for each")
		case "hundred":
			require.Positive(t, members, "it has batches only")
			require.LessOrEqual(t, members, 100)
		default:
			require.LessOrEqual(t, members, 1000)
		}
	}
	t.Logf("leased: %v", leased)
	require.Len(t, leased, 3)
	counted.mu.Lock()
	defer counted.mu.Unlock()
	require.Zero(t, counted.overlaps, "calls for one object at once")
	require.Len(t, counted.calls, len(all))
	for name, calls := range counted.calls {
		require.Equal(t, 1, calls, name)
	}
}

// What is informed with a higher priority while a batch is under way has a workflow of its own, or another batch, and the next slot that is
// free: it does not wait for the end of the batch.
func TestAnUrgentInformDoesNotWaitForABatchThatIsUnderWay(t *testing.T) {
	inBatchingModes(t, func(t *testing.T, g mode) {
		begun, slots := make(chan string, 200), make(chan struct{})
		c := g.startWorker(func(ctx context.Context, j job) error {
			begun <- j.ObjectID
			select {
			case <-slots:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		defer close(slots)
		members := names("slow", 100)
		g.inform(c, nil, members...)
		for range 8 { // Parallelism
			got(t, begun)
		}
		_, err := c.Inform(t.Context(), g.object(account{Name: "urgent"}), &delta.InformOpts{Priority: 1})
		require.NoError(t, err)
		// However long its way to the worker is: by then its activity runs, which waits for a slot.
		until(t, func() bool {
			return g.isExecuted(cmp.Or(g.row(g.kind, "urgent").WorkflowID, g.resourceWorkflow("urgent")))
		})
		// Each end of a call is the beginning of another one. The urgent one has its turn once it has come to wait for one.
		worked := 8
		for next := ""; next != "urgent"; worked++ {
			require.Less(t, worked, len(members), "it waited for the end of the batch")
			time.Sleep(100 * time.Millisecond)
			slots <- struct{}{}
			next = got(t, begun)
		}
	})
}

// What is informed with a higher priority while it waits in a batch that has not begun is taken out of it: the batch leaves it alone.
func TestAnUrgentInformIsTakenOutOfABatchThatIsQueued(t *testing.T) {
	inBatchingModes(t, func(t *testing.T, g mode) {
		var counted callCounter
		c, w := g.onTaskQueue("own", counted.work)
		members := names("many", 100)
		g.inform(c, nil, members...)
		batch := g.await("many07", func(r *deltatype.ResourceRow) bool { return r.WorkflowID != "" }).WorkflowID
		require.Contains(t, batch, ":batch/")
		_, err := c.Inform(t.Context(), g.object(account{Name: "many07", Plan: "gold"}), &delta.InformOpts{Priority: 1})
		require.NoError(t, err)
		g.await("many07", func(r *deltatype.ResourceRow) bool { return r.WorkflowID != batch })

		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
		for _, name := range members {
			row := g.await(name, func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateSynced })
			require.EqualValues(t, 1, row.SyncCount, name)
			if name != "many07" {
				require.Equal(t, batch, row.WorkflowID)
				continue
			}
			require.EqualValues(t, 2, row.SyncedGeneration)
			require.NotEqual(t, batch, row.WorkflowID)
			require.EqualValues(t, 1, g.history(row.WorkflowID)[0].GetWorkflowExecutionStartedEventAttributes().GetPriority().GetPriorityKey())
		}
		counted.mu.Lock()
		defer counted.mu.Unlock()
		require.Equal(t, 1, counted.calls["many07"], "what it was before is not worked")
	})
}

// A resource in a batch has no workflow of its own that a plain signal would reach. Sent with a start, a signal does what it orders, and a
// wake-up that orders nothing leaves the resource with its batch.
func TestASignalToAResourceInABatchNeedsAStart(t *testing.T) {
	inBatchingModes(t, func(t *testing.T, g mode) {
		c := g.startWorker(func(context.Context, job) error { return nil })
		g.inform(c, nil, names("many", 100)...)
		batches := map[string]string{}
		for _, name := range names("many", 100) {
			batches[name] = g.await(name, synced(1)).WorkflowID
			require.Contains(t, batches[name], ":batch/")
		}
		own := func(name string) string { return g.Prefix + "/" + g.kind + "/" + name }
		err := g.Temporal.SignalWorkflow(t.Context(), own("many01"), "", "invalidate", nil)
		require.ErrorAs(t, err, new(*serviceerror.NotFound))

		ordered := map[string]string{"many01": "invalidate", "many02": "delete", "many03": "sync", "many04": workflows.WakeSignal}
		for name, signal := range ordered {
			_, err := g.Temporal.SignalWithStartWorkflow(t.Context(), own(name), signal, nil,
				client.StartWorkflowOptions{ID: own(name), TaskQueue: g.Prefix + "/" + g.kind}, workflows.ResourceName,
				map[string]any{"kind": g.kind, "object_id": name})
			require.NoError(t, err)
		}
		g.await("many01", synced(2))
		g.await("many03", synced(2))
		g.await("many02", inState(deltatype.ResourceStateDeleted))
		g.ends(own("many04"))
		for name, batch := range batches {
			if signal := ordered[name]; signal == "" || signal == workflows.WakeSignal {
				row := g.row(g.kind, name)
				require.Equal(t, batch, row.WorkflowID)
				require.EqualValues(t, 1, row.SyncCount)
			}
		}
	})
}
