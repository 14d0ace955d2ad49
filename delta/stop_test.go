package delta_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.uber.org/goleak"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// logBuffer keeps the lines of a logger.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func TestStopWaitsForWork(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	started := make(chan struct{})
	c := h.startWorker(func(ctx context.Context, _ *delta.Resource[account]) error {
		close(started)
		<-activity.GetWorkerStopChannel(ctx) // so that Stop waits for Work, and Work does not end first
		select {
		case <-time.After(100 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	<-started
	require.NoError(t, c.Stop(t.Context()))
	require.Equal(t, deltatype.ResourceStateSynced, h.row("account", "ann").State)

	require.NoError(t, c.Stop(t.Context()), "a second Stop has nothing to do")
	require.ErrorContains(t, c.Start(t.Context()), "stopped")
	_, err = c.Inform(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err, "a stopped client still informs")
	h.startWorker(nil)
	h.eventually("account", "bob", synced(1))
}

// stopWaitsNoLonger is the log line of Stop if a busy machine has not written all outcomes some seconds after Work was cut off.
const stopWaitsNoLonger = "not everything has ended in time"

// closesAttempts waits until no attempt is open after a Stop that has cut off Work. It reports whether each attempt has written its outcome. If Stop
// logs that it waits no longer, claims may expire instead, and another client gets the rows.
func (h *harness) closesAttempts(logs *logBuffer) (written bool) {
	h.t.Helper()
	pending := "SELECT count(*) FROM delta_resource r WHERE state = 'pending'"
	until(h.t, func() bool {
		written = h.countRows(pending) == 0
		return written || strings.Contains(logs.String(), stopWaitsNoLonger) &&
			h.countRows(pending+" AND greatest(claimed_until, (SELECT c.claimed_until FROM delta_claim c WHERE c.id = r.claim)) > now()") == 0
	}, "attempts were not closed")
	return written
}

// startStuck starts a client whose Work blocks at the resource "ann" until its context ends.
func (h *harness) startStuck(logs *logBuffer) *delta.Client {
	h.t.Helper()
	started := make(chan struct{})
	config := h.config(with(&controller[account]{work: func(ctx context.Context, r *delta.Resource[account]) error {
		if r.Attempt == 1 {
			close(started)
		}
		<-ctx.Done()
		return ctx.Err()
	}}))
	config.Logger = logs.logger()
	c := h.start(config)
	_, err := c.Inform(h.t.Context(), account{Name: "ann"}, nil)
	require.NoError(h.t, err)
	<-started
	return c
}

func TestStopCancelsWorkAtItsDeadlineAndAnotherClientTakesOver(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	c := h.startStuck(&logs)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Stop(ctx), context.DeadlineExceeded)
	if h.closesAttempts(&logs) {
		row := h.row("account", "ann")
		require.Equal(t, deltatype.ResourceStateFailed, row.State)
		require.Equal(t, "stopped: context canceled", row.Errors[0].Error)
	}
	h.startWorker(nil)
	h.eventually("account", "ann", synced(1))
}

// A second Ctrl-C of an impatient operator.
func TestASecondStopHasTheFirstWaitNoLonger(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	c := h.startStuck(&logs)
	first := make(chan error, 1)
	go func() { first <- c.Stop(context.Background()) }()
	until(t, func() bool {
		err := c.Health(t.Context())
		return len(first) > 0 || err != nil && strings.Contains(err.Error(), "it is stopping")
	}, "the first has not begun")
	select {
	case err := <-first:
		t.Fatalf("the first does not wait for Work: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.NoError(t, c.Stop(ctx))
	require.NoError(t, <-first)
	if h.closesAttempts(&logs) {
		require.Equal(t, "stopped: context canceled", h.row("account", "ann").Errors[0].Error, "Work did not have its minute")
	}
}

func TestAClientThatWasStoppedBeforeItsStartIsNotStarted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config(with(&controller[account]{})))
	require.NoError(t, c.Stop(t.Context()))
	require.ErrorContains(t, c.Start(t.Context()), "stopped")
}

func TestTheEndOfTheContextOfStartStopsTheClient(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), ctxKey{}, "inherited"))
	started, cancelled := make(chan any, 1), make(chan struct{})
	c := h.client(h.config(with(&controller[account]{work: func(ctx context.Context, _ *delta.Resource[account]) error {
		started <- ctx.Value(ctxKey{})
		<-ctx.Done()
		close(cancelled)
		return ctx.Err()
	}})))
	require.NoError(t, c.Start(ctx))
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	require.Equal(t, "inherited", <-started)
	cancel()
	<-cancelled
	require.NoError(t, c.Stop(t.Context()))
}

type ctxKey struct{}

func TestNoGoroutineIsLeftAfterStop(t *testing.T) {
	soak.Long(t)
	if !inOwnProcess(t) {
		return
	}
	h := newHarness(t)
	before := goleak.IgnoreCurrent()
	config := h.config(with(&controller[account]{}), with(&controller[listed]{}), with(&controller[batched]{}))
	config.Namespaces = map[string]delta.NamespaceConfig{delta.NamespaceDefault: {MaxWorkers: 2}}
	c := h.client(config)
	require.NoError(t, c.Start(context.Background()))
	informer := h.client(&delta.Config{})
	for i := range 20 {
		_, err := informer.Inform(t.Context(), account{Name: fmt.Sprint(i)}, nil)
		require.NoError(t, err)
	}
	_, err := c.InformMany(t.Context(), manyBatched(names("ok", 100)...), nil)
	require.NoError(t, err)
	for i := range 20 {
		h.eventually("account", fmt.Sprint(i), synced(1))
	}
	for _, name := range names("ok", 100) {
		h.eventually("batched", name, synced(1))
	}
	require.NoError(t, informer.Stop(context.Background()))
	require.NoError(t, c.Stop(context.Background()))
	h.Pool.Reset()
	var left error // connections take a moment to close
	until(t, func() bool { left = goleak.Find(before); return left == nil }, "%s", shown[error]{&left})
}

func TestWorkIsBoundedByKindAndByNamespace(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var accounts, all, mostAccounts, mostAll atomic.Int32
	full := make(chan struct{})
	var once sync.Once
	enter := func(now, most *atomic.Int32) int32 {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return n
	}
	// Each call blocks until the maximum number runs, so that the bound is reached.
	busy := func(ctx context.Context) {
		if enter(&all, &mostAll) == 6 {
			once.Do(func() { close(full) })
		}
		defer all.Add(-1)
		select {
		case <-full:
			time.Sleep(5 * time.Millisecond)
		case <-ctx.Done():
		}
	}
	config := h.config(
		with(&controller[account]{work: func(ctx context.Context, _ *delta.Resource[account]) error {
			enter(&accounts, &mostAccounts)
			defer accounts.Add(-1)
			busy(ctx)
			return nil
		}}),
		with(&controller[wide]{work: func(ctx context.Context, _ *delta.Resource[wide]) error {
			busy(ctx)
			return nil
		}}),
	)
	config.Namespaces = map[string]delta.NamespaceConfig{delta.NamespaceDefault: {MaxWorkers: 6}}
	c := h.start(config)
	var objects []delta.Object
	for i := range 30 {
		objects = append(objects, account{Name: fmt.Sprint(i)}, wide{account{Name: fmt.Sprint(i)}})
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	for _, o := range objects {
		h.eventually(o.Kind(), o.ID(), synced(1))
	}
	require.LessOrEqual(t, mostAccounts.Load(), int32(4), "Parallelism of the kind")
	require.EqualValues(t, 6, mostAll.Load(), "MaxWorkers of the namespace")
}

// wide is a kind with a high Parallelism.
type wide struct{ account }

func (wide) Kind() string { return "wide" }
func (wide) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 20, InformInterval: -1, BatchSize: 1}
}

// A run in the foreground waits for resources that may never settle without this client, so Stop does not wait for the run. Another client continues
// to wait.
func TestStopLeavesARunInTheForegroundToAnother(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[mirror]{all: newMirrors(1)}
	snoozed := make(chan struct{}, 10)
	c := h.start(h.config(with(&controller[mirror]{inform: outside.inform, work: func(context.Context, *delta.Resource[mirror]) error {
		snoozed <- struct{}{}
		return delta.ResourceSnooze(time.Hour)
	}})))
	ended := make(chan error, 1)
	informer := h.client(h.config())
	waits := make(chan struct{})
	go func() {
		once := sync.OnceFunc(func() { close(waits) })
		_, err := informer.WatchInform(context.Background(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil,
			func(p delta.InformProgress) {
				if p.IsSettling {
					once()
				}
			})
		ended <- err
	}()
	<-snoozed
	<-waits
	ctx, cancel := context.WithTimeout(t.Context(), patience) // the resource settles in an hour
	defer cancel()
	require.NoError(t, c.Stop(ctx))
	require.Empty(t, ended)

	another := h.start(h.config(with(&controller[mirror]{inform: outside.inform})))
	_, err := another.Inform(t.Context(), mirror{Name: "m000", Version: 2}, nil)
	require.NoError(t, err)
	require.NoError(t, <-ended)
}

// An attempt is a call of Work: resources that still wait for a slot of their namespace when Stop gives up lose none.
func TestStopCostsNoAttemptOfUnworkedResources(t *testing.T) {
	inEachMode(t, func(t *testing.T, g mode) {
		begun := make(chan struct{}, 100)
		config := g.config(g.controller(func(ctx context.Context, _ job) error {
			begun <- struct{}{}
			<-ctx.Done()
			return errors.New("cut off")
		}))
		config.Namespaces = map[string]delta.NamespaceConfig{delta.NamespaceDefault: {MaxWorkers: 1}}
		var logs logBuffer
		config.Logger = logs.logger()
		c := g.start(config)
		g.inform(c, &delta.InformOpts{MaxAttempts: 1}, names("ok", 20)...)
		<-begun
		until(t, func() bool { return g.countRows("SELECT count(*) FROM delta_resource WHERE dispatch_at > now()") > 1 }, "others wait")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, c.Stop(ctx))
		written := g.closesAttempts(&logs)
		calls := 1 + len(begun) // one may get the first one's slot before its own context ends
		if written {
			require.Equal(t, calls, g.countStates(g.kind)[deltatype.ResourceStateDegraded])
		}
		g.startWorker(func(context.Context, job) error { return nil })
		states := map[deltatype.ResourceState]int{}
		until(t, func() bool {
			states = g.countStates(g.kind)
			return states[deltatype.ResourceStateSynced]+states[deltatype.ResourceStateDegraded] == 20
		}, "%s", shown[map[deltatype.ResourceState]int]{&states})
		if written {
			require.Equal(t, calls, states[deltatype.ResourceStateDegraded])
		}
	})
}
