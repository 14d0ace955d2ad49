package delta_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/hostile"
)

// polls counts the open long polls of a connection.
type polls struct {
	mu     sync.Mutex
	byName map[string]int
}

func (p *polls) add(method string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byName == nil {
		p.byName = map[string]int{}
	}
	p.byName[method[strings.LastIndex(method, "/")+1:]] += n
}

func (p *polls) count() (workflows, activities int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byName["PollWorkflowTaskQueue"], p.byName["PollActivityTaskQueue"]
}

func (p *polls) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	p.add(method, 1)
	defer p.add(method, -1)
	return invoke(ctx, method, req, reply, cc, opts...)
}

// through makes a client dial its own connection, whose polls are counted.
func (p *polls) through(h *harness, config *delta.Config) *delta.Config {
	config.Temporal = nil
	config.TemporalOptions = func(o *client.Options) {
		o.HostPort, o.Logger = h.TemporalAddress, quiet{}
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(p.intercept))
	}
	return config
}

// awaitPolls waits until so many polls of each sort are open.
func (p *polls) awaitPolls(t *testing.T, workflows, activities int) {
	t.Helper()
	until(t, func() bool {
		w, a := p.count()
		return w == workflows && a == activities
	}, "%s", shown[map[string]int]{&p.byName})
}

// The numbers of pollers in docs/scaling.md.
func TestAKindHasTwelvePollersAndEightWithoutAnInformer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var with2, without polls
	controllers := func() *delta.Config { return h.config(with(&controller[account]{}), with(newLister("a"))) }
	h.start(with2.through(h, controllers()))
	with2.awaitPolls(t, 2*(4+2), 2*(4+2))
	config := without.through(h, controllers())
	config.DisableInformers = true
	h.start(config)
	without.awaitPolls(t, 2*4, 2*4)
}

func TestASharedWorkerHasThirtyTwoPollersForAllKinds(t *testing.T) {
	t.Parallel()
	hostile.NeedsDirect(t, "no client hears a notification, which its health says")
	h := newHarness(t)
	var open polls
	config := open.through(h, h.config(with(&controller[account]{}), with(newLister("a", "b")), with(&controller[batched]{})))
	config.TaskQueue, config.SharedWorker = h.Prefix+"-all", true
	c := h.start(config)
	open.awaitPolls(t, 16, 16)
	awaitParts(t, c)

	// A shared worker works the same as a worker for each kind: singles, batches, listings.
	row, err := c.Sync(t.Context(), account{Name: "a"}, nil)
	require.NoError(t, err)
	require.Equal(t, h.Prefix+"/account/a", row.WorkflowID)
	_, err = c.InformMany(t.Context(), manyBatched(names("ok", 100)...), nil)
	require.NoError(t, err)
	for _, name := range names("ok", 100) {
		h.eventually("batched", name, synced(1))
	}
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "catalogued", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 2, run.Listed)

	// A client with other kinds would get tasks that it cannot do.
	other := h.config(with(&controller[account]{}))
	other.TaskQueue, other.SharedWorker = config.TaskQueue, true
	err = h.client(other).Start(t.Context())
	require.ErrorContains(t, err, `Config.TaskQueue`)
	require.ErrorContains(t, err, `must not be that of kind "batched"`)
	require.ErrorContains(t, c.Register(nothing{}), "Config.SharedWorker true: must be false")
}

// The user can change all options of the client's connection except its address.
func TestTheUserChangesTheOptionsOfTheConnection(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var open polls
	c := h.client(open.through(h, h.config(with(newLister("a")))))
	_, err := c.TemporalStatus(t.Context(), "catalogued") // uses the connection of a client that is not started
	require.NoError(t, err)
	open.mu.Lock()
	asked := len(open.byName)
	open.mu.Unlock()
	require.Positive(t, asked, "the interceptor sees Delta's calls")
	require.NoError(t, c.Stop(t.Context()))
	for want, change := range map[string]func(*client.Options){
		`Config.TemporalOptions "elsewhere": must leave Namespace at "` + h.TemporalNamespace + `"`: func(o *client.Options) { o.Namespace = "elsewhere" },
		`Config.TemporalOptions "": must not empty HostPort`:                                        func(o *client.Options) { o.HostPort = "" },
	} {
		config := h.config(with(&controller[account]{}))
		config.Temporal, config.TemporalOptions = nil, change
		_, err := delta.NewClient(h.Pool, config)
		require.ErrorAs(t, err, new(*delta.InputError))
		require.ErrorContains(t, err, want)
		config.ContextPropagators = []workflow.ContextPropagator{} // then TemporalOptions is called only to connect
		err = h.client(config).Start(t.Context())
		require.ErrorAs(t, err, new(*delta.InputError))
		require.ErrorContains(t, err, want)
	}
}

// nothing is a registry that is never called.
type nothing struct{ sdkworker.Registry }
