package delta_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// partsOf returns the unhealthy parts of an error.
func partsOf(err error) (parts []delta.HealthPart) {
	if err == nil {
		return nil
	}
	joined, is := err.(interface{ Unwrap() []error })
	if !is {
		return nil
	}
	for _, one := range joined.Unwrap() {
		if health := new(delta.HealthError); errors.As(one, &health) {
			parts = append(parts, health.Part)
		}
	}
	return parts
}

// askProbe returns the answer of a probe.
func askProbe(c *delta.Client, path string) (status int, body string) {
	answer := httptest.NewRecorder()
	delta.Probes(c).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

// awaitProbes waits until both probes have these answers. A busy Postgres or Temporal may answer one check too late. A client that must be alive is
// so at each check.
func awaitProbes(t *testing.T, c *delta.Client, live, ready int) {
	t.Helper()
	var said [2]string
	until(t, func() bool {
		var alive, isReady int
		alive, said[0] = askProbe(c, "/livez")
		if live == isUp {
			require.Equal(t, isUp, alive, said[0])
		}
		isReady, said[1] = askProbe(c, "/readyz")
		return alive == live && isReady == ready
	}, "%s", shown[[2]string]{&said})
}

// healthSays waits until the health of a client has a text.
func healthSays(t *testing.T, c *delta.Client, text string) {
	t.Helper()
	var err error
	until(t, func() bool {
		err = c.Health(t.Context())
		return err != nil && strings.Contains(err.Error(), text)
	}, "%s", shown[error]{&err})
}

// awaitParts waits until exactly these parts are unhealthy, in this order.
func awaitParts(t *testing.T, c *delta.Client, parts ...delta.HealthPart) {
	t.Helper()
	var err error
	until(t, func() bool {
		err = c.Health(t.Context())
		found := partsOf(err)
		if len(found) != len(parts) {
			return false
		}
		for i := range parts {
			if found[i] != parts[i] {
				return false
			}
		}
		return true
	}, "%s", shown[error]{&err})
}

const (
	isUp   = http.StatusOK
	isDown = http.StatusServiceUnavailable
)

// From NewClient to Stop, with a Start that fails and a slow one.
func TestHealthOverTheLifeOfAClient(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	address := "127.0.0.1:1"
	config := h.config(with(&controller[account]{}))
	config.Temporal = nil
	config.ContextPropagators = []workflow.ContextPropagator{} // so that NewClient does not call TemporalOptions
	config.TemporalOptions = func(o *client.Options) {
		o.HostPort, o.Logger = address, quiet{}
		entered <- struct{}{}
		<-leave
	}
	c := h.client(config)
	require.ErrorContains(t, c.Health(t.Context()), "delta: client: it has not been started. Call Start")
	awaitProbes(t, c, isUp, isDown)

	started := make(chan error, 1)
	start := func() { started <- c.Start(context.Background()) }
	go start()
	<-entered
	require.ErrorContains(t, c.Health(t.Context()), "it is starting")
	awaitProbes(t, c, isUp, isDown)
	leave <- struct{}{}
	require.Error(t, receive(t, started))
	require.ErrorContains(t, c.Health(t.Context()), "reaching Temporal at 127.0.0.1:1")
	awaitProbes(t, c, isUp, isDown)

	address = h.TemporalAddress
	go start()
	<-entered
	leave <- struct{}{}
	require.NoError(t, receive(t, started))
	awaitParts(t, c)
	awaitProbes(t, c, isUp, isUp)
	require.NoError(t, c.Err())
	select {
	case <-c.Done():
		t.Fatal("it is done, and runs")
	default:
	}

	require.NoError(t, c.Stop(t.Context()))
	<-c.Done()
	require.NoError(t, c.Err())
	require.ErrorContains(t, c.Health(t.Context()), "it has stopped")
	awaitProbes(t, c, isUp, isDown)
}

func TestAClientThatStopsByItselfIsNotAlive(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config(with(&controller[account]{})))
	cause := errors.New("the program ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	require.NoError(t, c.Start(ctx))
	cancel(cause)
	receive(t, c.Done())
	require.ErrorIs(t, c.Err(), cause)
	require.ErrorIs(t, c.Health(t.Context()), cause)
	awaitProbes(t, c, isDown, isDown)
	require.NoError(t, c.Stop(t.Context()))
	require.ErrorIs(t, c.Err(), cause, "the first reason counts")
}

func TestErrIsThatOfAStopThatCutWorkOff(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startStuck(new(logBuffer))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- c.Stop(ctx) }()
	awaitParts(t, c, delta.HealthClient) // stopping or stopped
	require.ErrorIs(t, receive(t, stopped), context.DeadlineExceeded)
	<-c.Done()
	require.ErrorIs(t, c.Err(), context.DeadlineExceeded)
	awaitProbes(t, c, isUp, isDown)
}

// A client that only informs is never started, and needs only Postgres.
func TestHealthOfAClientThatOnlyInforms(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	pool, postgres := h.poolByProxy()
	c, err := delta.NewClient(pool, h.config())
	require.NoError(t, err)
	awaitProbes(t, c, isUp, isUp)
	postgres.refuse()
	awaitParts(t, c, delta.HealthPostgres)
	awaitProbes(t, c, isUp, isDown)
	postgres.heal()
	awaitParts(t, c)
	require.NoError(t, c.Stop(t.Context()))
	<-c.Done()
	awaitParts(t, c, delta.HealthClient)
}

func TestHealthWhileTemporalIsAway(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	p := newCutProxy(t, h.TemporalAddress)
	config := h.config(with(&controller[account]{}))
	config.Temporal = h.temporalBy(p)
	c := h.start(config)
	awaitParts(t, c)
	p.refuse()
	awaitParts(t, c, delta.HealthTemporal)
	awaitProbes(t, c, isUp, isDown)
	_, err := c.Inform(t.Context(), account{Name: "a"}, nil)
	require.NoError(t, err)
	awaitParts(t, c, delta.HealthTemporal, delta.HealthDispatcher)
	healthSays(t, c, `dispatcher of kind "account": nothing was dispatched since`)
	awaitProbes(t, c, isUp, isDown)
	p.heal()
	awaitParts(t, c)
	awaitProbes(t, c, isUp, isUp)
	h.eventually("account", "a", synced(1))
}

func TestHealthWhilePostgresIsAway(t *testing.T) {
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	pool, p := h.poolByProxy()
	c, err := delta.NewClient(pool, h.config(with(&controller[account]{})))
	require.NoError(t, err)
	c.SetTiming(0, 50*time.Millisecond, 0)
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	awaitParts(t, c)
	p.refuse()
	awaitParts(t, c, delta.HealthPostgres, delta.HealthDispatcher, delta.HealthListener)
	awaitProbes(t, c, isUp, isDown)
	p.heal()
	awaitParts(t, c)
	awaitProbes(t, c, isUp, isUp)
}

// If Postgres does not answer, rounds of a dispatcher fail, but are not stuck.
func TestAPostgresThatIsSilentIsNoReasonToRestart(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	c, p := h.startBySilence(200*time.Millisecond, 5*patience)
	p.cut.Store(true)
	healthSays(t, c, "it took longer than 200ms")
	awaitProbes(t, c, isUp, isDown)
	p.heal()
	awaitParts(t, c)
}

func TestADispatcherThatIsStuckIsAReasonToRestart(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	c, p := h.startBySilence(patience, 200*time.Millisecond)
	p.cut.Store(true)
	until(t, func() bool { // check the answer itself: a slow round may have ended by the next check
		status, body := askProbe(c, "/livez")
		return status == isDown && strings.Contains(body, `dispatcher of kind "account": it is stuck since`)
	})
	p.heal()
	until(t, func() bool { status, _ := askProbe(c, "/livez"); return status == isUp })
}

// startBySilence starts a client with a proxy to Postgres that can be cut, and with frequent polls for due rows.
func (h *harness) startBySilence(timeout, stuck time.Duration) (*delta.Client, *cutProxy) {
	h.t.Helper()
	pool, p := h.poolByProxy()
	c, err := delta.NewClient(pool, h.config(with(&controller[account]{})))
	require.NoError(h.t, err)
	c.SetTiming(0, 20*time.Millisecond, 0)
	c.SetDispatchTimes(timeout, stuck)
	require.NoError(h.t, c.Start(context.Background()))
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Stop(ctx)
	})
	awaitParts(h.t, c)
	return c, p
}

// Without its listener, the client is slower but ready.
func TestAClientWhoseListenerIsLostIsReady(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	config, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(t, err)
	var isFull atomic.Bool
	config.MinConns, config.MaxConns = 8, 8
	config.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
		if isFull.Load() {
			return errors.New("too many connections")
		}
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	c, err := delta.NewClient(pool, h.config(with(&controller[account]{})))
	require.NoError(t, err)
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	awaitParts(t, c)
	until(t, func() bool { return pool.Stat().TotalConns() == 8 })
	isFull.Store(true)
	var ended int
	require.NoError(t, h.Pool.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity, delta_installation i
		WHERE query = 'LISTEN "delta_' || i.id || '"'`).Scan(&ended))
	require.Equal(t, 1, ended)
	awaitParts(t, c, delta.HealthListener)
	awaitProbes(t, c, isUp, isUp)
	until(t, func() bool { // after its retry
		_, body := askProbe(c, "/readyz")
		return strings.HasPrefix(body, "ready\n") && strings.Contains(body, "too many connections")
	})
	isFull.Store(false)
	awaitParts(t, c)
}

// If a worker does not start, Start fails, leaves nothing behind, and can be repeated.
func TestAStartWhoseWorkerDoesNotStartCanBeTriedAgain(t *testing.T) {
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	var refuses atomic.Bool
	refuses.Store(true)
	config := h.config(with(&controller[account]{}))
	config.Temporal = h.temporalWith(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if refuses.Load() && strings.HasSuffix(method, "/DescribeNamespace") {
			return serviceerror.ToStatus(serviceerror.NewPermissionDenied("not this one", "")).Err()
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	})
	c := h.client(config)
	require.ErrorContains(t, c.Start(t.Context()), "starting a Temporal worker")
	require.ErrorContains(t, c.Health(t.Context()), "not this one")
	refuses.Store(false)
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	row, err := c.Sync(t.Context(), account{Name: "a"}, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, row.SyncedGeneration)
	awaitParts(t, c)
}

func TestDispatchersPollAsConfigured(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	require.Equal(t, 5*time.Second, h.client(h.config()).Poll())
	config := h.config()
	config.DispatchPollInterval = time.Minute
	require.Equal(t, time.Minute, h.client(config).Poll())
}

// With a task queue of the caller, Start runs no worker: Health reports whether any worker polls.
func TestHealthReportsATaskQueueWithoutPollers(t *testing.T) {
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.TaskQueue = h.Prefix + "-mine"
	c := h.start(config)
	awaitParts(t, c, delta.HealthWorker)
	healthSays(t, c, "nobody has polled Config.TaskQueue")
	awaitProbes(t, c, isUp, isDown)
	w := sdkworker.New(h.Temporal, config.TaskQueue, ownWorker())
	require.NoError(t, c.Register(w))
	require.NoError(t, w.Start())
	defer w.Stop()
	awaitParts(t, c)
}
