package delta_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/interceptor"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
)

// counting is an interceptor of the user's worker.
type counting struct {
	interceptor.WorkerInterceptorBase
	activities atomic.Int64
}

func (c *counting) InterceptActivity(ctx context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	c.activities.Add(1)
	return c.WorkerInterceptorBase.InterceptActivity(ctx, next)
}

func TestControllersOnAWorkerOfTheUsersOwn(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var now, most atomic.Int32
	var fromContext sync.Map
	config := h.config(
		with(&controller[account]{work: func(ctx context.Context, r *delta.Resource[account]) error {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			fromContext.Store(delta.ClientFromContext(ctx), true)
			return nil
		}}),
		with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
			return send(ctx, listed{Name: "a"}, listed{Name: "b"}), nil
		}}),
	)
	config.TaskQueue = h.Prefix + "-mine"
	c := h.client(config)

	interceptor := &counting{}
	w := sdkworker.New(h.Temporal, config.TaskQueue, sdkworker.Options{Interceptors: []interceptorOf{interceptor}})
	require.NoError(t, c.Register(w))
	require.ErrorContains(t, c.Register(w), "already registered")
	require.NoError(t, w.Start())
	defer w.Stop()
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // nothing is left to be done

	var objects []delta.Object
	for i := range 40 {
		objects = append(objects, account{Name: string(rune('A' + i))})
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	for _, o := range objects {
		h.eventually("account", o.ID(), synced(1))
	}
	h.eventually("listed", "a", synced(1))
	row, err := c.Sync(t.Context(), account{Name: "sync"}, nil)
	require.NoError(t, err)
	require.NotNil(t, row)
	require.LessOrEqual(t, most.Load(), int32(4), "Parallelism holds")
	require.Positive(t, interceptor.activities.Load(), "the worker's interceptors see Delta's activities")
	_, ok := fromContext.Load(c)
	require.True(t, ok)
}

type interceptorOf = interceptor.WorkerInterceptor

func TestRegisterSaysWhatItLacks(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	w := sdkworker.New(h.Temporal, "q", sdkworker.Options{})
	require.ErrorContains(t, h.client(config).Register(w), "Config.TaskQueue")
	config.TaskQueue = "q"
	require.ErrorContains(t, h.client(config).Register(nil), "registry is nil")
	require.ErrorContains(t, h.client(&delta.Config{TaskQueue: "q"}).Register(w), "Controllers is empty")
	_, err := h.Pool.Exec(t.Context(), "DROP TABLE delta_installation CASCADE")
	require.NoError(t, err)
	require.ErrorIs(t, h.client(config).Register(w), delta.ErrNoSchema)
}
