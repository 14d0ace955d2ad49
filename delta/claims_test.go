package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// Whatever happens to a workflow, a worker or a connection: only one call of Work runs for a resource at a time.

func TestWorkOfATerminatedWorkflowEndsBeforeTheNextBegins(t *testing.T) {
	soak.Long(t)
	inBriefModes(t, func(t *testing.T, g mode) {
		w := newHeldWork(t, &meter{})
		c := g.startLongClaims(w.work)
		g.informHeld(c, w, nil, "ann", "bob")
		require.NoError(t, g.Temporal.TerminateWorkflow(t.Context(), g.awaitAttended("ann"), "", "an operator"))
		g.informPlan(c, "ann", "new")
		// A dispatcher skips the row while its claim is alive. An operator may not.
		g.orderByID(g.resourceWorkflow("ann"), workflows.WakeSignal, map[string]any{"object_id": "ann"})
		g.awaitTimer(g.resourceWorkflow("ann"))
		require.Equal(t, 1, w.callsOf(t, "ann"))
		require.EqualValues(t, 0, g.row(g.kind, "ann").SyncedGeneration)

		w.release()
		row := g.awaitRow("ann", synced(2))
		require.Equal(t, 2, w.callsOf(t, "ann"))
		require.EqualValues(t, 2, row.SyncCount, "the result of the first was written too")
		require.Equal(t, 1, row.Attempt)
		require.Empty(t, row.Errors)
		if g.isBatched() {
			require.Equal(t, 1, g.awaitRow("bob", synced(1)).Attempt)
		}
		require.Empty(t, w.ended)
	})
}

func TestWorkOfAWorkflowThatWasResetIsNotCalledAgain(t *testing.T) {
	inBriefModes(t, func(t *testing.T, g mode) {
		w := newHeldWork(t, &meter{})
		c := g.startLongClaims(w.work)
		g.informHeld(c, w, nil, "ann")
		id := g.awaitAttended("ann")
		require.NoError(t, g.resetWorkflow(id))
		g.awaitTimer(id)
		w.release()
		row := g.awaitRow("ann", synced(1))
		require.Equal(t, 1, row.Attempt)
		require.Empty(t, row.Errors)
		require.Equal(t, 1, w.callsOf(t, "ann"))
		g.informPlan(c, "ann", "new")
		g.awaitRow("ann", synced(2))
		require.Equal(t, 2, w.callsOf(t, "ann"))
		require.Empty(t, w.ended)
	})
}

func TestACancellationInTemporalEndsTheContextOfWork(t *testing.T) {
	soak.Long(t)
	inBriefModes(t, func(t *testing.T, g mode) {
		w := newHeldWork(t, &meter{})
		c := g.startLongClaims(w.work)
		events, cancel := c.Subscribe(delta.EventCategoryObjectFailed)
		defer cancel()
		g.informHeld(c, w, nil, "ann")
		id := g.awaitAttended("ann")
		require.NoError(t, g.Temporal.CancelWorkflow(t.Context(), id, ""))
		require.Error(t, receive(t, w.ended))
		failed := nextEvent(t, events).Resource // a busy machine may read the row only after its retry
		require.Equal(t, deltatype.ResourceStateFailed, failed.State)
		require.Contains(t, failed.Errors[0].Error, "cancelled in Temporal")
		require.NotNil(t, failed.DispatchAt)
		if !g.isBatched() { // a batch still has other members
			g.awaitCancelled(id)
		}

		w.release()
		// Do not wait for the grace of its workflow's timer.
		_, err := g.Pool.Exec(t.Context(), "UPDATE delta_resource SET dispatch_at = least(dispatch_at, due_at)")
		require.NoError(t, err)
		require.Equal(t, 2, g.awaitRow("ann", synced(1)).Attempt)
		require.Equal(t, 2, w.callsOf(t, "ann"))
	})
}

// awaitCancelled waits until a workflow is cancelled.
func (g mode) awaitCancelled(workflowID string) {
	g.t.Helper()
	until(g.t, func() bool {
		described, err := g.Temporal.DescribeWorkflow(context.Background(), workflowID, "")
		return err == nil && described.Status == enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED
	}, workflowID)
}

func TestADeleteEndsTheContextOfItsWorkOnly(t *testing.T) {
	soak.Long(t)
	inBriefModes(t, func(t *testing.T, g mode) {
		w := newHeldWork(t, &meter{})
		c := g.startLongClaims(w.work)
		g.informHeld(c, w, nil, "ann", "bob", "cid")
		_, err := c.Delete(t.Context(), g.kind, "ann")
		require.NoError(t, err)
		require.EqualError(t, receive(t, w.ended), "the resource was deleted")
		g.awaitRow("ann", func(r *deltatype.ResourceRow) bool {
			return r.State == deltatype.ResourceStateDeleted && r.ClaimedUntil == nil
		})
		for _, name := range []string{"bob", "cid"} {
			require.Equal(t, deltatype.ResourceStatePending, g.row(g.kind, name).State)
		}
		require.Empty(t, w.ended)
		w.release()
		for _, name := range []string{"bob", "cid"} {
			require.Equal(t, 1, g.awaitRow(name, synced(1)).Attempt)
		}
		require.Equal(t, 1, w.callsOf(t, "ann"))
	})
}

func TestSoakOfAWorkerCutOffFromTemporal(t *testing.T) {
	soak.Only(t)
	inBriefModes(t, func(t *testing.T, g mode) {
		all := &meter{}
		w, other := newHeldWork(t, all), newHeldWork(t, all)
		p := newCutProxy(t, g.TemporalAddress)
		config := withLongClaims(g.config(g.controller(w.work)), g.kind)
		config.Temporal = g.temporalBy(p)
		a := g.start(config)
		g.informHeld(a, w, nil, "ann")
		id := g.awaitAttended("ann")
		p.cut.Store(true)
		b := g.startLongClaims(other.work)
		g.awaitTimer(id) // the other worker has checked
		require.Equal(t, 1, all.callsOf(t, "ann"))
		w.release()
		row := g.awaitRow("ann", synced(1))
		require.Equal(t, 1, row.Attempt)
		require.Empty(t, row.Errors)
		require.Empty(t, w.ended)
		require.Empty(t, other.began)
		// And the other worker continues with it.
		g.informPlan(b, "ann", "new")
		g.awaitRow("ann", synced(2))
		require.Equal(t, 2, all.callsOf(t, "ann"))
		p.heal()
	})
}

func TestASilentTemporalDoesNotEndWork(t *testing.T) {
	soak.Long(t)
	inBriefModes(t, func(t *testing.T, g mode) {
		w := newHeldWork(t, &meter{})
		p := newCutProxy(t, g.TemporalAddress)
		config := g.config(g.controller(w.work))
		config.Temporal = g.temporalBy(p)
		config.Kinds = map[string]delta.ObjectSettings{g.kind: {HeartbeatTimeout: 12 * time.Second}} // a stall of the machine loses no claim
		c := g.start(config)
		g.informHeld(c, w, &delta.InformOpts{MaxAttempts: 1}, "ann")
		id := g.awaitAttended("ann")
		p.stall.Store(true)
		g.awaitRetry(id) // the proxy is silent until then
		p.stall.Store(false)
		if g.isBatched() {
			g.awaitTimer(id) // the next execution has checked
		} else {
			g.awaitExecution(id) // the next execution waits for the same Work
		}
		require.Empty(t, w.ended)
		w.release()
		row := g.awaitRow("ann", synced(1))
		require.Equal(t, 1, row.Attempt)
		require.Empty(t, row.Errors)
		require.Equal(t, 1, w.callsOf(t, "ann"))
	})
}

func TestSoakOfAWorkerCutOffFromPostgres(t *testing.T) {
	soak.Only(t)
	inBriefModes(t, func(t *testing.T, g mode) {
		all := &meter{}
		first, other := newHeldWork(t, all), newHeldWork(t, all)
		pool, p := g.poolByProxy()
		config := g.config(g.controller(func(ctx context.Context, j job) error {
			if err := first.work(ctx, j); err != nil {
				return delta.ResourceDegrade(errors.New("too late"))
			}
			return nil
		}))
		// It still reports its running attempts, but takes no more tasks, which it could not finish.
		config.Temporal = g.deafTemporal(&p.cut)
		a, err := delta.NewClient(pool, config)
		require.NoError(t, err)
		a.SetTiming(5*time.Second, 0, 0) // the lease, after which another dispatcher takes the row
		require.NoError(t, a.Start(context.Background()))
		stop := func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			_ = a.Stop(ctx)
		}
		t.Cleanup(stop)
		g.informHeld(a, first, nil, "ann")
		other.release()
		p.cut.Store(true)
		g.startWorker(other.work)
		require.ErrorContains(t, receive(t, first.ended), "the claim was lost")
		row := g.awaitRow("ann", synced(1))
		require.Equal(t, 2, row.Attempt)
		require.Len(t, row.Errors, 1)
		require.Contains(t, row.Errors[0].Error, "the worker was lost")
		require.Equal(t, 2, all.callsOf(t, "ann"))

		p.heal()
		stop() // by now it has tried to write its result
		row = g.row(g.kind, "ann")
		require.Equal(t, deltatype.ResourceStateSynced, row.State)
		require.EqualValues(t, 1, row.SyncCount)
		require.Len(t, row.Errors, 1)
	})
}

func TestInformsDuringWorkAreNotWrittenToItsWorkflow(t *testing.T) {
	inBriefModes(t, func(t *testing.T, g mode) {
		const informs = 300
		w := newHeldWork(t, &meter{})
		c := g.startLongClaims(w.work)
		g.informHeld(c, w, nil, "hot")
		id := g.awaitAttended("hot")
		for i := range informs {
			g.informPlan(c, "hot", fmt.Sprint("plan ", i))
		}
		g.informPlan(c, "other", "")
		g.awaitRow("other", synced(1)) // so the dispatcher has run since
		// One signal an inform would be hundreds. A busy dispatcher may send a few.
		require.Less(t, len(g.history(id)), informs/10)
		require.Equal(t, id, g.row(g.kind, "hot").WorkflowID, "the row is not leased during Work")
		require.Less(t, g.countWakeUps(g.kind, "hot"), informs/10)
		require.Equal(t, 1, w.callsOf(t, "hot"))
		w.release()
		row := g.awaitRow("hot", synced(1+informs))
		require.JSONEq(t, fmt.Sprintf(`{"name": "hot", "plan": "plan %d"}`, informs-1), string(row.EncodedObject))
		require.Equal(t, 2, w.callsOf(t, "hot"))
		require.Less(t, g.countWakeUps(g.kind, "hot"), informs/10)
	})
}

// An object that kills its process in Work uses up its own attempts, and no others.
func TestSoakOfWorkThatKillsItsProcess(t *testing.T) {
	soak.Only(t)
	inBriefModes(t, func(t *testing.T, g mode) {
		const attempts = 3
		_, err := g.Pool.Exec(t.Context(), "CREATE TABLE calls (object_id text, pid integer)")
		require.NoError(t, err)
		g.inform(g.client(&delta.Config{}), &delta.InformOpts{MaxAttempts: attempts}, append(names("ok", 10), "kills")...)
		killed := func() int { return g.countRows("SELECT count(*) FROM calls WHERE object_id = 'kills'") }
		for n := range attempts {
			g.startChild("fatal", "started")
			until(t, func() bool { return killed() == n+1 })
			g.awaitEnd()
		}
		g.startChild("fatal", "started")
		row := g.awaitRow("kills", inState(deltatype.ResourceStateDegraded))
		require.Equal(t, attempts, row.Attempt)
		require.Len(t, row.Errors, attempts)
		for _, e := range row.Errors {
			require.Contains(t, e.Error, "the worker was lost")
		}
		require.Equal(t, attempts, killed())
		for _, name := range names("ok", 10) {
			require.LessOrEqual(t, g.awaitRow(name, synced(1)).Attempt, attempts)
		}
	})
}

// The process dies right after the commit of CompleteTx, before it tells the workflow or Temporal. The row has the outcome, so Work is not called
// again.
func TestADeathAfterTheCommitOfCompleteTxRepeatsNoWork(t *testing.T) {
	soak.Long(t)
	inBriefModes(t, func(t *testing.T, g mode) {
		_, err := g.Pool.Exec(t.Context(), "CREATE TABLE calls (object_id text, pid integer)")
		require.NoError(t, err)
		others := names("other", 5)
		g.inform(g.client(&delta.Config{}), nil, append(others, "completes")...)
		g.startChild("fatal", "started")
		g.awaitRow("completes", synced(1))
		g.awaitEnd()
		row := g.row(g.kind, "completes")
		require.Nil(t, row.ClaimedUntil, "the transaction has closed the claim too")
		calls := g.countRows("SELECT count(*) FROM calls WHERE object_id = 'completes'")
		require.Positive(t, calls)
		require.LessOrEqual(t, calls, row.Attempt, "one attempt, unless the child lost its claim on a busy machine")
		require.Equal(t, g.isBatched(), strings.Contains(row.WorkflowID, ":batch/"), row.WorkflowID)

		var again, next atomic.Int64
		c := g.startWorker(func(_ context.Context, j job) error {
			switch {
			case j.ObjectID == "completes" && j.Generation == 1:
				again.Add(1)
			case j.ObjectID == "completes":
				next.Add(1)
			}
			return nil
		})
		for _, name := range others {
			g.awaitRow(name, synced(1))
		}
		g.awaitTimer(row.WorkflowID) // for the retention: so it has read the row
		require.Zero(t, again.Load(), "calls of Work after the commit")
		after := g.row(g.kind, "completes")
		require.Equal(t, deltatype.ResourceStateSynced, after.State)
		require.EqualValues(t, 1, after.Generation)
		require.EqualValues(t, 1, after.SyncCount)
		require.Equal(t, row.Attempt, after.Attempt)
		require.Equal(t, row.Errors, after.Errors, "no attempt was lost")

		// The next change is synced as usual.
		g.informPlan(c, "completes", "new")
		require.EqualValues(t, 2, g.awaitRow("completes", synced(2)).SyncCount)
		require.Zero(t, again.Load(), "calls of Work after the commit")
		require.Positive(t, next.Load())
		require.Equal(t, calls, g.countRows("SELECT count(*) FROM calls WHERE object_id = 'completes'"))
	})
}
