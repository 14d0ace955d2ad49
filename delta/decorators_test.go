package delta_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// decorated is a controller that wraps another one.
type decorated[T delta.Object] struct {
	delta.Controller[T]
	inner any
	calls atomic.Int64
}

func (d *decorated[T]) Unwrap() any { return d.inner }

func (d *decorated[T]) Work(ctx context.Context, r *delta.Resource[T]) error {
	d.calls.Add(1)
	return d.Controller.Work(ctx, r)
}

// bundled is a kind with batches.
type bundled struct{ account }

func (bundled) Kind() string { return "bundled" }
func (bundled) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 100}
}

// batching is a lister with a WorkBatch.
type batching struct {
	yields[bundled]
	batched   atomic.Int64
	finalized atomic.Int64
}

func (b *batching) Finalize(context.Context, *delta.Resource[bundled]) error {
	b.finalized.Add(1)
	return nil
}

func (b *batching) WorkBatch(_ context.Context, all []*delta.Resource[bundled]) []error {
	b.batched.Add(int64(len(all)))
	return make([]error, len(all))
}

func TestOptionalInterfacesAreFoundBehindDecorators(t *testing.T) {
	t.Parallel()
	inner := &batching{yields: yields[bundled]{list: func(_ context.Context, _ *delta.InformOptions, yield func(bundled, error) bool) {
		for i := range 40 {
			yield(bundled{account{Name: fmt.Sprint(i)}}, nil)
		}
	}}}
	once := &decorated[bundled]{Controller: inner, inner: inner}
	twice := &decorated[bundled]{Controller: once, inner: once}
	h := newHarness(t)
	c := h.start(h.config(addTo[bundled](twice)))
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "bundled", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 40, run.Listed)
	_, err = c.Delete(t.Context(), "bundled", "7")
	require.NoError(t, err)
	until(t, func() bool { return inner.finalized.Load() > 0 })
	require.EqualValues(t, 40, inner.batched.Load()+twice.calls.Load())
	require.Positive(t, inner.batched.Load(), "WorkBatch is called past the decorators")

	loop := &decorated[mirror]{Controller: &controller[mirror]{}}
	loop.inner = loop
	require.NoError(t, delta.AddControllerSafely(delta.NewControllers(), loop), "a decorator that returns itself ends the search")
}

func TestAHiddenListFailsThePass(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	inner := &yields[mirror]{}
	c := h.start(h.config(addTo[mirror](struct{ delta.Controller[mirror] }{inner})))
	var failure string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := c.WatchInform(ctx, delta.ScheduleInformParams{ResourceKind: "mirror"}, nil, func(p delta.InformProgress) {
		if failure = p.LastFailure; failure != "" {
			cancel()
		}
	})
	require.Error(t, err)
	require.Contains(t, failure, "Unwrap() any")
}
