package delta_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// skipToDispatch ages the rows until a dispatcher reads those of a kind that are not worked: without it, a minute after they are due.
func (h *harness) skipToDispatch(kind string) {
	h.t.Helper()
	require.Zero(h.t, h.countRows(`SELECT count(*) FROM delta_resource WHERE kind = $1 AND state NOT IN ('pending')
		AND (dispatch_at IS NULL OR dispatch_at > greatest(due_at, now()) + interval '61 seconds')`, kind), "a dispatcher reads the row a minute later")
	h.exec(`UPDATE delta_resource SET due_at = due_at - (dispatch_at - now()) - interval '10 seconds', dispatch_at = now() - interval '10 seconds',
			synced_at = synced_at - (dispatch_at - now()) - interval '10 seconds'
		WHERE kind = $1 AND state <> 'pending' AND dispatch_at > now()`, kind)
}

// terminateWorkflows terminates workflows, as an operator does.
func (h *harness) terminateWorkflows(workflowIDs ...string) {
	h.t.Helper()
	done := map[string]bool{}
	for _, id := range workflowIDs {
		if done[id] {
			continue
		}
		done[id] = true
		// The answer may be late on a busy machine. Then the next call answers that the workflow has ended.
		isAsked := false
		until(h.t, func() bool {
			err := h.Temporal.TerminateWorkflow(context.Background(), id, "", "the test terminates it")
			if isLate(err) {
				isAsked = true
				return false
			}
			if !isAsked || !errors.As(err, new(*serviceerror.NotFound)) {
				require.NoError(h.t, err)
			}
			return true
		})
	}
}

func TestAWorkflowThatIsTerminatedAtRestIsReplaced(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		config := g.config(g.controller(func(context.Context, job) error { return nil }))
		config.Namespaces = map[string]delta.NamespaceConfig{"expires": {MaxWorkers: 10, ResourceExpiry: time.Hour}}
		c := g.start(config)
		g.inform(c, &delta.InformOpts{Namespace: "expires"}, names("expires", 5)...)
		g.inform(c, nil, names("goes", 5)...)
		var attended []string
		for _, name := range append(names("expires", 5), names("goes", 5)...) {
			attended = append(attended, g.awaitRow(name, synced(1)).WorkflowID)
		}
		for _, id := range attended {
			g.awaitEvent(id, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
		}
		g.terminateWorkflows(attended...)
		g.skipToDispatch(g.kind)
		for _, name := range names("expires", 5) {
			g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return synced(2)(r) && r.SyncCount == 2 })
		}
		g.awaitRow("goes00", isGone)
		until(t, func() bool {
			return g.countRows("SELECT count(*) FROM delta_resource WHERE object_id LIKE 'goes%'") == 0
		}, "they are removed")
	})
}

// slow and slowBatched are a kind in the two modes that waits a quarter of an hour after its third attempt.
type slow struct{ account }

func (slow) Kind() string                   { return "slow" }
func (slow) Settings() delta.ObjectSettings { return slowSettings(1) }

type slowBatched struct{ account }

func (slowBatched) Kind() string                   { return "slow-batched" }
func (slowBatched) Settings() delta.ObjectSettings { return slowSettings(50) }

func slowSettings(size int) delta.ObjectSettings {
	s := batchSettings(size)
	s.RetryPolicy = delta.RetryPolicy{InitialInterval: time.Millisecond, BackoffCoefficient: 1000}
	return s
}

// Workflows are terminated while they wait for their timers. During an attempt, another attempt might follow before the test continues.
func TestAWorkflowThatIsTerminatedInBackoffIsReplaced(t *testing.T) {
	soak.Long(t)
	inModes(t, func(t *testing.T, g mode) {
		var mended atomic.Bool
		c := g.startWorker(func(_ context.Context, j job) error {
			switch {
			case mended.Load():
				return nil
			case j.ObjectID == "snoozes":
				return delta.ResourceSnooze(time.Hour)
			default:
				return errors.New("not yet")
			}
		})
		g.inform(c, &delta.InformOpts{MaxAttempts: 100}, "fails", "snoozes")
		g.awaitRow("snoozes", func(r *deltatype.ResourceRow) bool {
			return r.Snoozes == 1 && r.WorkflowID == g.Prefix+"/"+g.kind+"/snoozes"
		})
		row := g.awaitRow("fails", func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateFailed && r.Attempt >= 3 })
		require.Equal(t, g.Prefix+"/"+g.kind+"/fails", row.WorkflowID)
		for name, long := range map[string]time.Duration{"fails": 10 * time.Minute, "snoozes": 50 * time.Minute} {
			g.awaitEvent(g.Prefix+"/"+g.kind+"/"+name, func(e *historypb.HistoryEvent) bool {
				return e.GetTimerStartedEventAttributes().GetStartToFireTimeout().AsDuration() > long
			})
		}
		g.terminateWorkflows(g.Prefix+"/"+g.kind+"/fails", g.Prefix+"/"+g.kind+"/snoozes")
		row = g.awaitRow("fails", func(r *deltatype.ResourceRow) bool { return r.ClaimedUntil == nil })
		mended.Store(true)
		g.skipToDispatch(g.kind)
		require.Equal(t, row.Attempt+1, g.awaitRow("fails", synced(1)).Attempt)
		g.awaitRow("snoozes", synced(1))
	},
		modeFor(0, func(a account) slow { return slow{a} }, func(o slow) account { return o.account }),
		modeFor(0, func(a account) slowBatched { return slowBatched{a} }, func(o slowBatched) account { return o.account }))
}

// onTaskQueue starts a client whose workflows wait on a user's task queue, and returns the worker that will run them once started.
func (g mode) onTaskQueue(name string, work func(context.Context, job) error) (*delta.Client, sdkworker.Worker) {
	g.t.Helper()
	config := g.config(g.controller(work))
	config.TaskQueue = g.Prefix + "-" + name
	c := g.client(config)
	c.SetTiming(0, 200*time.Millisecond, 0)
	w := sdkworker.New(g.Temporal, config.TaskQueue, ownWorker())
	require.NoError(g.t, c.Register(w))
	require.NoError(g.t, c.Start(g.t.Context()))
	g.t.Cleanup(func() { _ = c.Stop(context.Background()) })
	return c, w
}

// queuedFor waits until the workflows of resources wait in a queue, and returns them.
func (g mode) queuedFor(names ...string) (ids []string) {
	g.t.Helper()
	for _, name := range names {
		id := g.Prefix + "/" + g.kind + "/" + name
		if g.kind == "batched" {
			id = g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.WorkflowID != "" }).WorkflowID
		}
		until(g.t, func() bool {
			_, err := g.Temporal.DescribeWorkflow(context.Background(), id, "")
			return err == nil
		})
		ids = append(ids, id)
	}
	return ids
}

// Batches too, before their attempt.
func TestAWorkflowThatIsTerminatedInTheQueueIsReplaced(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		c, w := g.onTaskQueue("own", func(context.Context, job) error { return nil })
		g.inform(c, nil, names("many", 30)...)
		g.informEach(c, nil, "one", "two")
		all := append(names("many", 30), "one", "two")
		terminated := g.queuedFor(all...)
		g.terminateWorkflows(terminated...)
		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
		g.skipToDispatch(g.kind)
		for i, name := range all {
			row := g.awaitRow(name, synced(1))
			require.Equal(t, 1, row.Attempt)
			if g.kind == "batched" {
				require.NotEqual(t, terminated[i], row.WorkflowID)
			}
		}
	})
}

// A workflow stays on its task queue. If nobody polls that any more, the row gets a workflow on the new task queue.
func TestAWorkflowOnAnUnpolledTaskQueueIsReplaced(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		work := func(context.Context, job) error { return nil }
		before, w := g.onTaskQueue("before", work)
		require.NoError(t, w.Start())
		g.inform(before, nil, "rests")
		g.awaitRow("rests", synced(1))
		w.Stop()
		g.informEach(before, nil, "queued")
		old := g.queuedFor("queued")[0]
		require.NoError(t, before.Stop(t.Context()))

		after, w := g.onTaskQueue("after", work)
		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
		_, err := after.Inform(t.Context(), g.object(account{Name: "rests", Plan: "new"}), nil)
		require.NoError(t, err)
		if g.kind == "each" {
			g.awaitSignal(g.Prefix + "/each/rests")
		}
		g.exec("UPDATE delta_resource SET due_at = now() - interval '2 minutes', dispatch_at = now() WHERE state = 'scheduled'")
		g.awaitRow("rests", synced(2))
		row := g.awaitRow("queued", synced(1))
		if g.kind == "batched" {
			require.NotEqual(t, old, row.WorkflowID)
			return
		}
		for _, name := range []string{"rests", "queued"} {
			described, err := g.Temporal.DescribeWorkflow(t.Context(), g.Prefix+"/each/"+name, "")
			require.NoError(t, err)
			require.Equal(t, g.Prefix+"-after", described.RawResponse.GetExecutionConfig().GetTaskQueue().GetName())
		}
	})
}

// awaitSignal waits until a workflow has received a wake-up.
func (h *harness) awaitSignal(workflowID string) {
	h.t.Helper()
	h.awaitEvent(workflowID, func(e *historypb.HistoryEvent) bool { return e.GetWorkflowExecutionSignaledEventAttributes() != nil })
}

// Late resources need attention, whatever dispatchers do with them.
func TestLateCountsOverdueAndLostResources(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	const claim, lost = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
	for name, set := range map[string]string{
		"late":        "due_at = now() - interval '2 minutes', dispatch_at = now()",
		"late-leased": "due_at = now() - interval '3 minutes', dispatch_at = now() + interval '14 minutes'",
		"late-failed": "due_at = now() - interval '2 minutes', dispatch_at = now() + interval '1 minute', state = 'failed', attempt = 1",
		"late-rests":  "due_at = now() - interval '2 minutes', dispatch_at = now() + interval '1 minute', state = 'synced', synced_generation = 1",
		"late-lost":   "due_at = NULL, dispatch_at = now() + interval '5 minutes', state = 'pending', attempt = 1, claimed_until = now() - interval '2 minutes', claim = '" + lost + "'",
		"lives":       "due_at = NULL, dispatch_at = now(), state = 'pending', attempt = 1, claimed_until = now() - interval '2 minutes', claim = '" + claim + "'",
		"claimed":     "due_at = NULL, dispatch_at = now(), state = 'pending', attempt = 1, claimed_until = now() + interval '1 minute', claim = '" + claim + "'",
		"asked-again": "due_at = now() - interval '2 minutes', dispatch_at = now(), claimed_until = now() - interval '2 minutes', claim = '" + claim + "'",
		"lost-now":    "due_at = NULL, dispatch_at = now(), state = 'pending', attempt = 1, claimed_until = now() - interval '20 seconds', claim = '" + lost + "'",
		"due-now":     "due_at = now() - interval '20 seconds', dispatch_at = now()",
		"paused":      "due_at = now() - interval '2 minutes', dispatch_at = now(), paused = TRUE",
	} {
		_, err := c.Inform(t.Context(), account{Name: name}, nil)
		require.NoError(t, err)
		h.exec("UPDATE delta_resource SET "+set+" WHERE object_id = $1", name)
	}
	h.exec("INSERT INTO delta_claim VALUES ('" + claim + "', now() + interval '10 seconds')")
	_, err := c.Inform(t.Context(), serial{account{Name: "late"}}, nil)
	require.NoError(t, err)
	h.exec("UPDATE delta_resource SET due_at = now() - interval '2 minutes' WHERE kind = 'serial'")
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 5, kinds[0].Late)
	require.True(t, h.row("account", "late-leased").DueAt.Equal(*kinds[0].OldestLate))
	require.EqualValues(t, 1, kinds[1].Late)

	require.NoError(t, c.PauseKind(t.Context(), "serial"))
	h.exec("UPDATE delta_claim SET claimed_until = now() - interval '2 minutes'")
	kinds, err = c.Kinds(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 7, kinds[0].Late, "now the renewed claims are dead")
	require.Zero(t, kinds[1].Late)
	require.Nil(t, kinds[1].OldestLate)
}

// An attempt that waits for a slot has no claim yet, like one whose worker is cut off from Postgres. It is not ended when its resource is woken again.
func TestAnAttemptThatWaitsForASlotIsNotStuck(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
	g.harness = newHarness(t)
	begun, held := make(chan string, 10), make(chan struct{})
	config := g.config(g.controller(func(ctx context.Context, j job) error {
		if j.ObjectID != "held" {
			return nil
		}
		begun <- j.ObjectID
		return waitFor(ctx, held)
	}))
	config.ResourceWorkTimeout = 10 * patience
	config.Kinds = map[string]delta.ObjectSettings{g.kind: {Parallelism: 1, HeartbeatTimeout: patience}}
	c := g.start(config)
	g.informEach(c, nil, "held")
	got(t, begun)
	require.NoError(t, c.PauseKind(t.Context(), g.kind))
	g.informEach(c, nil, "lost")
	g.exec(`UPDATE delta_resource SET state = 'pending', attempt = 1, due_at = NULL, claimed_until = now(), claim = gen_random_uuid(), dispatch_at = now()
		WHERE object_id = 'lost'`)
	require.NoError(t, c.ResumeKind(t.Context(), g.kind))
	id := g.resourceWorkflow("lost")
	g.awaitExecution(id)
	until(t, func() bool { // it has said that it waits
		found, err := g.Temporal.DescribeWorkflow(t.Context(), id, "")
		require.NoError(t, err)
		return found.RawResponse.GetPendingActivities()[0].GetHeartbeatDetails() != nil
	})
	run := g.startAttributes(g.kind, "lost").GetOriginalExecutionRunId()
	signals := func() (n int) {
		for _, event := range g.history(id) {
			if event.GetWorkflowExecutionSignaledEventAttributes() != nil {
				n++
			}
		}
		return n
	}
	for n := range 3 {
		before := signals()
		g.exec("UPDATE delta_resource SET dispatch_at = now() WHERE object_id = 'lost'")
		until(t, func() bool {
			return signals() > before || run != g.startAttributes(g.kind, "lost").GetOriginalExecutionRunId()
		})
		require.Equal(t, run, g.startAttributes(g.kind, "lost").GetOriginalExecutionRunId(), n)
	}
	close(held)
	for _, name := range []string{"held", "lost"} {
		g.awaitRow(name, synced(1))
	}
}
