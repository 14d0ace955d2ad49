package delta_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/internal/testport"
)

// ownTemporal is a test's own Temporal server. It keeps nothing when it ends.
type ownTemporal struct {
	*stack.Stack
	t        *testing.T
	settings []string
}

// startTemporal starts a server. settings are its dynamic configuration, as key=JSON.
func startTemporal(t *testing.T, settings ...string) *ownTemporal {
	t.Helper()
	own := &ownTemporal{t: t, settings: settings}
	own.start(testport.Reserve(t))
	t.Cleanup(own.end)
	return own
}

func (own *ownTemporal) start(port int) {
	own.t.Helper()
	var err error
	own.Stack, err = stack.StartTemporal(own.t.Context(), stack.Options{
		Ephemeral: true, TemporalPort: port, UIPort: stack.AnyPort, TemporalSettings: own.settings,
	})
	require.NoError(own.t, err)
}

func (own *ownTemporal) end() {
	own.t.Helper()
	require.NoError(own.t, own.Stop(context.Background()))
}

// again starts an empty server at the same address.
func (own *ownTemporal) again() {
	own.t.Helper()
	address := own.TemporalAddress
	_, port, err := net.SplitHostPort(address)
	require.NoError(own.t, err)
	number, err := strconv.Atoi(port)
	require.NoError(own.t, err)
	own.start(number)
	require.Equal(own.t, address, own.TemporalAddress, "another program has taken the port")
}

func (own *ownTemporal) dial(options ...grpc.DialOption) client.Client {
	own.t.Helper()
	c, err := dialTemporal(client.Options{
		HostPort: own.TemporalAddress, ConnectionOptions: client.ConnectionOptions{DialOptions: options},
	})
	require.NoError(own.t, err)
	own.t.Cleanup(c.Close)
	return c
}

// After a wipe of Temporal, everything is rebuilt from the rows: lifecycles, timers and schedules. Resources that are not due are not synced.
func TestSoakOfAWipedTemporal(t *testing.T) {
	resources := soak.Count(t, 100, 3000)
	t.Parallel()
	h := newHarness(t)
	server := startTemporal(t)
	temporal := server.dial()

	var calls, passes atomic.Int64
	config := h.config(
		with(&controller[wide]{work: func(context.Context, *delta.Resource[wide]) error {
			calls.Add(1)
			return nil
		}}),
		with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
			passes.Add(1)
			return sendAll[listed](ctx), nil
		}}),
	)
	config.Temporal, config.TemporalNamespace = temporal, ""
	config.MaintenanceJobInterval = time.Second
	c := h.start(config)
	var objects []delta.Object
	for i := range resources {
		objects = append(objects, wide{account{Name: fmt.Sprint(i)}})
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	open := func() (n int) {
		require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource WHERE state <> 'synced'").Scan(&n))
		return n
	}
	until(t, func() bool { return open() == 0 })
	require.EqualValues(t, resources, calls.Load())
	until(t, func() bool { return passes.Load() >= 1 }, "the first pass, besides that of the recreated schedule")

	server.end()
	_, err = c.Inform(t.Context(), wide{account{Name: "meanwhile"}}, nil)
	require.NoError(t, err, "informing needs no Temporal")
	server.again()

	until(t, func() bool { return synced(1)(h.row("wide", "meanwhile")) })
	running := func() int64 {
		count, err := temporal.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{
			Query: "WorkflowType = 'delta.Resource' AND ExecutionStatus = 'Running'",
		})
		if err != nil {
			return 0
		}
		return count.GetCount()
	}
	until(t, func() bool { return running() == int64(resources)+1 },
		"each resource has its lifecycle again; %d have", running())
	// Its timer too: a settled resource needs no wake-up.
	for i := 0; i < resources; i += 37 {
		id := fmt.Sprintf("%s/wide/%d", h.Prefix, i)
		until(t, func() bool {
			value, err := temporal.QueryWorkflow(t.Context(), id, "", "state")
			var step struct{ Next string }
			return err == nil && value.Get(&step) == nil && step.Next == "retention"
		}, "%s", id)
	}
	require.EqualValues(t, resources+1, calls.Load(), "resources that were not due were not synced")
	until(t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'synced' AND dispatch_at < due_at") == 0
	}, "settled resources are not woken before they are due")
	// Workflows and schedules are recreated concurrently.
	until(t, func() bool {
		_, err = temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:listed").Describe(t.Context())
		return err == nil
	}, "%s", shown[error]{&err})
	until(t, func() bool { return passes.Load() >= 2 }, "the informer's schedule exists, and runs")
}

// dialTemporal makes a client that logs nothing, and waits for its first answer longer than the SDK's 5 s.
func dialTemporal(options client.Options) (client.Client, error) {
	options.Logger, options.ConnectionOptions.GetSystemInfoTimeout = quiet{}, time.Minute
	return client.Dial(options)
}

// quiet is a logger for a client whose server goes away.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
