package delta_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// works is a controller without a listing.
type works struct{}

func (works) Work(context.Context, *delta.Resource[mirror]) error { return nil }

// lists has a valid List.
type lists struct{}

func (lists) List(context.Context, *delta.InformOptions) iter.Seq2[mirror, error] {
	return func(func(mirror, error) bool) {}
}

// informs has its own Inform.
type informs struct{}

func (informs) Inform(context.Context, *delta.InformOptions) (<-chan mirror, error) {
	return nil, errors.New("not called")
}

// Each combination of embedded defaults is a controller without ambiguous methods.
type (
	withWorker   = delta.WorkerDefaults[mirror]
	withInformer = delta.InformerDefaults[mirror]
	withLister   = delta.ListerDefaults[mirror]
	withNone     = delta.NoInformer[mirror]
)

func TestDefaultsCanBeEmbeddedInAnyCombination(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		controller delta.Controller[mirror]
		refused    string
	}{
		"informer": {controller: struct {
			works
			informs
			withWorker
			withInformer
		}{}},
		"informer, and lists": {controller: struct {
			works
			informs
			lists
			withWorker
			withInformer
		}{}},
		"lister, and lists": {controller: struct {
			works
			lists
			withWorker
			withLister
		}{}},
		"lister, informer, and lists": {controller: struct {
			works
			lists
			withWorker
			withInformer
			withLister
		}{}},
		"none": {controller: struct {
			works
			withWorker
			withNone
		}{}},
		"none, informer": {controller: struct {
			works
			withWorker
			withInformer
			withNone
		}{}},
		"none, lister": {controller: struct {
			works
			withWorker
			withLister
			withNone
		}{}},
		"none, lister, informer": {controller: struct {
			works
			withWorker
			withInformer
			withLister
			withNone
		}{}},
		"lister": {controller: struct {
			works
			withWorker
			withLister
		}{}, refused: "it has none"},
		"lister, informer": {controller: struct {
			works
			withWorker
			withInformer
			withLister
		}{}, refused: "it has none"},
		"lists, none": {controller: struct {
			works
			lists
			withWorker
			withNone
		}{}, refused: "embeds delta.NoInformer, and"},
	} {
		err := delta.AddControllerSafely(delta.NewControllers(), c.controller)
		if c.refused == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, c.refused, name)
		}
	}
}

// Methods that look like a List.
type (
	listOfAnother  struct{ listless }
	listOfChannel  struct{ listless }
	listByPointer  struct{ listless }
	listWithoutCtx struct{ listless }
	listless       struct {
		works
		withWorker
		withLister
	}
)

func (listOfAnother) List(context.Context, *delta.InformOptions) iter.Seq2[account, error] {
	return nil
}

func (listOfChannel) List(context.Context, *delta.InformOptions) (<-chan mirror, error) {
	return nil, nil
}

func (*listByPointer) List(context.Context, *delta.InformOptions) iter.Seq2[mirror, error] {
	return nil
}
func (listWithoutCtx) List(*delta.InformOptions) iter.Seq2[mirror, error] { return nil }

func TestAControllerWithListerDefaultsAndNoRightListIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		controller delta.Controller[mirror]
		says       string
	}{
		{listless{}, "it has none"},
		{&listOfAnother{}, "its List is func(context.Context, *deltatype.InformOptions) iter.Seq2[github.com/chariot-giving/delta/delta_test.account,error]"},
		{listOfChannel{}, "its List is func(context.Context, *deltatype.InformOptions) (<-chan delta_test.mirror, error)"},
		{listByPointer{}, "its List has a pointer receiver: add a *delta_test.listByPointer"},
		{listWithoutCtx{}, "its List is func(*deltatype.InformOptions)"},
		{&decorated[mirror]{Controller: listless{}, inner: listless{}}, "delta_test.listless embeds delta.ListerDefaults"},
	} {
		controllers := delta.NewControllers()
		err := delta.AddControllerSafely(controllers, c.controller)
		require.ErrorContains(t, err, c.says)
		require.ErrorContains(t, err, `controller for kind "mirror"`)
		require.ErrorContains(t, err, "must have a method List(context.Context, *delta.InformOptions) iter.Seq2[")
		require.NoError(t, delta.AddControllerSafely(controllers, &listByPointer{}), "the kind is still free")
	}
}

// yields is a controller with a function as its List.
type yields[T delta.Object] struct {
	delta.WorkerDefaults[T]
	delta.ListerDefaults[T]
	list    func(ctx context.Context, o *delta.InformOptions, yield func(T, error) bool)
	work    worker[T]
	timeout time.Duration
}

func (c *yields[T]) Work(ctx context.Context, r *delta.Resource[T]) error {
	if c.work == nil {
		return nil
	}
	return c.work(ctx, r)
}

func (c *yields[T]) List(ctx context.Context, o *delta.InformOptions) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) { c.list(ctx, o, yield) }
}

func (c *yields[T]) InformTimeout(*delta.InformArgs[T]) time.Duration { return c.timeout }

func addTo[T delta.Object](c delta.Controller[T]) func(*delta.Controllers) {
	return func(cs *delta.Controllers) { delta.AddController(cs, c) }
}

// logs keeps the records of a logger.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// A listing that breaks off does not count as one that omits the rest.
func TestAListingThatFailsHalfWayDeletesNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	down := errors.New("503 Service Unavailable")
	half := func(broken *atomic.Bool) []mirror {
		if broken.Load() {
			return newMirrors(8)
		}
		return newMirrors(10)
	}
	for name, controllerOf := range map[string]func(broken *atomic.Bool) delta.Controller[mirror]{
		"an iterator that yields an error": func(broken *atomic.Bool) delta.Controller[mirror] {
			return &yields[mirror]{list: func(_ context.Context, _ *delta.InformOptions, yield func(mirror, error) bool) {
				for _, m := range half(broken) {
					if !yield(m, nil) {
						return
					}
				}
				if broken.Load() {
					yield(mirror{}, down)
				}
			}}
		},
		"an iterator that goes on after its error": func(broken *atomic.Bool) delta.Controller[mirror] {
			return &yields[mirror]{list: func(_ context.Context, _ *delta.InformOptions, yield func(mirror, error) bool) {
				for i, m := range half(broken) {
					if broken.Load() && i == 7 {
						yield(m, down)
						return
					}
					yield(m, nil)
				}
			}}
		},
		"a channel, and FailInform": func(broken *atomic.Bool) delta.Controller[mirror] {
			return &controller[mirror]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan mirror, error) {
				out := make(chan mirror)
				go func() {
					defer close(out)
					for _, m := range half(broken) {
						out <- m
					}
					if broken.Load() {
						delta.FailInform(ctx, down)
					}
				}()
				return out, nil
			}}
		},
		"a channel that stays open, and FailInform": func(broken *atomic.Bool) delta.Controller[mirror] {
			return &controller[mirror]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan mirror, error) {
				derived, cancel := context.WithCancel(ctx)
				out := make(chan mirror, 10)
				for _, m := range half(broken) {
					out <- m
				}
				if broken.Load() {
					context.AfterFunc(ctx, cancel)
					go delta.FailInform(derived, down) // and the channel stays open
					return out, nil
				}
				cancel()
				close(out)
				return out, nil
			}}
		},
		"an iterator that stops at its timeout": func(broken *atomic.Bool) delta.Controller[mirror] {
			return &yields[mirror]{timeout: 2 * time.Second, list: func(ctx context.Context, _ *delta.InformOptions, yield func(mirror, error) bool) {
				for _, m := range half(broken) {
					yield(m, nil)
				}
				if broken.Load() {
					<-ctx.Done()
				}
			}}
		},
		"an iterator that panics": func(broken *atomic.Bool) delta.Controller[mirror] {
			return &yields[mirror]{list: func(_ context.Context, _ *delta.InformOptions, yield func(mirror, error) bool) {
				for _, m := range half(broken) {
					yield(m, nil)
				}
				if broken.Load() {
					panic(down)
				}
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			h := newHarness(t)
			c := h.start(h.config(addTo(controllerOf(&broken))))
			params := delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}
			run, err := c.RunInform(t.Context(), params, nil)
			require.NoError(t, err)
			require.Equal(t, 10, run.Listed)
			before := h.readCursor("mirror")

			broken.Store(true)
			h.failsOnce(c, params)
			require.Equal(t, before, h.readCursor("mirror"))
			require.Equal(t, map[deltatype.ResourceState]int{"synced": 10}, h.countStates("mirror"))
		})
	}
}

// failsOnce requests a pass, waits until its first attempt has failed, and ends its run: later attempts would see changes that the test makes
// upstream.
func (h *harness) failsOnce(c *delta.Client, params delta.ScheduleInformParams) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	var failed delta.InformProgress
	_, err := c.WatchInform(ctx, params, nil, func(p delta.InformProgress) {
		if p.LastFailure != "" {
			failed = p
			cancel()
		}
	})
	require.Error(h.t, err)
	require.NotEmpty(h.t, failed.LastFailure, "%v", err)
	require.NoError(h.t, h.Temporal.TerminateWorkflow(h.t.Context(), failed.WorkflowID, failed.RunID, "", "the test has seen its failure"))
	until(h.t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_inform WHERE run_id = $1 AND ended_at IS NULL", failed.RunID) == 0
	})
}

func TestFailInformIsNeverSilent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var log logs
	var listed context.Context
	config := h.config(with(&controller[mirror]{
		inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan mirror, error) {
			listed = ctx
			return sendAll(ctx, newMirrors(1)...), nil
		},
		work: func(ctx context.Context, _ *delta.Resource[mirror]) error {
			delta.FailInform(ctx, errors.New("from Work"))
			return nil
		},
	}))
	config.Logger = log.logger()
	c := h.start(config)
	_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
	require.NoError(t, err)
	require.True(t, log.has(`level=ERROR msg="delta.FailInform was called with a context that is not that of an informer`) && log.has(`error="from Work"`))

	delta.FailInform(listed, errors.New("afterwards"))
	require.True(t, log.has(`level=ERROR msg="delta.FailInform came too late`) && log.has("kind=mirror workflow_id=") && log.has("error=afterwards"))
}
