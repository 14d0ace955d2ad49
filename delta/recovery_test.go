package delta_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/testsuite"

	"github.com/chariot-giving/delta/delta"
)

// freeAddress is one that a server can have, and have again: below the ports that connections are given, one of which could
// otherwise have it while the server is away.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000)))
		if err == nil {
			require.NoError(t, port.Close())
			return port.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// devServer starts a Temporal server of the test's own, which keeps nothing when it ends.
func devServer(t *testing.T, address string) *testsuite.DevServer {
	t.Helper()
	server, err := testsuite.StartDevServer(t.Context(), testsuite.DevServerOptions{
		ExistingPath:  temporalCommand(),
		ClientOptions: &client.Options{HostPort: address},
		LogLevel:      "error",
	})
	require.NoError(t, err)
	return server
}

// Wipe Temporal, and everything is rebuilt from the rows: lifecycles, timers and schedules. What is not due is not synced.
func TestAWipedTemporalIsRebuiltFromTheRows(t *testing.T) {
	t.Parallel()
	const resources = 1000
	h := newHarness(t)
	address := freeAddress(t)
	server := devServer(t, address)
	temporal, err := client.Dial(client.Options{HostPort: address, Logger: quiet{}})
	require.NoError(t, err)
	defer temporal.Close()

	var calls, passes atomic.Int64
	config := h.config(
		with(&controller[wide]{work: func(context.Context, *delta.Resource[wide]) error {
			calls.Add(1)
			return nil
		}}),
		with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
			passes.Add(1)
			return send[listed](ctx), nil
		}}),
	)
	config.Temporal, config.TemporalNamespace = temporal, ""
	config.MaintenanceJobInterval = time.Second
	c := h.start(config)
	var objects []delta.Object
	for i := range resources {
		objects = append(objects, wide{account{Name: fmt.Sprint(i)}})
	}
	_, err = c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	open := func() (n int) {
		require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource WHERE state <> 'synced'").Scan(&n))
		return n
	}
	until(t, func() bool { return open() == 0 })
	require.EqualValues(t, resources, calls.Load())

	require.NoError(t, server.Stop())
	_, err = c.Inform(t.Context(), wide{account{Name: "meanwhile"}}, nil)
	require.NoError(t, err, "informing needs no Temporal")
	server = devServer(t, address)
	defer func() { require.NoError(t, server.Stop()) }()

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
	until(t, func() bool { return running() == resources+1 },
		"each resource has its lifecycle again; %d have", running())
	// Its timer too: what rests is not waiting for a wake-up.
	for i := 0; i < resources; i += 37 {
		id := fmt.Sprintf("%s/wide/%d", h.Prefix, i)
		until(t, func() bool {
			value, err := temporal.QueryWorkflow(t.Context(), id, "", "state")
			var step struct{ Next string }
			return err == nil && value.Get(&step) == nil && step.Next == "lapse"
		}, "%s", id)
	}
	require.EqualValues(t, resources+1, calls.Load(), "nothing was synced that was not due")
	until(t, func() bool {
		return h.count("SELECT count(*) FROM delta_resource WHERE state = 'synced' AND dispatch_at < due_at") == 0
	}, "what rests is not woken again before it is due")
	_, err = temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:listed").Describe(t.Context())
	require.NoError(t, err)
	until(t, func() bool { return passes.Load() >= 2 }, "the informer's schedule is there, and runs")
}

// quiet is a logger for a client whose server goes away.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
