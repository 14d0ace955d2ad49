package delta_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// fed is an object of a kind that a source feeds.
type fed struct{ account }

func (fed) Kind() string { return "fed" }
func (fed) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4}
}

type fedController struct {
	delta.WorkerDefaults[fed]
	delta.NoInformer[fed]
}

func (fedController) Work(context.Context, *delta.Resource[fed]) error { return nil }

// source is a delta.Source with a function as its Run.
type source func(ctx context.Context, feed *delta.Feed) error

func (source) Name() string { return "test" }

func (s source) Run(ctx context.Context, feed *delta.Feed) error { return s(ctx, feed) }

func withSource(s source) func(*delta.Controllers) {
	return func(controllers *delta.Controllers) {
		delta.AddController(controllers, fedController{})
		delta.AddSource[fed](controllers, s)
	}
}

func feedChange(name, plan string) delta.FeedChange {
	return delta.FeedChange{Object: fed{account{name, plan}}}
}

func (h *harness) sourceWorkflow() string { return h.Prefix + "/source:fed/test" }

func TestASourceFeedsItsKind(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	pages := make(chan delta.FeedPage, 10)
	positions := make(chan string, 1000)
	config := h.config(withSource(func(ctx context.Context, feed *delta.Feed) error {
		positions <- feed.Position()
		for {
			select {
			case page := <-pages:
				if err := feed.Write(ctx, page); err != nil {
					pages <- page // for the next run: one that stands still for long is replaced
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}))
	config.Kinds = map[string]delta.ObjectSettings{"fed": {Log: true}}
	c := h.start(config)
	require.Empty(t, <-positions)
	// The last change of each object counts, and an invalid one does not stop the others.
	pages <- delta.FeedPage{Position: "1", Changes: []delta.FeedChange{
		feedChange("ann", "old"),
		feedChange("bob", "free"),
		{GoneID: "ann"},
		feedChange("ann", "new"),
		feedChange("", "none"),
		{GoneID: "nobody"},
		{Refused: &delta.FeedRefusal{ID: "eve", Err: errors.New("she has no plan")}},
	}}
	row := h.eventually("fed", "ann", synced(1))
	require.Contains(t, string(row.EncodedObject), "new")
	h.eventually("fed", "bob", synced(1))
	refused, err := c.Refused(t.Context(), "fed")
	require.NoError(t, err)
	require.Len(t, refused, 2)
	require.Equal(t, "she has no plan", refused[1].Rule)

	pages <- delta.FeedPage{Position: "2", Changes: []delta.FeedChange{{GoneID: "ann"}, feedChange("eve", "free")}}
	h.eventually("fed", "eve", synced(1))
	row = h.eventually("fed", "ann", inState(deltatype.ResourceStateDeleted))
	require.Equal(t, deltatype.CauseUnlisted, row.Cause)
	refused, err = c.Refused(t.Context(), "fed")
	require.NoError(t, err)
	require.Len(t, refused, 1)
	changes, err := c.ResourceChanges(t.Context(), "fed", "ann", 0, 0)
	require.NoError(t, err)
	require.Len(t, changes, 2)
	require.Equal(t, delta.ChangeDeleted, changes[0].Type)
	require.Contains(t, string(changes[0].Before), "new")

	// After a wipe of Temporal, another run begins at the saved position.
	for len(positions) > 0 { // of runs that were replaced
		<-positions
	}
	require.NoError(t, h.Temporal.TerminateWorkflow(t.Context(), h.sourceWorkflow(), "", "the test wipes it"))
	h.start(h.config(withSource(func(ctx context.Context, feed *delta.Feed) error {
		positions <- feed.Position()
		<-ctx.Done()
		return ctx.Err()
	})))
	require.Equal(t, "2", receive(t, positions))
}

// Writes of a run after a newer one has begun are refused: they may be older.
func TestAnEarlierRunOfASourceWritesNoMore(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	begun, write, written := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once
	h.start(h.config(withSource(func(_ context.Context, feed *delta.Feed) error {
		isFirst := false
		once.Do(func() { isFirst = true })
		if !isFirst {
			return nil
		}
		close(begun)
		<-write // it does not notice that it should end
		written <- feed.Write(context.Background(), delta.FeedPage{Position: "stale", Changes: []delta.FeedChange{feedChange("ann", "stale")}})
		return nil
	})))
	<-begun
	second := make(chan struct{})
	closeSecond := sync.OnceFunc(func() { close(second) }) // a run that stands still for long is repeated
	require.NoError(t, h.Temporal.TerminateWorkflow(t.Context(), h.sourceWorkflow(), "", "the test wipes it"))
	h.start(h.config(withSource(func(ctx context.Context, feed *delta.Feed) error {
		if err := feed.Write(ctx, delta.FeedPage{Position: "fresh", Changes: []delta.FeedChange{feedChange("ann", "fresh")}}); err != nil {
			return err
		}
		closeSecond()
		<-ctx.Done()
		return ctx.Err()
	})))
	<-second
	close(write)
	require.ErrorContains(t, <-written, "another run of the source has begun")
	row := h.eventually("fed", "ann", synced(1))
	require.Contains(t, string(row.EncodedObject), "fresh")
	var position string
	require.NoError(t, h.Pool.QueryRow(t.Context(), `SELECT position FROM delta_source`).Scan(&position))
	require.Equal(t, "fresh", position)
}

// A run waits for a row that a user has locked, for longer than a silence of Postgres may last. A row that a listing found after its change does not
// replace the change.
func TestAPageOfASourceWaitsForLockedRows(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	pages, written, runs := make(chan delta.FeedPage), make(chan error, 100), atomic.Int32{}
	c := h.start(h.config(withSource(func(ctx context.Context, feed *delta.Feed) error {
		runs.Add(1)
		for {
			select {
			case page := <-pages:
				written <- feed.Write(ctx, page)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})))
	until(t, func() bool {
		pages <- delta.FeedPage{Changes: []delta.FeedChange{feedChange("ann", "old")}}
		return receive(t, written) == nil
	})
	h.eventually("fed", "ann", synced(1))

	// isWaitedFor reports whether one run has waited for the row and then written its page.
	isWaitedFor := func() bool {
		for len(written) > 0 {
			t.Log("a run was replaced: ", <-written)
		}
		before := runs.Load()
		deleted, err := c.Delete(t.Context(), "fed", "ann")
		require.NoError(t, err)
		tx, err := h.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.Background()) }()
		_, err = tx.Exec(t.Context(), "SELECT FROM delta_resource WHERE object_id = 'ann' FOR UPDATE")
		require.NoError(t, err)
		listed := feedChange("ann", "new")
		listed.Listed = true
		pages <- delta.FeedPage{Position: "2", Changes: []delta.FeedChange{feedChange("ann", "new"), listed}}
		until(t, func() bool {
			return len(written) > 0 ||
				h.countRows("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
		})
		select {
		case err := <-written:
			require.Error(t, err, "the row is locked")
			return false
		case <-time.After(activities.SourceSilence + 3*activities.SourceBeat): // a longer silence would end the run
		}
		require.NoError(t, tx.Rollback(t.Context()))
		if err := receive(t, written); err != nil || runs.Load() != before {
			return false
		}
		h.eventually("fed", "ann", synced(deleted.Generation+1))
		return true
	}
	// If the machine stands still for so long, another run replaces this one. A wait for a row never causes that.
	until(t, isWaitedFor, "no run waits for so long")
}

func TestASourceThatFailsIsSeenAndRunAgain(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, fail := range map[string]func() error{
		"an error": func() error { return errors.New("the stream is broken") },
		"a panic":  func() error { panic("the stream is broken") },
		"no error": func() error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			failures := make(chan delta.Failure, 100)
			allow := make(chan struct{})
			config := h.config(withSource(func(ctx context.Context, feed *delta.Feed) error {
				select {
				case <-allow:
				default:
					return fail()
				}
				if err := feed.Write(ctx, delta.FeedPage{Changes: []delta.FeedChange{feedChange("ann", "free")}}); err != nil {
					return err
				}
				<-ctx.Done()
				return ctx.Err()
			}))
			config.ErrorHandler = func(_ context.Context, f delta.Failure) { failures <- f }
			c := h.start(config)
			failure := <-failures
			require.Equal(t, delta.OperationSource, failure.Operation)
			require.Equal(t, "fed", failure.Kind)
			require.Equal(t, name == "a panic", failure.IsPanic)
			<-failures // the source is run again
			status := func() delta.SourceStatus {
				kinds, err := c.Kinds(t.Context())
				require.NoError(t, err)
				require.Len(t, kinds, 1)
				require.Len(t, kinds[0].Sources, 1)
				return kinds[0].Sources[0]
			}
			until(t, func() bool { return status().Failures >= 2 })
			require.NotEmpty(t, status().Error)
			var metrics strings.Builder
			require.NoError(t, c.WriteMetrics(t.Context(), &metrics))
			require.Contains(t, metrics.String(), `delta_sources_failing{kind="fed"} 1`)
			close(allow)
			h.eventually("fed", "ann", synced(1))
			until(t, func() bool { s := status(); return s.Error == "" && s.Failures == 0 }, "a running source is shown as failing")
		})
	}
}

// A complete listing of a source deletes omitted resources, even those that wait for Work, because no other listing comes.
func TestAListingOfASourceDeletesOmittedResources(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	informed := make(chan struct{})
	c := h.client(h.config(withSource(func(ctx context.Context, feed *delta.Feed) error {
		all := []delta.FeedChange{feedChange("listed", "1"), feedChange("unlisted", "1"), feedChange("waits", "1")}
		if err := feed.Write(ctx, delta.FeedPage{Changes: all}); err != nil {
			return err
		}
		<-informed
		if err := feed.BeginListing(ctx); err != nil {
			return err
		}
		listed, live := feedChange("listed", "1"), feedChange("live", "1")
		listed.Listed = true
		if err := feed.Write(ctx, delta.FeedPage{Changes: []delta.FeedChange{listed, live}}); err != nil {
			return err
		}
		if _, err := feed.EndListing(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})))
	require.NoError(t, c.PauseKind(t.Context(), "fed"))
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	h.eventually("fed", "waits", inState(deltatype.ResourceStateScheduled))
	close(informed)
	h.eventually("fed", "unlisted", inState(deltatype.ResourceStateDeleted))
	h.eventually("fed", "waits", inState(deltatype.ResourceStateDeleted))
	require.Equal(t, deltatype.ResourceStateScheduled, h.row("fed", "listed").State)
	require.Equal(t, deltatype.ResourceStateScheduled, h.row("fed", "live").State)
}

// An outcome or a command that is written while a source lists says nothing of whether the source has the object: its
// resource is deleted, because no other listing comes. An inform does, and keeps it.
func TestAListingOfASourceDeletesWhatIsWorkedMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	closeBegun := sync.OnceFunc(func() { close(begun) }) // a run that stands still for long is repeated
	works := &heldFed{begun: make(chan struct{}), goOn: make(chan struct{})}
	ended := make(chan *delta.InformRun, 1)
	c := h.start(h.config(func(controllers *delta.Controllers) {
		delta.AddController(controllers, works)
		delta.AddSource[fed](controllers, source(func(ctx context.Context, feed *delta.Feed) error {
			all := []delta.FeedChange{feedChange("worked", "1"), feedChange("expired", "1"), feedChange("informed", "1")}
			if err := feed.Write(ctx, delta.FeedPage{Changes: all}); err != nil {
				return err
			}
			<-works.begun
			if err := feed.BeginListing(ctx); err != nil {
				return err
			}
			closeBegun()
			<-goOn
			listed := feedChange("listed", "1")
			listed.Listed = true
			if err := feed.Write(ctx, delta.FeedPage{Changes: []delta.FeedChange{listed}}); err != nil {
				return err
			}
			run, err := feed.EndListing(ctx)
			if err != nil {
				return err
			}
			ended <- run
			<-ctx.Done()
			return ctx.Err()
		}))
	}))
	h.eventually("fed", "expired", synced(1))
	h.eventually("fed", "informed", synced(1))
	<-begun
	close(works.goOn)
	h.eventually("fed", "worked", synced(1))
	_, err := c.Invalidate(t.Context(), fed{account{Name: "expired"}})
	require.NoError(t, err)
	h.eventually("fed", "expired", synced(2))
	_, err = c.Inform(t.Context(), fed{account{"informed", "1"}}, nil)
	require.NoError(t, err)
	close(goOn)
	require.Equal(t, 2, (<-ended).Deleted)
	require.Equal(t, deltatype.ResourceStateDeleted, h.row("fed", "worked").State)
	require.Equal(t, deltatype.ResourceStateDeleted, h.row("fed", "expired").State)
	require.Equal(t, deltatype.ResourceStateSynced, h.row("fed", "informed").State)
}

// heldFed holds the Work of the object "worked" until it may go on.
type heldFed struct {
	fedController
	begin       sync.Once
	begun, goOn chan struct{}
}

func (w *heldFed) Work(ctx context.Context, r *delta.Resource[fed]) error {
	if r.ObjectID != "worked" {
		return nil
	}
	w.begin.Do(func() { close(w.begun) })
	select {
	case <-w.goOn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestASourceIsRefusedWhereItCannotBe(t *testing.T) {
	t.Parallel()
	var s source
	controllers := delta.NewControllers()
	require.ErrorContains(t, delta.AddSourceSafely[fed](controllers, s), `kind "fed": the kind has no controller`)
	delta.AddController(controllers, fedController{})
	require.ErrorContains(t, delta.AddSourceSafely[fed](controllers, nil), "the source is nil")
	require.NoError(t, delta.AddSourceSafely[fed](controllers, s))
	require.ErrorContains(t, delta.AddSourceSafely[fed](controllers, s), `has a source "test" already`)
	delta.AddController(controllers, &controller[account]{})
	require.ErrorContains(t, delta.AddSourceSafely[account](controllers, s), "its controller has an informer")
}

// Running clients restart a terminated workflow of a source.
func TestTheWorkflowOfASourceIsKeptAlive(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	runs := make(chan struct{}, 10)
	config := h.config(withSource(func(ctx context.Context, _ *delta.Feed) error {
		runs <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}))
	config.MaintenanceJobInterval = 500 * time.Millisecond
	h.start(config)
	<-runs
	require.NoError(t, h.Temporal.TerminateWorkflow(t.Context(), h.sourceWorkflow(), "", "the test wipes it"))
	<-runs
	found, err := h.Temporal.DescribeWorkflow(t.Context(), h.sourceWorkflow(), "")
	require.NoError(t, err)
	require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, found.Status)
}

// Refused objects of a source are stored up to a bound. Beyond it, the log, the listing and the passes count them.
func TestRefusedObjectsOfASourceAreCountedBeyondTheBound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const noted, more = 1000, 7
	ended := make(chan *delta.InformRun, 1)
	var logs logBuffer
	config := h.config(withSource(func(ctx context.Context, feed *delta.Feed) error {
		if err := feed.BeginListing(ctx); err != nil {
			return err
		}
		for _, page := range [][2]int{{0, noted}, {noted, noted + more}} {
			var changes []delta.FeedChange
			for i := page[0]; i < page[1]; i++ {
				changes = append(changes, delta.FeedChange{Listed: true, Refused: &delta.FeedRefusal{ID: fmt.Sprint(i), Err: errors.New("its plan is NULL")}})
			}
			if err := feed.Write(ctx, delta.FeedPage{Changes: changes}); err != nil {
				return err
			}
		}
		run, err := feed.EndListing(ctx)
		if err != nil {
			return err
		}
		select {
		case ended <- run:
		case <-ctx.Done():
		}
		<-ctx.Done()
		return ctx.Err()
	}))
	config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	c := h.start(config)
	run := <-ended
	require.Equal(t, noted+more, run.Refused)
	require.Equal(t, noted+more, run.Unkept, "an unmappable row has no JSON to store")
	require.Contains(t, logs.String(), "not_noted=7")
	passes, err := c.InformPasses(t.Context(), "fed", "", 0)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(passes, func(p delta.InformPass) bool { return p.Unkept == noted+more }), "%+v", passes)
	var metrics strings.Builder
	require.NoError(t, c.WriteMetrics(t.Context(), &metrics))
	require.Contains(t, metrics.String(), "delta_refused{kind=\"fed\"} 1000\n")
}
