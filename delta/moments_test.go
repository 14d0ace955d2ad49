package delta_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// asks are the commands for a resource. Each is given to the resource of that name.
var asks = []string{"inform", "invalidate", "delete", "retry", "pause", "nothing"}

// calls counts calls of Work, by resource.
type calls struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *calls) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[name]++
}

func (c *calls) countOf(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[name]
}

// orderEach gives each resource the command of its name. All of them are in one state.
func (g mode) orderEach(c *delta.Client, state deltatype.ResourceState) {
	g.t.Helper()
	refused := func(err error, allowed bool) {
		g.t.Helper()
		if allowed {
			require.NoError(g.t, err)
			return
		}
		var why *delta.StateError
		require.ErrorAs(g.t, err, &why)
		require.Equal(g.t, state, why.State)
	}
	ctx := g.t.Context()
	_, err := c.Inform(ctx, g.object(account{Name: "inform", Plan: "two"}), nil)
	require.NoError(g.t, err)
	_, err = c.Invalidate(ctx, g.object(account{Name: "invalidate"}))
	refused(err, state == deltatype.ResourceStateSynced)
	_, err = c.Retry(ctx, g.kind, "retry")
	refused(err, false)
	row, err := c.Delete(ctx, g.kind, "delete")
	require.NoError(g.t, err)
	require.Equal(g.t, deltatype.ResourceStateDeleted, row.State)
	_, err = c.Pause(ctx, g.kind, "pause")
	require.NoError(g.t, err)
}

func TestBothModesTakeCommandsBeforeTheAttempt(t *testing.T) {
	inEachMode(t, func(t *testing.T, g mode) {
		var worked calls
		c := g.startWorker(func(_ context.Context, j job) error { worked.add(j.ObjectID + j.Object.Plan); return nil })
		require.NoError(t, c.PauseKind(t.Context(), g.kind))
		g.inform(c, nil, asks...)
		g.orderEach(c, deltatype.ResourceStateScheduled)
		require.NoError(t, c.ResumeKind(t.Context(), g.kind))
		g.settlesAsAsked(c, 1)
		for name, n := range map[string]int{"inform": 0, "informtwo": 1, "invalidate": 1, "retry": 1, "delete": 0, "pause": 1, "nothing": 1} {
			require.Equal(t, n, worked.countOf(name), name)
		}
	})
}

// A batch that was started but has not begun reads its members when it begins.
func TestABatchReadsItsMembersWhenItBegins(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := mode{harness: newHarness(t), kind: "batched", object: func(a account) delta.Object { return batched{a} }}
	var worked calls
	config := g.config(with(&controller[batched]{work: func(_ context.Context, r *delta.Resource[batched]) error {
		worked.add(r.ObjectID + r.Object.Plan)
		return nil
	}}))
	c := g.client(config)
	g.inform(c, nil, asks...)
	batch := g.leaseBatch("batched", time.Hour)
	require.Equal(t, len(asks), batch.IDs.Len())
	g.orderEach(c, deltatype.ResourceStateScheduled)
	step, err := c.ActivitiesOf(batch.Installation, "batched").AttemptBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, 4, step.Synced, "invalidate and retry were refused, and a new inform leaves the resource in its batch")
	require.Equal(t, 5, step.Resting, "and deleted resources stay settled")
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // the test is over
	g.settlesAsAsked(c, 1)
	for name, n := range map[string]int{"inform": 0, "informtwo": 1, "invalidate": 1, "retry": 1, "delete": 0, "pause": 1, "nothing": 1} {
		require.Equal(t, n, worked.countOf(name), name)
	}
}

func TestBothModesTakeCommandsDuringTheAttempt(t *testing.T) {
	inEachMode(t, func(t *testing.T, g mode) {
		var worked calls
		begun, finish := make(chan struct{}, 20), make(chan struct{})
		c := g.startLongClaims(func(ctx context.Context, j job) error {
			worked.add(j.ObjectID + j.Object.Plan)
			if j.Generation == 1 {
				begun <- struct{}{}
				select {
				case <-finish:
				case <-ctx.Done():
				}
			}
			return ctx.Err()
		})
		g.inform(c, nil, asks...)
		for range asks {
			<-begun
		}
		g.orderEach(c, deltatype.ResourceStatePending)
		close(finish)
		// Work that is running when its resource is paused continues to its end.
		row := g.awaitRow("pause", synced(1))
		require.True(t, row.Paused)
		g.settlesAsAsked(c, 2)
		for name, n := range map[string]int{"inform": 1, "informtwo": 1, "invalidate": 1, "retry": 1, "delete": 1, "pause": 1, "nothing": 1} {
			require.Equal(t, n, worked.countOf(name), name)
		}
		require.EqualValues(t, 0, g.row(g.kind, "delete").SyncCount, "the result for a deleted resource is not written")
	})
}

// Synced resources get commands before they expire. The others expire when they are due, and so do those with a command. The test sets an expiry of
// an hour until all commands are given, however long that takes, and then makes the resources due.
func TestBothModesTakeCommandsAtRest(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		var worked calls
		config := g.config(g.controller(func(_ context.Context, j job) error { worked.add(j.ObjectID); return nil }))
		config.Namespaces = map[string]delta.NamespaceConfig{"default": {
			MaxWorkers: 100, ResourceExpiry: time.Hour, DeletedResourceRetentionPeriod: 500 * time.Millisecond,
		}}
		c := g.client(config)
		c.SetTiming(0, 200*time.Millisecond, 0)
		require.NoError(t, c.Start(context.Background()))
		t.Cleanup(func() { _ = c.Stop(context.Background()) })
		g.inform(c, nil, asks...)
		for _, name := range asks {
			g.awaitRow(name, synced(1))
		}
		g.orderEach(c, deltatype.ResourceStateSynced)
		for _, name := range []string{"inform", "invalidate"} {
			row := g.awaitRow(name, synced(2))
			require.EqualValues(t, 2, row.SyncCount)
			require.InDelta(t, time.Hour, row.DueAt.Sub(*row.SyncedAt), float64(3*time.Minute), "up to 5 % earlier")
		}
		g.comesDue(deltatype.ResourceStateSynced)
		for name, generation := range map[string]int64{"inform": 3, "invalidate": 3, "retry": 2, "nothing": 2} {
			require.Equal(t, generation, g.awaitRow(name, synced(generation)).SyncCount)
		}
		require.EqualValues(t, 1, g.row(g.kind, "pause").SyncCount, "dispatchers skip paused resources")
		require.Equal(t, 1, worked.countOf("pause"))
		_, err := c.Resume(t.Context(), g.kind, "pause")
		require.NoError(t, err)
		g.awaitRow("pause", func(r *deltatype.ResourceRow) bool { return r.SyncCount == 2 && r.Generation == 2 })
		g.awaitRow("delete", isGone)
		require.Equal(t, 1, worked.countOf("delete"))
	})
}

// Resources that wait for a retry get commands: in both modes, they are singles by then.
func TestBothModesTakeCommandsWhileTheyWaitForAnotherAttempt(t *testing.T) {
	inEachMode(t, func(t *testing.T, g mode) {
		var worked calls
		c := g.client(g.config(g.controller(func(_ context.Context, j job) error {
			worked.add(j.ObjectID)
			if worked.countOf(j.ObjectID) == 1 {
				return delta.ResourceSnooze(time.Hour) // until all commands are given, and the test makes them due
			}
			return nil
		})))
		c.SetTiming(0, 200*time.Millisecond, 0)
		require.NoError(t, c.Start(context.Background()))
		t.Cleanup(func() { _ = c.Stop(context.Background()) })
		g.inform(c, nil, asks...)
		for _, name := range asks {
			g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.Snoozes == 1 })
		}
		g.orderEach(c, deltatype.ResourceStateScheduled)
		g.awaitRow("inform", synced(2))
		g.comesDue(deltatype.ResourceStateScheduled)
		g.awaitRow("delete", inState(deltatype.ResourceStateDeleted))
		for _, name := range []string{"invalidate", "retry", "nothing"} {
			row := g.awaitRow(name, synced(1))
			require.EqualValues(t, 1, row.SyncCount)
			require.Equal(t, 2, worked.countOf(name))
		}
		require.Equal(t, 1, worked.countOf("pause"))
		_, err := c.Resume(t.Context(), g.kind, "pause")
		require.NoError(t, err)
		g.awaitRow("pause", synced(1))
	})
}

// comesDue makes all resources in a state due at once. A dispatcher wakes them, as it does if Temporal has lost their timers.
func (g mode) comesDue(state deltatype.ResourceState) {
	g.t.Helper()
	_, err := g.Pool.Exec(g.t.Context(), "UPDATE delta_resource SET due_at = now(), dispatch_at = now() WHERE state = $1", state)
	require.NoError(g.t, err)
}

// settlesAsAsked checks the resources that got commands before or during their attempt: an inform during Work is synced, once each.
func (g mode) settlesAsAsked(c *delta.Client, informed int64) {
	g.t.Helper()
	row := g.awaitRow("inform", synced(2))
	require.Equal(g.t, informed, row.SyncCount)
	for _, name := range []string{"invalidate", "retry", "nothing"} {
		row := g.awaitRow(name, synced(1))
		require.Equal(g.t, 1, row.Attempt)
		require.EqualValues(g.t, 1, row.SyncCount)
	}
	row = g.awaitRow("delete", inState(deltatype.ResourceStateDeleted))
	require.EqualValues(g.t, 2, row.Generation)
	_, err := c.Resume(g.t.Context(), g.kind, "pause")
	require.NoError(g.t, err)
	row = g.awaitRow("pause", synced(1))
	require.False(g.t, row.Paused)
	for _, name := range asks {
		g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.ClaimedUntil == nil })
	}
}
