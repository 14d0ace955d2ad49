package delta_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
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

func TestControllersRunOnAUsersWorker(t *testing.T) {
	soak.Long(t)
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
			return sendAll(ctx, listed{Name: "a"}, listed{Name: "b"}), nil
		}}),
	)
	config.TaskQueue = h.Prefix + "-mine"
	c := h.client(config)

	interceptor := &counting{}
	w := sdkworker.New(h.Temporal, config.TaskQueue, sdkworker.Options{Interceptors: []interceptorOf{interceptor}, DeadlockDetectionTimeout: patience})
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
	require.False(t, h.startAttributes("account", "A").GetEagerExecutionAccepted(), "an eager start does not heed a worker's versioning")
	row, err := c.Sync(t.Context(), account{Name: "sync"}, nil)
	require.NoError(t, err)
	require.NotNil(t, row)
	require.LessOrEqual(t, most.Load(), int32(4), "Parallelism holds")
	require.Positive(t, interceptor.activities.Load(), "the worker's interceptors see Delta's activities")
	_, ok := fromContext.Load(c)
	require.True(t, ok)
}

type interceptorOf = interceptor.WorkerInterceptor

func TestRegisterReportsMissingSettings(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	w := sdkworker.New(h.Temporal, "q", ownWorker())
	require.ErrorContains(t, h.client(config).Register(w), "Config.TaskQueue")
	config.TaskQueue = "q"
	require.ErrorContains(t, h.client(config).Register(nil), "registry is nil")
	require.ErrorContains(t, h.client(&delta.Config{TaskQueue: "q"}).Register(w), "Controllers is empty")
	_, err := h.Pool.Exec(t.Context(), "DROP TABLE delta_installation CASCADE")
	require.NoError(t, err)
	require.ErrorIs(t, h.client(config).Register(w), delta.ErrNoSchema)
}

// A user's worker works batches too: in sets, within Parallelism, and failed members as singles.
func TestBatchesRunOnAUsersWorker(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var now, most atomic.Int64
	config := h.config(with(&controller[batched]{work: func(_ context.Context, r *delta.Resource[batched]) error {
		defer now.Add(-1)
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(2 * time.Millisecond)
		if r.Object.Name == "fails" && r.Generation == 1 && r.Attempt == 1 {
			return errors.New("once")
		}
		return nil
	}}))
	config.TaskQueue = h.Prefix + "-mine"
	config.Namespaces = map[string]delta.NamespaceConfig{
		"default": {MaxWorkers: 100}, "brief": {MaxWorkers: 100, ResourceExpiry: time.Second},
	}
	c := h.client(config)
	interceptor := &counting{}
	w := sdkworker.New(h.Temporal, config.TaskQueue, sdkworker.Options{Interceptors: []interceptorOf{interceptor}, DeadlockDetectionTimeout: patience})
	require.NoError(t, c.Register(w))
	require.NoError(t, w.Start())
	defer w.Stop()
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // nothing is left to be done

	_, err := c.InformMany(t.Context(), manyBatched(append(names("ok", 200), "fails")...), nil)
	require.NoError(t, err)
	for _, name := range names("ok", 200) {
		require.Contains(t, h.eventually("batched", name, synced(1)).WorkflowID, ":batch/")
	}
	require.Equal(t, 2, h.eventually("batched", "fails", synced(1)).Attempt) // as a single, unless the machine is busy
	require.LessOrEqual(t, most.Load(), int64(8), "Parallelism holds for all batches together")
	require.Less(t, interceptor.activities.Load(), int64(50), "members have no separate activities")

	// The timer of a batch, and its local activity, run on the worker too.
	_, err = c.InformMany(t.Context(), manyBatched(names("brief", 20)...), &delta.InformOpts{Namespace: "brief"})
	require.NoError(t, err)
	for _, name := range names("brief", 20) {
		h.eventually("batched", name, func(r *deltatype.ResourceRow) bool { return r != nil && r.SyncCount >= 2 })
	}
}

// A worker that is stopped in a batch leaves the remaining members to another one.
func TestAStoppedUsersWorkerReleasesTheMembersOfItsBatches(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var calls atomic.Int64
	begun := make(chan struct{}, 1000)
	var stopped atomic.Bool
	config := h.config(with(&controller[batched]{work: func(ctx context.Context, _ *delta.Resource[batched]) error {
		calls.Add(1)
		begun <- struct{}{}
		if !stopped.Load() {
			<-activity.GetWorkerStopChannel(ctx)
		}
		return nil
	}}))
	config.TaskQueue = h.Prefix + "-mine"
	c := h.client(config)
	run := func() sdkworker.Worker {
		w := sdkworker.New(h.Temporal, config.TaskQueue, sdkworker.Options{WorkerStopTimeout: patience, DeadlockDetectionTimeout: patience})
		require.NoError(t, c.Register(w))
		require.NoError(t, w.Start())
		return w
	}
	w := run()
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // nothing is left to be done
	_, err := c.InformMany(t.Context(), manyBatched(names("ok", 50)...), nil)
	require.NoError(t, err)
	<-begun
	w.Stop()
	require.LessOrEqual(t, calls.Load(), int64(8), "it has called Work for no more than its Parallelism")
	stopped.Store(true)
	defer run().Stop()
	for _, name := range names("ok", 50) {
		row := h.eventually("batched", name, synced(1))
		require.Equal(t, 1, row.Attempt)
		require.Empty(t, row.Errors)
	}
	require.EqualValues(t, 50, calls.Load(), "each was called once")
}
