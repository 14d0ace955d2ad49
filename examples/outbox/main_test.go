package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/sinks/changelog"
)

// patience is how long a test waits for an event that must come. A long one costs nothing if the test passes.
const patience = 3 * time.Minute

func until(t *testing.T, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 20*time.Millisecond)
}

func startNATS(t *testing.T, folder string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: folder, NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(patience))
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// heard has the entries that a follower has received, in order.
type heard struct {
	mu      sync.Mutex
	entries []changelog.Entry
}

func (h *heard) add(e changelog.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries = append(h.entries, e)
}

// of returns the types and amounts that were received for a payment.
func (h *heard) of(id string) (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.entries {
		if e.ObjectID == id {
			all = append(all, e.Type+" "+string(e.After))
		}
	}
	return all
}

// The relay ends in the middle, and NATS becomes unreachable. All outcomes of each payment are still received in order.
func TestWhatBecomesOfPaymentsIsHeard(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), schema)
	require.NoError(t, err)
	folder := t.TempDir()
	s := startNATS(t, folder, -1)
	port := s.Addr().(*net.TCPAddr).Port
	connection, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(connection.Close)
	js, err := jetstream.New(connection)
	require.NoError(t, err)
	stream, err := newStream(t.Context(), js)
	require.NoError(t, err)
	controllers := delta.NewControllers()
	delta.AddController(controllers, payments{})
	client, err := delta.NewClient(env.Pool, &delta.Config{
		Controllers: controllers, Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix, Logger: env.Logger,
	})
	require.NoError(t, err)
	require.NoError(t, client.Start(context.Background()))
	t.Cleanup(func() { _ = client.Stop(context.Background()) })
	relay := func() (stop func()) {
		r, err := newRelay(client, js)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		stop = sync.OnceFunc(func() { cancel(); require.NoError(t, <-ended) })
		t.Cleanup(stop)
		return stop
	}
	has := func(h *heard, n int, like string) bool {
		for i := range n {
			all := h.of(fmt.Sprintf("pay_%d", i))
			if len(all) == 0 || !strings.Contains(all[len(all)-1], like) {
				return false
			}
		}
		return true
	}
	const n = 20
	payAll := func(cents int64) {
		for i := range n {
			require.NoError(t, savePayment(t.Context(), client, env.Pool, payment{fmt.Sprintf("pay_%d", i), cents}))
		}
	}
	h, newest := &heard{}, map[string]int64{}
	follower := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- followOutcomes(ctx, stream, newest, h.add) }()
		stop = sync.OnceFunc(func() { cancel(); require.NoError(t, <-ended) })
		t.Cleanup(stop)
		return stop
	}
	stopFollower, stop := follower(), relay()
	payAll(100)
	until(t, func() bool { return has(h, n, `"cents": 100`) })
	stop()
	stopFollower()

	s.Shutdown()
	s.WaitForShutdown()
	payAll(200)
	relay()
	require.NoError(t, savePayment(t.Context(), client, env.Pool, payment{"bad", -1}))
	_, err = client.Delete(t.Context(), "payment", "pay_0")
	require.NoError(t, err)
	startNATS(t, folder, port)
	until(t, func() bool { info, err := stream.Info(t.Context()); return err == nil && info.State.Msgs > 0 })
	follower()
	until(t, func() bool { return has(h, 1, "deleted") && len(h.of("bad")) == 1 })
	until(t, func() bool {
		for i := 1; i < n; i++ {
			if all := h.of(fmt.Sprintf("pay_%d", i)); !strings.Contains(all[len(all)-1], `"cents": 200`) {
				return false
			}
		}
		return true
	})
	require.Equal(t, []string{`failed {"id": "bad", "cents": -1}`}, h.of("bad"))
	h.mu.Lock()
	defer h.mu.Unlock()
	last := map[string]int64{}
	for _, e := range h.entries {
		require.GreaterOrEqual(t, e.Generation, last[e.ObjectID], "%s", e.ObjectID)
		last[e.ObjectID] = e.Generation
	}
}

// Runs the demo like `DEMO=outbox make demo`.
func TestTheDemoRuns(t *testing.T) {
	env := deltatest.New(t)
	t.Setenv("DELTA_DATABASE_URL", env.DatabaseURL)
	t.Setenv("TEMPORAL_ADDRESS", env.TemporalAddress)
	t.Setenv("TEMPORAL_NAMESPACE", env.TemporalNamespace)
	t.Setenv("NATS_URL", "")
	var out bytes.Buffer
	require.NoError(t, runDemo(t.Context(), env.Prefix, true, &out), out.String())
	for _, says := range []string{
		`created   pay_1   null → {"id": "pay_1", "cents": 1200}`, `updated   pay_1   {"id": "pay_1", "cents": 1200} → {"id": "pay_1", "cents": 1500}`,
		`failed    pay_2   null → `, `the bank refuses the amount`, `deleted   pay_1   {"id": "pay_1", "cents": 1500} → null`,
	} {
		require.Contains(t, out.String(), says)
	}
}
