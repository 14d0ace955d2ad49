package delta_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.uber.org/goleak"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// stopTicks is far more than Stop takes after the end of its context, about 5 seconds, and less than it would take to wait for servers that are down.
// Ticks are counted, because none passes while the machine stalls.
const (
	stopTick  = 100 * time.Millisecond
	stopTicks = 300
)

// faulty is a client with proxies to Postgres and Temporal that can be cut.
type faulty struct {
	*harness
	pool             *pgxpool.Pool
	postgres, server *silentProxy
	temporal         client.Client
	client           *delta.Client
	before           goleak.Option
	begun            chan string
}

// newFaulty starts a client whose Work returns when its context ends, and waits until Work runs for a resource of each kind.
func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{harness: newHarness(t), begun: make(chan string, 100)}
	_ = f.countRows("SELECT 1") // opens the harness's own connections before
	f.before = goleak.IgnoreCurrent()
	f.pool, f.postgres = f.poolThrough()
	f.server = newSilentProxy(t, f.TemporalAddress)
	var err error
	f.temporal, err = dialTemporal(client.Options{HostPort: f.server.Addr().String(), Namespace: f.TemporalNamespace})
	require.NoError(t, err)
	config := f.config(
		with(&controller[account]{work: func(ctx context.Context, r *delta.Resource[account]) error {
			f.begun <- r.ObjectID
			<-ctx.Done()
			return ctx.Err()
		}}),
		with(&controller[batched]{work: func(ctx context.Context, r *delta.Resource[batched]) error {
			f.begun <- r.ObjectID
			<-ctx.Done()
			return ctx.Err()
		}}),
	)
	config.Temporal, config.ResourceWorkTimeout = f.temporal, 10*patience
	f.client, err = delta.NewClient(f.pool, config)
	require.NoError(t, err)
	require.NoError(t, f.client.Start(context.Background()))
	_, err = f.client.InformMany(t.Context(), []delta.Object{account{Name: "single"}, batched{account{Name: "member"}}}, nil)
	require.NoError(t, err)
	got(t, f.begun)
	got(t, f.begun)
	return f
}

// requireStop stops the client with a context of a second.
func (f *faulty) requireStop() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- f.client.Stop(ctx) }()
	for range stopTicks {
		select {
		case err := <-stopped:
			require.ErrorIs(f.t, err, context.DeadlineExceeded)
			return
		case <-time.After(stopTick):
		}
	}
	require.Fail(f.t, "Stop does not return")
}

// closePool closes the pool, which waits until all of its connections are released.
func (f *faulty) closePool() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		f.pool.Close()
	}()
	return closed
}

// leavesNothing restores both servers and waits until no goroutine is left.
func (f *faulty) leavesNothing() {
	f.t.Helper()
	f.postgres.heal()
	f.server.heal()
	var left error
	got(f.t, f.closePool(), "connections were not given back")
	closeTemporal := sync.OnceFunc(f.temporal.Close)
	until(f.t, func() bool {
		left = goleak.Find(f.before)
		// Activities that still report to Temporal need its connection. After that, only goroutines of the proxy and the connection remain.
		if left != nil {
			time.Sleep(time.Second)
			closeTemporal()
			f.postgres.end()
			f.server.end()
			f.Pool.Reset()
		}
		return left == nil
	}, "%s", shown[error]{&left})
}

func TestStopReturnsWhilePostgresIsSilent(t *testing.T) {
	soak.Long(t)
	if !inOwnProcess(t) {
		return
	}
	f := newFaulty(t)
	f.postgres.silent.Store(true)
	f.requireStop()
	f.leavesNothing()
}

func TestStopReturnsWhileTemporalIsSilent(t *testing.T) {
	soak.Long(t)
	if !inOwnProcess(t) {
		return
	}
	f := newFaulty(t)
	f.server.silent.Store(true)
	f.requireStop()
	f.leavesNothing()
	require.Zero(t, f.countRows("SELECT count(*) FROM delta_resource WHERE claimed_until IS NOT NULL"), "the outcomes were written")
}

func TestStopReturnsAfterItsPoolWasClosed(t *testing.T) {
	soak.Long(t)
	if !inOwnProcess(t) {
		return
	}
	f := newFaulty(t)
	closed := f.closePool()
	until(t, func() bool { return f.pool.Ping(context.Background()) != nil }, "the pool is closed")
	f.requireStop()
	got(t, closed)
	f.leavesNothing()
}

func TestStopReturnsWhileInformsWaitForPostgres(t *testing.T) {
	soak.Long(t)
	if !inOwnProcess(t) {
		return
	}
	f := newFaulty(t)
	f.postgres.silent.Store(true)
	answered := make(chan error, 20)
	for i := range 20 {
		go func() {
			_, err := f.client.Inform(context.Background(), account{Name: fmt.Sprint("waits", i)}, nil)
			answered <- err
		}()
	}
	until(t, func() bool { return f.pool.Stat().AcquiredConns() > 1 })
	f.requireStop()
	f.postgres.heal()
	for range 20 {
		_ = got(t, answered) // each gets an answer or an error
	}
	_, err := f.client.Inform(t.Context(), account{Name: "afterwards"}, nil)
	require.NoError(t, err, "a stopped client still informs")
	f.leavesNothing()
}
