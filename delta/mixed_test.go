package delta_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// automatic is the kind of sized and bulky with an automatic BatchSize.
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

// inBatchingModes runs a test with an automatic and with a fixed BatchSize.
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

// inBatches returns the batches of resources whose rows name one, by id.
func (g mode) inBatches(names []string) map[string]string {
	g.t.Helper()
	batches := map[string]string{}
	for _, name := range names {
		if workflow := g.row(g.kind, name).WorkflowID; strings.Contains(workflow, ":batch/") {
			batches[name] = workflow
		}
	}
	return batches
}

// callCounter counts the calls of Work for each object, and those that overlap for the same object.
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

// startedBy returns the client that started the latest run of a workflow, and its number of resources; 0 for a single.
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

// Clients with different BatchSizes share one kind and database. The setting of the client that leases a resource decides its workflow, whichever
// client works it.
func TestClientsWithDifferentBatchSizesShareAKind(t *testing.T) {
	soak.Long(t)
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
	// One client alone, so that it certainly leases a resource.
	clients["one"] = start("one", singles.controller)
	inform("one", "first", 10)
	for _, name := range all {
		h.eventually("sized", name, synced(1))
	}
	clients["hundred"], clients["automatic"] = start("hundred", bulkyMode().controller), start("automatic", automaticMode().controller)
	leased, seen := map[string]int{}, map[string]bool{}
	look := func(name string) {
		row := h.eventually("sized", name, synced(1))
		require.Equal(t, 1, row.Attempt, name)
		require.EqualValues(t, 1, row.SyncCount, name)
		require.Empty(t, row.Errors, name)
		if seen[row.WorkflowID] {
			return
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
	// An inform wakes its own client's dispatcher, but any client may come first.
	for round, looked := 0, 0; len(leased) < len(clients); round++ {
		require.Less(t, round, 20, "leased: %v", leased)
		for identity := range clients {
			inform(identity, fmt.Sprintf("%s-many-%d-", identity, round), 60)
			for _, name := range names(fmt.Sprintf("%s-few-%d-", identity, round), 10) {
				_, err := clients[identity].Inform(t.Context(), sized{account{Name: name}}, nil)
				require.NoError(t, err)
				all = append(all, name)
			}
		}
		for ; looked < len(all); looked++ {
			look(all[looked])
		}
	}
	t.Logf("leased: %v", leased)
	counted.mu.Lock()
	defer counted.mu.Unlock()
	require.Zero(t, counted.overlaps, "concurrent calls for one object")
	require.Len(t, counted.calls, len(all))
	for name, calls := range counted.calls {
		require.Equal(t, 1, calls, name)
	}
}

// An urgent inform during a batch gets its own workflow, or another batch, and the next free slot: it does not wait for the end of the batch.
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
		// By then its activity runs on the worker, and waits for a slot.
		until(t, func() bool {
			return g.isExecuted(cmp.Or(g.row(g.kind, "urgent").WorkflowID, g.resourceWorkflow("urgent")))
		})
		// When a call ends, another one begins. The urgent resource is next once it waits for a slot.
		worked := 8
		for next := ""; next != "urgent"; worked++ {
			require.Less(t, worked, len(members), "it waited for the end of the batch")
			time.Sleep(100 * time.Millisecond)
			slots <- struct{}{}
			next = got(t, begun)
		}
	})
}

// An urgent inform of a member of a batch that has not begun takes the member out of it: the batch skips it.
func TestAnUrgentInformIsTakenOutOfABatchThatIsQueued(t *testing.T) {
	inBatchingModes(t, func(t *testing.T, g mode) {
		var counted callCounter
		c, w := g.onTaskQueue("own", counted.work)
		members := names("many", 100)
		g.inform(c, nil, members...)
		until(t, func() bool { return len(g.inBatches(members)) > 0 }) // in automatic mode, a few may be singles
		batches, urgent := g.inBatches(members), ""
		for urgent = range batches {
			break
		}
		batch := batches[urgent]
		_, err := c.Inform(t.Context(), g.object(account{Name: urgent, Plan: "gold"}), &delta.InformOpts{Priority: 1})
		require.NoError(t, err)
		g.awaitRow(urgent, func(r *deltatype.ResourceRow) bool { return r.WorkflowID != batch })

		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
		for _, name := range members {
			row := g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateSynced })
			require.EqualValues(t, 1, row.SyncCount, name)
			if name != urgent {
				if batches[name] != "" {
					require.Equal(t, batches[name], row.WorkflowID)
				}
				continue
			}
			require.EqualValues(t, 2, row.SyncedGeneration)
			require.NotEqual(t, batch, row.WorkflowID)
			require.EqualValues(t, 1, g.history(row.WorkflowID)[0].GetWorkflowExecutionStartedEventAttributes().GetPriority().GetPriorityKey())
		}
		counted.mu.Lock()
		defer counted.mu.Unlock()
		require.Equal(t, 1, counted.calls[urgent], "the older generation is not worked")
	})
}

// A resource in a batch has no own workflow that a plain signal would reach. A signal with start executes its command, and an empty wake-up leaves
// the resource in its batch.
func TestASignalToAResourceInABatchNeedsAStart(t *testing.T) {
	inBatchingModes(t, func(t *testing.T, g mode) {
		c := g.startWorker(func(context.Context, job) error { return nil })
		g.inform(c, nil, names("many", 100)...)
		for _, name := range names("many", 100) {
			g.awaitRow(name, synced(1))
		}
		// In automatic mode, a few may be singles.
		batches := g.inBatches(names("many", 100))
		members := slices.Sorted(maps.Keys(batches))
		require.GreaterOrEqual(t, len(members), 4)
		own := func(name string) string { return g.Prefix + "/" + g.kind + "/" + name }
		err := g.Temporal.SignalWorkflow(t.Context(), own(members[0]), "", "invalidate", nil)
		require.ErrorAs(t, err, new(*serviceerror.NotFound))

		ordered := map[string]string{members[0]: "invalidate", members[1]: "delete", members[2]: "sync", members[3]: workflows.WakeSignal}
		for name, signal := range ordered {
			_, err := g.Temporal.SignalWithStartWorkflow(t.Context(), own(name), signal, nil,
				client.StartWorkflowOptions{ID: own(name), TaskQueue: g.Prefix + "/" + g.kind}, workflows.ResourceName,
				map[string]any{"kind": g.kind, "object_id": name})
			require.NoError(t, err)
		}
		g.awaitRow(members[0], synced(2))
		g.awaitRow(members[2], synced(2))
		g.awaitRow(members[1], inState(deltatype.ResourceStateDeleted))
		g.awaitWorkflowEnd(own(members[3]))
		for name, batch := range batches {
			if signal := ordered[name]; signal == "" || signal == workflows.WakeSignal {
				row := g.row(g.kind, name)
				require.Equal(t, batch, row.WorkflowID)
				require.EqualValues(t, 1, row.SyncCount)
			}
		}
	})
}
