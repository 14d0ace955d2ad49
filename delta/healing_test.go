package delta_test

import (
	"cmp"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// setPollPatience sets how long the SDK's pollers retry an error that they consider final, before their worker gives up. The SDK has it for tests, in
// a package that others cannot import.
//
//go:linkname setPollPatience go.temporal.io/sdk/internal.SetRetryLongPollGracePeriod
func setPollPatience(patience time.Duration)

// It applies to the process, and must not change while a worker runs. Soaks keep the SDK's value, two minutes.
func init() {
	if os.Getenv("DELTA_SOAK") == "" {
		setPollPatience(time.Second)
	}
}

// absence makes all calls to Temporal by one client fail from some time on.
type absence struct {
	// err is the error of these calls: by default, a namespace that does not exist.
	err   error
	mu    sync.Mutex
	gone  bool
	calls map[*context.CancelFunc]struct{}
}

// begin ends calls in progress, and refuses later ones.
func (a *absence) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
	for cancel := range a.calls {
		(*cancel)()
	}
}

func (a *absence) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = false
}

// beginCall notes the beginning of a call, and reports whether the namespace is gone.
func (a *absence) beginCall(cancel *context.CancelFunc) (gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls = map[*context.CancelFunc]struct{}{}
	}
	a.calls[cancel] = struct{}{}
	return a.gone
}

func (a *absence) endCall(cancel *context.CancelFunc) (gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.calls, cancel)
	return a.gone
}

func (a *absence) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := a.beginCall(&cancel)
	var err error
	if !gone {
		err = invoke(ctx, method, req, reply, cc, opts...)
	}
	if a.endCall(&cancel) || gone {
		return serviceerror.ToStatus(cmp.Or(a.err, serviceerror.NewNamespaceNotFound("gone"))).Err()
	}
	return err
}

// temporalWith dials Temporal with an interceptor.
func (h *harness) temporalWith(intercept grpc.UnaryClientInterceptor) client.Client {
	h.t.Helper()
	temporal, err := dialTemporal(client.Options{
		HostPort: h.TemporalAddress, Namespace: h.TemporalNamespace,
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(intercept)}},
	})
	require.NoError(h.t, err)
	h.t.Cleanup(temporal.Close)
	return temporal
}

const (
	gaveUp     = "a Temporal worker gave up"
	pollsAgain = "a Temporal worker polls again"
)

// awaitText waits until a text was logged a number of times.
func (b *logBuffer) awaitText(t *testing.T, text string, times int) {
	t.Helper()
	until(t, func() bool { return strings.Count(b.String(), text) >= times }, text)
}

// Temporal's namespace is gone for longer than the SDK's workers retry, while Work runs. New workers replace them. Work on the old ones continues,
// and is not called twice.
func TestWorkersThatGaveUpAreReplaced(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	if _, given := soak.Given(t); given {
		t.Skip("soaks have the SDK's patience, and a test of their own")
	}
	h := newHarness(t)
	var away absence
	var logs logBuffer
	w := newHeldWork(t, &meter{})
	config := withLongClaims(h.config(with(&controller[brief]{work: func(ctx context.Context, r *delta.Resource[brief]) error {
		return w.work(ctx, job{ResourceRow: r.ResourceRow, Object: r.Object.account})
	}}), with(newLister("a"))), "brief")
	config.Temporal, config.Logger = h.temporalWith(away.intercept), logs.logger()
	c := h.start(config)
	_, err := c.Sync(t.Context(), brief{account{Name: "before"}}, nil)
	require.NoError(t, err)
	_, err = c.Inform(t.Context(), brief{account{Name: "long", Plan: held}}, nil)
	require.NoError(t, err)
	receive(t, w.began)

	away.begin()
	logs.awaitText(t, gaveUp, 4) // two kinds, each with a worker for resources and one for its informer
	require.Contains(t, partsOf(c.Health(t.Context())), delta.HealthTemporal)
	away.end()
	logs.awaitText(t, pollsAgain, 4)

	_, err = c.Inform(t.Context(), brief{account{Name: "after"}}, nil)
	require.NoError(t, err)
	h.eventually("brief", "after", synced(1))
	w.release()
	row := h.eventually("brief", "long", synced(1))
	require.Empty(t, row.Errors, "the old worker has finished its Work")
	require.Equal(t, 1, w.callsOf(t, "long"))
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "catalogued", RunForeground: true}, nil)
	require.NoError(t, err, "the informer's worker has been replaced too")
	require.Equal(t, 1, run.Listed)
	until(t, func() bool { return c.Health(t.Context()) == nil })
}

func TestStopDoesNotWaitForWorkersThatGaveUpNorLeaveAny(t *testing.T) {
	soak.Long(t)
	if _, given := soak.Given(t); given {
		t.Skip("soaks have the SDK's patience")
	}
	if !inOwnProcess(t) {
		return
	}
	h := newHarness(t)
	_ = h.row("account", "nobody") // opens the harness's own connections before
	before := goleak.IgnoreCurrent()
	for _, isBack := range []bool{false, true} {
		var away absence
		var logs logBuffer
		temporal := h.temporalWith(away.intercept)
		config := h.config(with(&controller[account]{}))
		config.Temporal, config.Logger = temporal, logs.logger()
		c := h.client(config)
		require.NoError(t, c.Start(context.Background()))
		away.begin()
		logs.awaitText(t, gaveUp, 2)
		if isBack {
			away.end()
			logs.awaitText(t, pollsAgain, 2)
		}
		require.NoError(t, c.Stop(context.Background()))
		temporal.Close()
	}
	h.Pool.Reset()
	var left error // connections take a moment to close
	until(t, func() bool { left = goleak.Find(before); return left == nil }, "%s", shown[error]{&left})
}

// If a permission is revoked, polls fail, but no worker gives up, and everything works when it is granted again.
func TestWorkersOutliveThatTheirRightIsTakenAway(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	denied := absence{err: serviceerror.NewPermissionDenied("the key was revoked", "")}
	config := h.config(with(&controller[account]{}))
	config.Temporal, config.Logger = h.temporalWith(denied.intercept), logs.logger()
	c := h.start(config)
	denied.begin()
	until(t, func() bool {
		err := c.Health(t.Context())
		return err != nil && strings.Contains(err.Error(), "the key was revoked")
	})
	time.Sleep(3 * time.Second) // longer than pollers retry final errors
	denied.end()
	_, err := c.Inform(t.Context(), account{Name: "after"}, nil)
	require.NoError(t, err)
	h.eventually("account", "after", synced(1))
	require.NotContains(t, logs.String(), gaveUp)
	until(t, func() bool { return c.Health(t.Context()) == nil })
}

// A real deletion of the namespace, which is created again after four minutes.
func TestSoakATemporalNamespaceThatIsGoneForMinutes(t *testing.T) {
	soak.Only(t)
	t.Parallel()
	h := newHarness(t)
	name := "gone-" + strings.ReplaceAll(h.Schema, "_", "-")
	createNamespace := func() {
		until(t, func() bool {
			_, err := h.Temporal.WorkflowService().RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
				Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
			})
			return err == nil
		})
	}
	createNamespace()
	temporal, err := dialTemporal(client.Options{HostPort: h.TemporalAddress, Namespace: name})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	var logs logBuffer
	config := h.config(with(&controller[account]{}), with(newLister("a")))
	config.Temporal, config.TemporalNamespace, config.Logger, config.MaintenanceJobInterval = temporal, name, logs.logger(), 5*time.Second
	c := h.client(config)
	until(t, func() bool { return c.Start(context.Background()) == nil }) // the server notices a new namespace within some seconds
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	row, err := c.Sync(t.Context(), account{Name: "before"}, nil)
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateSynced, row.State)

	_, err = h.Temporal.OperatorService().DeleteNamespace(t.Context(), &operatorservice.DeleteNamespaceRequest{Namespace: name})
	require.NoError(t, err)
	gone := time.Now()
	logs.awaitText(t, gaveUp, 4)
	require.Error(t, c.Health(t.Context()))
	time.Sleep(time.Until(gone.Add(4 * time.Minute)))
	createNamespace()
	_, err = c.Inform(t.Context(), account{Name: "after"}, nil)
	require.NoError(t, err)
	h.eventually("account", "after", synced(1))
	until(t, func() bool { return c.Health(t.Context()) == nil })
}
