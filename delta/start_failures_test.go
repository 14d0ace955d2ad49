package delta_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/testproxy"
)

// startedWorkflow returns the workflow that a request to Temporal starts; empty for other requests.
func startedWorkflow(request any) string {
	switch r := request.(type) {
	case *workflowservice.StartWorkflowExecutionRequest:
		return r.GetWorkflowId()
	case *workflowservice.SignalWithStartWorkflowExecutionRequest:
		return r.GetWorkflowId()
	default:
		return ""
	}
}

// refusedStarts refuses starts of a workflow while the test wants, and notes the times.
type refusedStarts struct {
	over atomic.Bool
	mu   sync.Mutex
	at   []time.Time
}

func (s *refusedStarts) refuse(is bool, code codes.Code) error {
	if !is || s.over.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, time.Now())
	return status.Error(code, "not this one")
}

func (s *refusedStarts) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

func TestAResourceWhoseWorkflowCannotBeStartedWaitsByItself(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
	g.harness = newHarness(t)
	starts := &refusedStarts{}
	config := g.config(g.controller(func(context.Context, job) error { return nil }))
	config.Temporal = g.dialRefusingRequests(func(_ string, request any) error {
		return starts.refuse(startedWorkflow(request) == g.resourceWorkflow("bad"), codes.InvalidArgument)
	})
	c := g.start(config)
	g.inform(c, nil, append(names("before", 20), "bad")...)
	const tries = 4
	for n := range tries {
		until(t, func() bool { return starts.count() > n })
		neighbours := names(fmt.Sprintf("during-%d-", n), 10)
		g.inform(c, nil, neighbours...)
		for _, name := range neighbours {
			g.awaitRow(name, synced(1))
		}
		row := g.awaitRow("bad", func(r *deltatype.ResourceRow) bool { return len(r.Errors) > 0 })
		require.Len(t, row.Errors, 1)
		require.Zero(t, row.Errors[0].Attempt)
		require.Contains(t, row.Errors[0].Error, "its workflow cannot be started: not this one")
		require.Equal(t, deltatype.ResourceStateScheduled, row.State)
		require.Zero(t, row.Attempt)
	}
	for _, name := range names("before", 20) {
		require.Empty(t, g.awaitRow(name, synced(1)).Errors)
	}
	starts.over.Store(true)
	row := g.awaitRow("bad", synced(1))
	require.Equal(t, 1, row.Attempt)
	require.Len(t, row.Errors, 1)
	// Waits are up to a tenth shorter. A busy machine can only make them longer.
	for n := range tries - 1 {
		require.Greater(t, starts.at[n+1].Sub(starts.at[n]), time.Second<<n*8/10)
	}
}

// While others are woken, a start without an answer is no sign of a Temporal that is down.
func TestAStartWithoutAnAnswerDelaysItsResourceOnly(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
	g.harness = newHarness(t)
	var isOver atomic.Bool
	config := g.config(g.controller(func(context.Context, job) error { return nil }))
	config.Temporal = g.temporalWith(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if startedWorkflow(req) == g.resourceWorkflow("bad") && !isOver.Load() {
			<-ctx.Done()
			return status.FromContextError(ctx.Err()).Err()
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	})
	c := g.start(config)
	g.inform(c, nil, append(names("before", 20), "bad")...)
	row := g.awaitRow("bad", func(r *deltatype.ResourceRow) bool { return len(r.Errors) > 0 })
	require.Contains(t, row.Errors[0].Error, "its workflow cannot be started: context deadline exceeded")
	isOver.Store(true)
	for _, name := range append(names("before", 20), "bad") {
		g.awaitRow(name, synced(1))
	}
}

// A failed member whose own workflow cannot be started is retried in a batch.
func TestAMemberThatCannotBecomeASingleStaysInABatch(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := modeFor(0, func(a account) batched { return batched{a} }, func(o batched) account { return o.account })
	g.harness = newHarness(t)
	starts := &refusedStarts{}
	config := g.config(g.controller(func(_ context.Context, j job) error {
		if j.Object.Name == "bad" && j.Attempt == 1 {
			return errors.New("once")
		}
		return nil
	}))
	config.Temporal = g.dialRefusingRequests(func(_ string, request any) error {
		return starts.refuse(startedWorkflow(request) == g.resourceWorkflow("bad"), codes.InvalidArgument)
	})
	c := g.start(config)
	g.inform(c, nil, append(names("before", 20), "bad")...)
	until(t, func() bool { return starts.count() > 0 })
	g.inform(c, nil, names("during", 20)...)
	for _, name := range append(names("before", 20), names("during", 20)...) {
		require.Empty(t, g.awaitRow(name, synced(1)).Errors)
	}
	row := g.awaitRow("bad", synced(1))
	require.Equal(t, 2, row.Attempt)
	require.Contains(t, row.WorkflowID, ":batch/")
	require.Equal(t, "once", row.Errors[0].Error)
	require.Len(t, row.Errors, 2)
	require.Zero(t, row.Errors[1].Attempt)
}

// waitsLog collects the waits that a dispatcher logs.
type waitsLog struct {
	slog.Handler
	mu    sync.Mutex
	waits []time.Duration
}

func (l *waitsLog) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "dispatching failed") {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "retry_in" {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.waits = append(l.waits, a.Value.Duration())
			}
			return true
		})
	}
	return l.Handler.Handle(ctx, r)
}

func (l *waitsLog) all() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]time.Duration(nil), l.waits...)
}

func TestWhileTemporalTakesNoStartsRowsAreNotAtFault(t *testing.T) {
	soak.Long(t)
	inEachModeBut(t, "batched", func(t *testing.T, g mode) {
		starts := &refusedStarts{}
		config := g.config(g.controller(func(context.Context, job) error { return nil }))
		config.Temporal = g.dialRefusingRequests(func(_ string, request any) error {
			return starts.refuse(strings.HasPrefix(startedWorkflow(request), g.Prefix+"/"+g.kind), codes.Unavailable)
		})
		log := &waitsLog{Handler: config.Logger.Handler()}
		config.Logger = slog.New(log)
		c := g.start(config)
		all := append(names("few", 5), names("many", 60)...)
		g.inform(c, nil, names("few", 5)...)
		g.inform(c, nil, names("many", 60)...)
		until(t, func() bool { return len(log.all()) >= 2 })
		for _, name := range all {
			row := g.row(g.kind, name)
			require.Empty(t, row.Errors)
			require.Zero(t, row.Attempt)
			require.Equal(t, deltatype.ResourceStateScheduled, row.State)
		}
		waits := log.all()
		for i, most := range []time.Duration{time.Second, 2 * time.Second} { // doubled each time, and spread over the upper half
			require.GreaterOrEqual(t, waits[i], most/2)
			require.LessOrEqual(t, waits[i], most)
		}
		starts.over.Store(true)
		for _, name := range all {
			row := g.awaitRow(name, synced(1))
			require.Empty(t, row.Errors)
			require.Equal(t, 1, row.Attempt)
		}
	})
}

// Temporal may be starting, or busy: Start repeats any call that is not answered in time.
func TestStartRepeatsCallsThatTemporalDoesNotAnswerInTime(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var refused sync.Map
	config := h.config(with(&controller[listed]{}))
	config.Temporal = h.dialRefusingRequests(func(method string, request any) error {
		method = path.Base(method)
		if method == "GetSystemInfo" || strings.HasPrefix(method, "Poll") || strings.HasPrefix(method, "Respond") {
			return nil
		}
		if of, ok := request.(interface{ GetScheduleId() string }); ok {
			method += " " + of.GetScheduleId()
		}
		if _, again := refused.LoadOrStore(method, true); again {
			return nil
		}
		return status.Error(codes.DeadlineExceeded, "context deadline exceeded")
	})
	for range 2 { // the second start finds the schedules
		h.start(config)
	}
	for _, call := range []string{"CreateSchedule", "DescribeSchedule"} {
		for _, id := range []string{"/installation:do-not-resume-or-delete", "/inform:listed"} {
			_, ok := refused.Load(call + " " + h.Prefix + id)
			require.True(t, ok, "%s %s", call, id)
		}
	}
}

// A frontend that is being replaced cuts new connections for a moment.
func TestAClientStartsWhenTemporalIsAvailableAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	proxy := testproxy.New(t, h.TemporalAddress)
	through := func(o *client.Options) {
		o.HostPort, o.Logger = proxy.Address, quiet{}
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
				err := invoke(ctx, method, req, reply, cc, options...)
				if err != nil {
					proxy.Accept()
				}
				return err
			}))
	}
	options := client.Options{Namespace: h.TemporalNamespace}
	through(&options)
	given, err := client.NewLazyClient(options)
	require.NoError(t, err)
	t.Cleanup(given.Close)
	for _, temporal := range []client.Client{given, nil} {
		config := h.config(with(&controller[account]{}))
		if config.Temporal = temporal; temporal == nil {
			config.TemporalOptions = through
		}
		proxy.Refuse()
		c := h.client(config)
		require.NoError(t, c.Start(t.Context()))
		require.NoError(t, c.Stop(t.Context()))
	}
}
