package delta_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// keptEach and keptBatched are a kind with complete listings, in the two modes. Its degraded resources are retried soon.
type keptEach struct{ account }

func (keptEach) Kind() string                   { return "kept-each" }
func (keptEach) Settings() delta.ObjectSettings { return keptSettings(1) }

type keptBatched struct{ account }

func (keptBatched) Kind() string                   { return "kept-batched" }
func (keptBatched) Settings() delta.ObjectSettings { return keptSettings(50) }

func keptSettings(size int) delta.ObjectSettings {
	s := batchSettings(size)
	s.CompleteListing, s.DegradedRetryInterval, s.MaxDeleted, s.MaxDeletedShare = true, 200*time.Millisecond, 3, 0.97
	s.RetryPolicy = delta.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumInterval: 20 * time.Millisecond}
	return s
}

// listedMode is a mode whose kind has an informer that lists upstream.
type listedMode struct {
	mode
	upstream *upstream[account]
	logs     *logBuffer
	// add adds the controller. With a second function, it has a Finalizer.
	add func(work, finalize func(context.Context, job) error) func(*delta.Controllers)
}

// finalizing is a controller with a Finalizer.
type finalizing[T delta.Object] struct {
	*controller[T]
	finalize worker[T]
}

func (f finalizing[T]) Finalize(ctx context.Context, r *delta.Resource[T]) error {
	return f.finalize(ctx, r)
}

// inListedModes runs a test in both modes of the kept kind.
func inListedModes(t *testing.T, test func(t *testing.T, g listedMode)) {
	t.Helper()
	t.Parallel()
	for _, g := range []listedMode{
		listedModeFor(func(a account) keptEach { return keptEach{a} }, func(o keptEach) account { return o.account }),
		listedModeFor(func(a account) keptBatched { return keptBatched{a} }, func(o keptBatched) account { return o.account }),
	} {
		t.Run(g.kind, func(t *testing.T) {
			t.Parallel()
			g.harness, g.logs = newHarness(t), &logBuffer{}
			test(t, g)
		})
	}
}

func listedModeFor[T delta.Object](object func(account) T, accountOf func(T) account) listedMode {
	up := &upstream[account]{}
	g := listedMode{mode: modeFor(0, object, accountOf), upstream: up}
	of := func(do func(context.Context, job) error) worker[T] {
		return func(ctx context.Context, r *delta.Resource[T]) error {
			return do(ctx, job{r.ResourceRow, accountOf(r.Object), r.CompleteTx})
		}
	}
	g.add = func(work, finalize func(context.Context, job) error) func(*delta.Controllers) {
		c := &controller[T]{
			work: of(work),
			inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan T, error) {
				up.mu.Lock()
				defer up.mu.Unlock()
				all := make([]T, len(up.all))
				for i, a := range up.all {
					all[i] = object(a)
				}
				return sendAll(ctx, all...), up.fail
			},
		}
		if finalize == nil {
			return with(c)
		}
		return func(cs *delta.Controllers) { delta.AddController(cs, finalizing[T]{c, of(finalize)}) }
	}
	return g
}

// startListed starts a client with a log that the test can read. configure may be nil.
func (g listedMode) startListed(configure func(*delta.Config), work func(context.Context, job) error) *delta.Client {
	g.t.Helper()
	return g.startFinalizing(configure, work, nil)
}

// startFinalizing is startListed with a Finalizer.
func (g listedMode) startFinalizing(configure func(*delta.Config), work, finalize func(context.Context, job) error) *delta.Client {
	g.t.Helper()
	config := g.config(g.add(work, finalize))
	config.Logger = g.logs.logger()
	if configure != nil {
		configure(config)
	}
	return g.start(config)
}

// runInformer runs the informer until all informed resources have settled.
func (g listedMode) runInformer(c *delta.Client) *delta.InformRun {
	g.t.Helper()
	run, err := c.RunInform(g.t.Context(), delta.ScheduleInformParams{ResourceKind: g.kind, RunForeground: true}, nil)
	require.NoError(g.t, err)
	return run
}

// setUpstream replaces the accounts upstream.
func (g listedMode) setUpstream(names ...string) {
	all := make([]account, len(names))
	for i, name := range names {
		all[i] = account{Name: name}
	}
	g.upstream.set(all...)
}

// awaitAll waits until the kind has n resources in a state.
func (g listedMode) awaitAll(n int, state deltatype.ResourceState) {
	g.t.Helper()
	until(g.t, func() bool { return g.countStates(g.kind)[state] == n }, "%d resources of %s are to be %s", n, g.kind, state)
}

// ownWorkflows returns how many resources are singles.
func (g listedMode) ownWorkflows() (n int) {
	g.t.Helper()
	err := g.Pool.QueryRow(context.Background(), "SELECT count(*) FROM delta_resource WHERE NOT starts_with(workflow_id, $1)",
		g.Prefix+"/"+g.kind+":batch/").Scan(&n)
	require.NoError(g.t, err)
	return n
}

// isBatched reports whether the mode is the one with batches.
func (g listedMode) isBatched() bool { return slices.Contains([]string{"kept-batched"}, g.kind) }

// hasLine reports whether a line of the log has all of these texts.
func (b *logBuffer) hasLine(texts ...string) bool {
	return slices.ContainsFunc(strings.Split(b.String(), "\n"), func(line string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
	})
}

// A deleted resource is removed once a complete listing omits it. A listing whose omissions are withheld does not count.
func TestAWithheldListingIsNoProofThatADeletedResourceIsGone(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		c := g.startListed(briefRetentions, func(context.Context, job) error { return nil })
		g.setUpstream("a", "b", "c", "gone")
		g.runInformer(c)
		_, err := c.Delete(t.Context(), g.kind, "gone")
		require.NoError(t, err)
		kept := "SELECT count(*) FROM delta_resource WHERE object_id = 'gone' AND state = 'deleted' AND due_at IS NULL AND dispatch_at IS NULL"
		until(t, func() bool { return g.countRows(kept) == 1 }, "its retention has passed")

		g.setUpstream()
		require.EqualValues(t, 3, g.runInformer(c).Withheld)
		require.Equal(t, 1, g.countRows(kept))
		g.setUpstream("a", "b", "c", "gone")
		g.runInformer(c)
		require.Equal(t, 1, g.countRows(kept), "it is still listed")
		g.setUpstream("a", "b", "c")
		until(t, func() bool { g.runInformer(c); return g.countStates(g.kind)[deltatype.ResourceStateDeleted] == 0 })
	})
}
