package delta_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

// Helpers of tests that cut connections, end workflows and kill processes while Work runs.

// brief and briefBatched are a kind in the two modes with short claims: a lost worker is noticed in seconds.
type brief struct{ account }

func (brief) Kind() string                   { return "brief" }
func (brief) Settings() delta.ObjectSettings { return briefSettings(0) }

type briefBatched struct{ account }

func (briefBatched) Kind() string                   { return "brief-batched" }
func (briefBatched) Settings() delta.ObjectSettings { return briefSettings(50) }

func briefSettings(size int) delta.ObjectSettings {
	s := batchSettings(size)
	s.HeartbeatTimeout = 3 * time.Second
	return s
}

// inBriefModes is inEachMode with short claims, and without a timeout of Work.
func inBriefModes(t *testing.T, test func(t *testing.T, g mode)) {
	t.Helper()
	inModes(t, test,
		modeFor(-1, func(a account) brief { return brief{a} }, func(o brief) account { return o.account }),
		modeFor(-1, func(a account) briefBatched { return briefBatched{a} }, func(o briefBatched) account { return o.account }))
}

func (g mode) isBatched() bool { return strings.HasSuffix(g.kind, "batched") }

// resourceWorkflow returns the id of a resource's own workflow, for a plain object id.
func (g mode) resourceWorkflow(name string) string { return g.Prefix + "/" + g.kind + "/" + name }

// awaitAttended waits until a workflow attends to a resource whose Work is held, and returns its id.
func (g mode) awaitAttended(name string) string {
	g.t.Helper()
	id := g.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r != nil && r.WorkflowID != "" }).WorkflowID
	g.awaitExecution(id)
	return id
}

// awaitExecution waits until a worker executes an ordinary activity of a workflow: held Work is long.
func (h *harness) awaitExecution(workflowID string) {
	h.t.Helper()
	until(h.t, func() bool { return h.isExecuted(workflowID) })
}

// isExecuted reports whether a worker executes an ordinary activity of a workflow.
func (h *harness) isExecuted(workflowID string) bool {
	h.t.Helper()
	found, err := h.Temporal.DescribeWorkflow(h.t.Context(), workflowID, "")
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return false
	}
	require.NoError(h.t, err)
	return slices.ContainsFunc(found.RawResponse.GetPendingActivities(), func(pending *workflowpb.PendingActivityInfo) bool {
		return pending.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED
	})
}

// orderByID sends a signal to a resource's own workflow, and starts the workflow if it is not running, like the guide's command.
func (g mode) orderByID(workflowID, signal string, ref map[string]any) {
	g.t.Helper()
	ref["kind"] = g.kind
	_, err := g.Temporal.SignalWithStartWorkflow(g.t.Context(), workflowID, signal, nil,
		client.StartWorkflowOptions{ID: workflowID, TaskQueue: g.Prefix + "/" + g.kind}, workflows.ResourceName, ref)
	require.NoError(g.t, err)
}

// awaitTimer waits until the latest run of a workflow has read its rows, and waits for a timer.
func (h *harness) awaitTimer(workflowID string) {
	h.t.Helper()
	h.awaitEvent(workflowID, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
}

// awaitRetry waits until Temporal has given up an execution of a workflow's activity, and retries it.
func (h *harness) awaitRetry(workflowID string) {
	h.t.Helper()
	until(h.t, func() bool {
		found, err := h.Temporal.DescribeWorkflow(h.t.Context(), workflowID, "")
		require.NoError(h.t, err)
		for _, pending := range found.RawResponse.GetPendingActivities() {
			if pending.GetAttempt() > 1 {
				return true
			}
		}
		return false
	})
}

// resetWorkflow resets the latest run of a workflow to its first decision, as an operator can in the UI.
func (h *harness) resetWorkflow(workflowID string) error {
	history, err := h.findHistory(workflowID)
	if err != nil {
		return err
	}
	first := slices.IndexFunc(history, func(e *historypb.HistoryEvent) bool {
		return e.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
	})
	if first < 0 {
		return fmt.Errorf("%s has decided nothing yet", workflowID)
	}
	_, err = h.Temporal.ResetWorkflowExecution(context.Background(), &workflowservice.ResetWorkflowExecutionRequest{
		Namespace: h.TemporalNamespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: workflowID},
		Reason: "an operator", WorkflowTaskFinishEventId: history[first].GetEventId(), RequestId: uuid.NewString(),
	})
	return err
}

// meter counts calls of Work by resource, and concurrent ones.
type meter struct {
	mu                   sync.Mutex
	calls, running, most map[string]int
}

func (m *meter) enter(id string) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls == nil {
		m.calls, m.running, m.most = map[string]int{}, map[string]int{}, map[string]int{}
	}
	m.calls[id]++
	m.running[id]++
	m.most[id] = max(m.most[id], m.running[id])
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.running[id]--
	}
}

// callsOf returns how often Work was called for a resource. It fails the test if two calls overlapped.
func (m *meter) callsOf(t *testing.T, id string) int {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	require.LessOrEqual(t, m.most[id], 1, "concurrent calls of Work for one resource")
	return m.calls[id]
}

// heldWork is a Work that runs, for objects with the plan held, until it is released or its context ends.
type heldWork struct {
	*meter
	// began gets the id of each held call, ended the cause of its context's end.
	began    chan string
	ended    chan error
	finish   chan struct{}
	finished sync.Once
}

const held = "held"

// newHeldWork returns a held Work that is released at the end of the test at the latest.
func newHeldWork(t *testing.T, m *meter) *heldWork {
	w := &heldWork{meter: m, began: make(chan string, 100), ended: make(chan error, 100), finish: make(chan struct{})}
	t.Cleanup(w.release)
	return w
}

func (w *heldWork) release() { w.finished.Do(func() { close(w.finish) }) }

func (w *heldWork) work(ctx context.Context, j job) error {
	defer w.enter(j.ObjectID)()
	if j.Object.Plan != held {
		return nil
	}
	w.began <- j.ObjectID
	select {
	case <-w.finish:
		return nil
	case <-ctx.Done():
		w.ended <- context.Cause(ctx)
		return ctx.Err()
	}
}

// informHeld informs objects whose Work is held, and waits until it runs for all of them.
func (g mode) informHeld(c *delta.Client, w *heldWork, opts *delta.InformOpts, names ...string) {
	g.t.Helper()
	var objects []delta.Object
	for _, name := range names {
		objects = append(objects, g.object(account{Name: name, Plan: held}))
	}
	_, err := c.InformMany(g.t.Context(), objects, opts)
	require.NoError(g.t, err)
	for range names {
		receive(g.t, w.began)
	}
}

func (g mode) informPlan(c *delta.Client, name, plan string) {
	g.t.Helper()
	_, err := c.Inform(g.t.Context(), g.object(account{Name: name, Plan: plan}), nil)
	require.NoError(g.t, err)
}

// receive waits for a value.
func receive[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(patience):
		require.Fail(t, "nothing came through the channel")
	}
	return value
}

// cutProxy forwards connections. While stalled, it keeps data; when cut, it drops data.
type cutProxy struct {
	net.Listener
	target     string
	cut, stall atomic.Bool
	// refused closes new connections at once.
	refused atomic.Bool
	// lose is how many of the next confirmed writes lose their answer, together with their connection.
	lose  atomic.Int64
	mu    sync.Mutex
	conns []net.Conn
}

func newCutProxy(t *testing.T, target string) *cutProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &cutProxy{Listener: l, target: target}
	t.Cleanup(func() {
		_ = l.Close()
		p.heal()
	})
	go p.serve()
	return p
}

func (p *cutProxy) serve() {
	for {
		in, err := p.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		if p.refused.Load() {
			p.closeAll()
			continue
		}
		go p.pipe(out, in, false)
		go p.pipe(in, out, true)
	}
}

// losesAnswer reports whether an answer is to be lost, and counts it.
func (p *cutProxy) losesAnswer(answer []byte) bool {
	isWrite := bytes.Contains(answer, []byte("UPDATE ")) || bytes.Contains(answer, []byte("COMMIT\x00"))
	if !isWrite || p.lose.Load() <= 0 {
		return false
	}
	return p.lose.Add(-1) >= 0
}

func (p *cutProxy) pipe(to, from net.Conn, answers bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		for p.stall.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		if answers && p.losesAnswer(buf[:n]) {
			_ = from.Close()
			_ = to.Close()
			return
		}
		if n > 0 && !p.cut.Load() {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// heal closes connections that were cut, and forwards new ones.
func (p *cutProxy) heal() {
	p.closeAll()
	p.cut.Store(false)
	p.stall.Store(false)
	p.refused.Store(false)
}

func (p *cutProxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

// refuse closes all connections, also later ones, like a server that is down.
func (p *cutProxy) refuse() {
	p.refused.Store(true)
	p.closeAll()
}

// end closes the proxy for good, like the end of the process behind it.
func (p *cutProxy) end() {
	_ = p.Close()
	p.refuse()
}

// temporalBy dials Temporal through a proxy.
func (h *harness) temporalBy(p *cutProxy) client.Client {
	h.t.Helper()
	temporal, err := dialTemporal(client.Options{HostPort: p.Addr().String(), Namespace: h.TemporalNamespace})
	require.NoError(h.t, err)
	h.t.Cleanup(temporal.Close)
	return temporal
}

// deafTemporal dials Temporal by a connection that gets no tasks once it is deaf.
func (h *harness) deafTemporal(isDeaf *atomic.Bool) client.Client {
	h.t.Helper()
	intercept := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, cc, opts...)
		if strings.Contains(method, "/Poll") && isDeaf.Load() {
			return status.Error(codes.Unavailable, "no more tasks")
		}
		return err
	}
	temporal, err := dialTemporal(client.Options{
		HostPort: h.TemporalAddress, Namespace: h.TemporalNamespace,
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(intercept)}},
	})
	require.NoError(h.t, err)
	h.t.Cleanup(temporal.Close)
	return temporal
}

// poolByProxy returns a pool whose connections can be cut.
func (h *harness) poolByProxy() (*pgxpool.Pool, *cutProxy) {
	h.t.Helper()
	settings, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(h.t, err)
	network, address := pgconn.NetworkAddress(settings.ConnConfig.Host, settings.ConnConfig.Port)
	require.Equal(h.t, "tcp", network)
	p := newCutProxy(h.t, address)
	settings.ConnConfig.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, p.Addr().String())
	}
	settings.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(h.t.Context(), settings)
	require.NoError(h.t, err)
	h.t.Cleanup(pool.Close)
	return pool, p
}
