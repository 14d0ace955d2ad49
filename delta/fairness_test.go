package delta_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// startFull starts a client with a namespace "full" with one worker, whose Work blocks until release is called.
func (g mode) startFull() (c *delta.Client, begun chan string, release func()) {
	g.t.Helper()
	begun, open := make(chan string, 1000), make(chan struct{})
	config := g.config(g.controller(func(ctx context.Context, j job) error {
		if j.Namespace != "full" {
			return nil
		}
		begun <- j.ObjectID
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}))
	config.ResourceWorkTimeout = 10 * patience
	config.Namespaces = map[string]delta.NamespaceConfig{"full": {MaxWorkers: 1}}
	return g.start(config), begun, func() { close(open) }
}

// informEach informs objects one by one.
func (g mode) informEach(c *delta.Client, opts *delta.InformOpts, names ...string) {
	g.t.Helper()
	for _, name := range names {
		_, err := c.Inform(g.t.Context(), g.object(account{Name: name}), opts)
		require.NoError(g.t, err)
	}
}

func TestAFullNamespaceKeepsNoOtherWaiting(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		c, begun, release := g.startFull()
		full := &delta.InformOpts{Namespace: "full"}
		// More rows than a worker lets wait for a slot of their namespace.
		crowd := names("crowd", 80)
		g.inform(c, full, crowd...)
		g.informEach(c, full, names("single", 20)...)
		got(t, begun)

		g.informEach(c, nil, names("free", 10)...)
		g.inform(c, nil, names("wide", 30)...)
		for _, name := range append(names("free", 10), names("wide", 30)...) {
			g.awaitRow(name, synced(1))
		}

		// New rows of a full namespace are not dispatched before it has a slot. A row informed later in another namespace shows that the dispatcher
		// has run.
		var late []*deltatype.ObjectInformResult
		for _, name := range names("late", 5) {
			result, err := c.Inform(t.Context(), g.object(account{Name: name}), full)
			require.NoError(t, err)
			late = append(late, result)
		}
		g.informEach(c, nil, "after")
		g.awaitRow("after", synced(1))
		for _, informed := range late {
			row := g.row(g.kind, informed.Resource.ObjectID)
			require.Equal(t, informed.Resource.DispatchAt, row.DispatchAt, "it is not leased")
			require.Empty(t, row.WorkflowID)
			require.Equal(t, deltatype.ResourceStateScheduled, row.State)
		}
		require.Empty(t, begun, "MaxWorkers holds")

		release()
		for _, name := range append(append(crowd, names("single", 20)...), names("late", 5)...) {
			require.Equal(t, 1, g.awaitRow(name, synced(1)).Attempt)
		}
	})
}

// Even if there are always more urgent rows than one lease takes, the least urgent ones are leased in time.
func TestAnEndlessSupplyOfUrgentRowsStarvesNoOther(t *testing.T) {
	soak.Long(t)
	inEachModeBut(t, "each", func(t *testing.T, g mode) {
		var swallow atomic.Bool
		swallow.Store(true)
		g.Env = deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
			o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(
				func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
					started, ok := reply.(*workflowservice.StartWorkflowExecutionResponse)
					if !ok || !swallow.Load() || !strings.HasSuffix(method, "/StartWorkflowExecution") {
						return invoke(ctx, method, req, reply, cc, opts...)
					}
					started.RunId = "00000000-0000-0000-0000-000000000000"
					return nil
				}))
		}))
		config := g.config(g.controller(func(context.Context, job) error { return nil }))
		c := g.client(config)
		g.inform(c, &delta.InformOpts{Priority: 1}, names("urgent", 300)...)
		g.inform(c, &delta.InformOpts{Priority: 5}, "patient")
		// The urgent rows are due again as soon as they are leased.
		g.exec(`CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.dispatch_at := now() - interval '1 minute'; RETURN NEW; END $$;
			CREATE TRIGGER refills BEFORE UPDATE ON delta_resource FOR EACH ROW WHEN (NEW.priority = 1) EXECUTE FUNCTION refill()`)
		before := g.row(g.kind, "patient").DispatchAt
		require.NoError(t, c.Start(t.Context()))
		t.Cleanup(func() { _ = c.Stop(context.Background()) })
		g.awaitRow("patient", func(r *deltatype.ResourceRow) bool { return r.DispatchAt.After(*before) })

		g.exec("DELETE FROM delta_resource WHERE priority = 1")
		swallow.Store(false)
		g.exec("UPDATE delta_resource SET dispatch_at = now()")
		g.awaitRow("patient", synced(1))
	})
}
