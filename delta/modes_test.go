package delta_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// each and batched are the same kind in the two modes: singles and batches.
type each struct{ account }

func (each) Kind() string                   { return "each" }
func (each) Settings() delta.ObjectSettings { return batchSettings(1) }

type batched struct{ account }

func (batched) Kind() string                   { return "batched" }
func (batched) Settings() delta.ObjectSettings { return batchSettings(50) }

func batchSettings(size int) delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 8, InformInterval: -1, BatchSize: size}
}

// job is a call of Work, in either mode.
type job struct {
	*deltatype.ResourceRow
	Object     account
	CompleteTx func(context.Context, pgx.Tx) error
}

// mode has what a test needs of a mode.
type mode struct {
	*harness
	kind       string
	object     func(account) delta.Object
	controller func(work func(context.Context, job) error) func(*delta.Controllers)
	// isRare is set if a push does not try the mode.
	isRare bool
}

// inEachMode runs a test in both modes.
func inEachMode(t *testing.T, test func(t *testing.T, g mode)) {
	t.Helper()
	inEachModeBut(t, "", test)
}

// inEachModeBut runs a test that costs much in both modes, of which a push tries one.
func inEachModeBut(t *testing.T, rare string, test func(t *testing.T, g mode)) {
	t.Helper()
	modes := []mode{
		modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account }),
		modeFor(0, func(a account) batched { return batched{a} }, func(o batched) account { return o.account }),
	}
	for i := range modes {
		modes[i].isRare = modes[i].kind == rare
	}
	require.True(t, rare == "" || slices.ContainsFunc(modes, func(g mode) bool { return g.isRare }), "there is no mode %q", rare)
	inModes(t, test, modes...)
}

// inModes runs a test in each of some modes, which have no harness yet.
func inModes(t *testing.T, test func(t *testing.T, g mode), modes ...mode) {
	t.Helper()
	t.Parallel()
	for _, g := range modes {
		t.Run(g.kind, func(t *testing.T) {
			if g.isRare {
				soak.Rare(t)
			}
			t.Parallel()
			g.harness = newHarness(t)
			test(t, g)
		})
	}
}

// modeFor makes a mode of a kind, without a harness.
func modeFor[T delta.Object](timeout time.Duration, object func(account) T, accountOf func(T) account) mode {
	return mode{
		kind: object(account{}).Kind(), object: func(a account) delta.Object { return object(a) },
		controller: func(work func(context.Context, job) error) func(*delta.Controllers) {
			return with(&controller[T]{timeout: timeout, work: func(ctx context.Context, r *delta.Resource[T]) error {
				return work(ctx, job{r.ResourceRow, accountOf(r.Object), r.CompleteTx})
			}})
		},
	}
}

func (g mode) startWorker(work func(context.Context, job) error) *delta.Client {
	g.t.Helper()
	return g.start(g.config(g.controller(work)))
}

// startLongClaims is startWorker with claims that outlive a stall of the machine.
func (g mode) startLongClaims(work func(context.Context, job) error) *delta.Client {
	g.t.Helper()
	return g.start(withLongClaims(g.config(g.controller(work)), g.kind))
}

func (g mode) inform(c *delta.Client, opts *delta.InformOpts, names ...string) {
	g.t.Helper()
	var objects []delta.Object
	for _, name := range names {
		objects = append(objects, g.object(account{Name: name}))
	}
	_, err := c.InformMany(g.t.Context(), objects, opts)
	require.NoError(g.t, err)
}

func (g mode) awaitRow(name string, is func(*deltatype.ResourceRow) bool) *deltatype.ResourceRow {
	g.t.Helper()
	return g.eventually(g.kind, name, is)
}

func names(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s%02d", prefix, i))
	}
	return all
}

func TestBothModesMapEachOutcomeToItsState(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		var calls sync.Map
		c := g.startWorker(func(_ context.Context, j job) error {
			n, _ := calls.LoadOrStore(j.Object.Name, new(atomic.Int64))
			first := n.(*atomic.Int64).Add(1) == 1
			switch {
			case j.Object.Name == "fails" && first:
				return errors.New("upstream says no")
			case j.Object.Name == "snoozes" && first:
				return delta.ResourceSnooze(200 * time.Millisecond)
			case j.Object.Name == "panics":
				panic("index out of luck")
			case j.Object.Name == "exits" && first:
				panic("once")
			case j.Object.Name == "degrades":
				return delta.ResourceDegrade(errors.New("closed"))
			case j.Object.Name == "gone":
				return delta.ResourceDelete(errors.New("404"))
			}
			return nil
		})
		events, cancel := c.SubscribeConfig(&delta.SubscribeConfig{ChanSize: 1000, Categories: []delta.EventCategory{
			delta.EventCategoryObjectSynced, delta.EventCategoryObjectFailed, delta.EventCategoryObjectDeleted,
		}})
		defer cancel()
		g.inform(c, nil, append(names("ok", 60), "fails", "snoozes", "exits", "degrades", "gone")...)
		g.inform(c, &delta.InformOpts{MaxAttempts: 1}, "panics")

		for _, name := range names("ok", 60) {
			row := g.awaitRow(name, synced(1))
			require.Equal(t, 1, row.Attempt)
			require.EqualValues(t, 1, row.SyncCount)
			require.NotNil(t, row.DueAt)
			require.Nil(t, row.ClaimedUntil)
			require.Equal(t, g.kind == "batched", strings.HasPrefix(row.WorkflowID, g.Prefix+"/batched:batch/"), row.WorkflowID)
		}
		row := g.awaitRow("fails", synced(1))
		require.Equal(t, 2, row.Attempt)
		require.Equal(t, "upstream says no", row.Errors[0].Error)
		row = g.awaitRow("snoozes", synced(1))
		require.Equal(t, 1, row.Attempt)
		require.Equal(t, 1, row.Snoozes)
		require.Empty(t, row.Errors)
		require.Equal(t, 2, g.awaitRow("exits", synced(1)).Attempt)
		row = g.awaitRow("panics", inState(deltatype.ResourceStateDegraded))
		require.Equal(t, "panic: index out of luck", row.Errors[0].Error)
		require.Contains(t, row.Errors[0].Trace, "modes_test.go")
		row = g.awaitRow("degrades", inState(deltatype.ResourceStateDegraded))
		require.Equal(t, 1, row.Attempt)
		require.NotNil(t, row.DueAt)
		row = g.awaitRow("gone", inState(deltatype.ResourceStateDeleted))
		require.Equal(t, "resource deleted: 404", row.Errors[0].Error)

		// Degraded resources are checked separately.
		g.awaitRow("degrades", func(r *deltatype.ResourceRow) bool { return r.WorkflowID == g.Prefix+"/"+g.kind+"/degrades" })

		seen := map[delta.EventCategory]int{}
		for range 60 + 3 + 2 + 2 + 1 {
			select {
			case e := <-events:
				seen[e.EventCategory]++
				if e.EventCategory == delta.EventCategoryObjectSynced {
					require.Equal(t, deltatype.ResourceStateSynced, e.Resource.State)
					require.NotNil(t, e.Resource.SyncedAt)
					require.EqualValues(t, 1, e.Resource.SyncCount)
				}
			case <-time.After(patience):
				t.Fatalf("an event is missing: %v", seen)
			}
		}
		require.Equal(t, map[delta.EventCategory]int{
			delta.EventCategoryObjectSynced: 63, delta.EventCategoryObjectFailed: 4, delta.EventCategoryObjectDeleted: 1,
		}, seen)
	})
}

func TestBothModesSyncAnInformDuringWorkNext(t *testing.T) {
	inEachMode(t, func(t *testing.T, g mode) {
		started, finish := make(chan string, 4), make(chan struct{})
		var running, most atomic.Int64
		c := g.startLongClaims(func(ctx context.Context, j job) error {
			if j.Object.Name != "ann" {
				return nil
			}
			raiseTo(&most, running.Add(1))
			defer running.Add(-1)
			started <- j.Object.Plan
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		g.inform(c, nil, append(names("ok", 10), "ann")...)
		require.Empty(t, <-started)
		_, err := c.Inform(t.Context(), g.object(account{Name: "ann", Plan: "two"}), nil)
		require.NoError(t, err)
		g.inform(c, nil, names("more", 10)...)
		for _, name := range names("more", 10) {
			g.awaitRow(name, synced(1)) // other resources do not wait
		}
		require.Empty(t, started, "Work is called for a resource by one at a time")
		finish <- struct{}{}
		require.Equal(t, "two", <-started)
		row := g.row(g.kind, "ann")
		require.EqualValues(t, 1, row.SyncedGeneration)
		require.Equal(t, 1, row.Attempt)
		finish <- struct{}{}
		g.awaitRow("ann", synced(2))
		require.EqualValues(t, 1, most.Load())
	})
}

func TestBothModesExpireAndSyncAgain(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		config := g.config(g.controller(func(_ context.Context, j job) error {
			if j.Object.Name == "fails" && j.Generation == 1 && j.Attempt == 1 {
				return errors.New("once")
			}
			return nil
		}))
		config.Namespaces = map[string]delta.NamespaceConfig{"default": {MaxWorkers: 3, ResourceExpiry: 500 * time.Millisecond}}
		c := g.start(config)
		g.inform(c, nil, append(names("ok", 20), "fails")...)
		for _, name := range append(names("ok", 20), "fails") {
			g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r.SyncCount >= 3 })
		}
		if g.kind == "batched" {
			g.awaitRow("fails", func(r *deltatype.ResourceRow) bool { return strings.Contains(r.WorkflowID, ":batch/") })
		}
	})
}

func TestBothModesRemoveRowsAfterRetention(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		config := g.config(g.controller(func(_ context.Context, j job) error {
			if j.Object.Name == "gone" {
				return delta.ResourceDelete(nil)
			}
			return nil
		}))
		config.SyncedResourceRetentionPeriod = 300 * time.Millisecond
		config.DeletedResourceRetentionPeriod = 300 * time.Millisecond
		c := g.start(config)
		g.inform(c, nil, append(names("ok", 20), "gone")...)
		for _, name := range append(names("ok", 20), "gone") {
			g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r == nil })
		}
	})
}

func TestBothModesLeavePausedResources(t *testing.T) {
	inEachMode(t, func(t *testing.T, g mode) {
		var calls atomic.Int64
		c := g.startWorker(func(_ context.Context, j job) error {
			if j.Object.Name == "ann" {
				calls.Add(1)
			}
			return nil
		})
		require.NoError(t, c.PauseKind(t.Context(), g.kind))
		g.inform(c, nil, append(names("ok", 5), "ann")...)
		_, err := c.Pause(t.Context(), g.kind, "ann")
		require.NoError(t, err)
		require.NoError(t, c.ResumeKind(t.Context(), g.kind))
		for _, name := range names("ok", 5) {
			g.awaitRow(name, synced(1))
		}
		require.Zero(t, calls.Load())
		require.Equal(t, deltatype.ResourceStateScheduled, g.row(g.kind, "ann").State)
		_, err = c.Resume(t.Context(), g.kind, "ann")
		require.NoError(t, err)
		g.awaitRow("ann", synced(1))
	})
}

func TestBothModesTakeCommands(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		c := g.startWorker(func(_ context.Context, j job) error {
			if j.Object.Plan == "bad" {
				return errors.New("bad plan")
			}
			return nil
		})
		for i := range 5 {
			row, err := c.Sync(t.Context(), g.object(account{Name: fmt.Sprint("sync", i)}), nil)
			require.NoError(t, err)
			require.Equal(t, deltatype.ResourceStateSynced, row.State)
		}
		_, err := c.Sync(t.Context(), g.object(account{Name: "bad", Plan: "bad"}), &delta.InformOpts{MaxAttempts: 1})
		require.ErrorIs(t, err, delta.ErrNotSynced)
		require.ErrorContains(t, err, "bad plan")

		g.inform(c, nil, names("ok", 10)...)
		for _, name := range names("ok", 10) {
			g.awaitRow(name, synced(1))
		}
		_, err = c.Invalidate(t.Context(), g.object(account{Name: "ok00"}))
		require.NoError(t, err)
		g.awaitRow("ok00", synced(2))
		// A signal to a member goes to its own workflow.
		_, err = g.Temporal.SignalWithStartWorkflow(t.Context(), g.Prefix+"/"+g.kind+"/ok01", "invalidate", nil,
			client.StartWorkflowOptions{ID: g.Prefix + "/" + g.kind + "/ok01", TaskQueue: g.Prefix + "/" + g.kind},
			workflows.ResourceName, map[string]any{"kind": g.kind, "object_id": "ok01"})
		require.NoError(t, err)
		g.awaitRow("ok01", synced(2))
		_, err = c.Delete(t.Context(), g.kind, "ok02")
		require.NoError(t, err)
		g.awaitRow("ok02", inState(deltatype.ResourceStateDeleted))
		for _, name := range names("ok", 10)[3:] {
			require.EqualValues(t, 1, g.row(g.kind, name).SyncCount)
		}
	})
}

func TestBothModesCompleteInTheUsersTransaction(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		g.createEffects()
		c := g.startWorker(func(ctx context.Context, j job) error {
			tx, err := g.Pool.Begin(ctx)
			if err != nil {
				return err
			}
			defer tx.Rollback(ctx) //nolint:errcheck // after a commit it does nothing
			if _, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", j.ObjectID, j.Attempt); err != nil {
				return err
			}
			if err := j.CompleteTx(ctx, tx); err != nil {
				return err
			}
			if j.ObjectID == "rolls-back" && j.Attempt == 1 {
				return nil
			}
			if err := tx.Commit(ctx); err != nil {
				return err
			}
			if j.ObjectID == "fails-after" {
				return errors.New("too late to fail")
			}
			return nil
		})
		g.inform(c, nil, "commits", "rolls-back", "fails-after")
		row := g.awaitRow("rolls-back", synced(1))
		require.Equal(t, 2, row.Attempt)
		require.Contains(t, row.Errors[0].Error, "the transaction was not committed")
		require.Equal(t, 1, g.awaitRow("commits", synced(1)).Attempt)
		row = g.awaitRow("fails-after", synced(1))
		require.Empty(t, row.Errors)
		require.Equal(t, 3, g.countEffects())
		// They continue as usual.
		g.awaitRow("commits", func(r *deltatype.ResourceRow) bool { return r.ClaimedUntil == nil })
		_, err := c.Inform(t.Context(), g.object(account{Name: "commits", Plan: "new"}), nil)
		require.NoError(t, err)
		g.awaitRow("commits", synced(2))
	})
}

func TestBothModesBoundWork(t *testing.T) {
	soak.Long(t)
	inEachModeBut(t, "each", func(t *testing.T, g mode) {
		var running, most, all, mostAll atomic.Int64
		config := g.config(g.controller(func(_ context.Context, j job) error {
			defer all.Add(-1)
			raiseTo(&mostAll, all.Add(1))
			if j.Namespace == "narrow" {
				defer running.Add(-1)
				raiseTo(&most, running.Add(1))
			}
			time.Sleep(3 * time.Millisecond)
			return nil
		}))
		config.Namespaces = map[string]delta.NamespaceConfig{"narrow": {MaxWorkers: 2}}
		c := g.start(config)
		g.inform(c, &delta.InformOpts{Namespace: "narrow"}, names("narrow", 60)...)
		g.inform(c, nil, names("wide", 60)...)
		for _, name := range append(names("narrow", 60), names("wide", 60)...) {
			g.awaitRow(name, synced(1))
		}
		require.LessOrEqual(t, most.Load(), int64(2))
		require.LessOrEqual(t, mostAll.Load(), int64(8))
	})
}
