package delta_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
		return waitFor(ctx, open)
	}))
	config.ResourceWorkTimeout = 10 * patience
	config.Namespaces = map[string]delta.NamespaceConfig{"full": {MaxWorkers: 1}}
	return g.start(config), begun, func() { close(open) }
}

// startWithoutPoll starts a client whose dispatchers look only when they are woken.
func (h *harness) startWithoutPoll(config *delta.Config) *delta.Client {
	h.t.Helper()
	c := h.client(config)
	c.SetTiming(0, 24*time.Hour, 0)
	require.NoError(h.t, c.Start(h.t.Context()))
	h.t.Cleanup(func() { _ = c.Stop(context.Background()) })
	return c
}

// waitFor waits in Work until the test sends, or closes the channel.
func waitFor(ctx context.Context, sent <-chan struct{}) error {
	select {
	case <-sent:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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

// The slots of a namespace are handed on from call to call, also among clients, to each of which Temporal gives rows that another one has leased. A
// dispatcher that waited for its poll would wait for ever here.
func TestSlotsOfANamespaceNeedNoPoll(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		config := g.config(g.controller(func(context.Context, job) error { return nil }))
		config.Namespaces = map[string]delta.NamespaceConfig{"full": {MaxWorkers: 1}}
		clients := []*delta.Client{g.startWithoutPoll(config), g.startWithoutPoll(config)}
		full := &delta.InformOpts{Namespace: "full"}
		crowd, single := names("crowd", 60), names("single", 20)
		g.inform(clients[0], full, crowd...)
		g.informEach(clients[1], full, single...)
		for _, name := range append(crowd, single...) {
			g.awaitRow(name, synced(1))
		}
	})
}

// MaxWorkers is of each client, so a client without room leaves new rows to others, and tells them.
func TestAClientWithRoomLearnsOfRowsThatAnotherHasNoRoomFor(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
	g.harness = newHarness(t)
	begun, held := make(chan string, 10), make(chan struct{})
	start := func() *delta.Client {
		config := g.config(g.controller(func(ctx context.Context, j job) error {
			if !strings.HasPrefix(j.ObjectID, "held") {
				return nil
			}
			begun <- j.ObjectID
			return waitFor(ctx, held)
		}))
		config.ResourceWorkTimeout = 10 * patience
		config.Namespaces = map[string]delta.NamespaceConfig{"full": {MaxWorkers: 1}}
		config.Kinds = map[string]delta.ObjectSettings{g.kind: {HeartbeatTimeout: patience}}
		return g.startWithoutPoll(config)
	}
	full := &delta.InformOpts{Namespace: "full"}
	a := start()
	g.informEach(a, full, "held-0")
	got(t, begun)
	g.informEach(a, full, "held-1")
	g.awaitExecution(g.resourceWorkflow("held-1")) // it waits for the slot of this client
	b := start()
	for i := range 3 { // after that its dispatcher waits
		name := fmt.Sprintf("other-%d", i)
		g.informEach(b, nil, name)
		g.awaitRow(name, synced(1))
	}
	informed, err := a.Inform(t.Context(), g.object(account{Name: "free"}), full)
	require.NoError(t, err)
	g.awaitRow("free", func(r *deltatype.ResourceRow) bool {
		return r.SyncCount > 0 || r.DispatchAt == nil || !r.DispatchAt.Equal(*informed.Resource.DispatchAt)
	}) // it is leased
	close(held)
	for _, name := range []string{"held-0", "held-1", "free"} {
		g.awaitRow(name, synced(1))
	}
}

// Namespaces with many due rows delay neither each other nor another namespace, and what is due in the past is found all the same.
func TestNamespacesWithManyDueRowsShareTheirKind(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		open := make(chan struct{})
		config := g.config(g.controller(func(ctx context.Context, j job) error {
			if j.Namespace != "stuck" {
				return nil
			}
			return waitFor(ctx, open)
		}))
		config.ResourceWorkTimeout = 10 * patience
		config.Namespaces = map[string]delta.NamespaceConfig{"stuck": {MaxWorkers: 1}, "slow": {MaxWorkers: 1}}
		c := g.client(config)
		c.LookForCrowds()
		stuck, slow := names("stuck", 200), names("slow", 100)
		g.inform(c, &delta.InformOpts{Namespace: "stuck"}, stuck...)
		g.inform(c, &delta.InformOpts{Namespace: "slow"}, slow...)
		require.NoError(t, c.Start(t.Context()))
		t.Cleanup(func() { _ = c.Stop(context.Background()) })
		for i, name := range slow {
			g.awaitRow(name, synced(1))
			if i%25 == 0 {
				free := fmt.Sprint("free", i)
				g.informEach(c, nil, free)
				g.awaitRow(free, synced(1))
			}
		}
		// A transaction that took long makes rows due in the past, where no lease looks at once.
		g.exec(fmt.Sprintf(`INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, due_at, dispatch_at)
			VALUES ('%s', 'past', 'default', 'scheduled', 10, '', '{"name": "past"}', now() - interval '1 day', now() - interval '1 day')`, g.kind))
		g.awaitRow("past", synced(1))
		require.Zero(t, g.countRows("SELECT count(*) FROM delta_resource WHERE namespace = 'stuck' AND state = 'synced'"))

		close(open)
		for _, name := range stuck {
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

// What comes late into a namespace with many due rows is worked in the order of its priority, unless a batch has all of them already.
func TestAnUrgentRowOvertakesACrowd(t *testing.T) {
	soak.Long(t)
	single := modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
	inModes(t, func(t *testing.T, g mode) {
		next := make(chan struct{})
		worked := make(chan string, 1000)
		config := g.config(g.controller(func(ctx context.Context, j job) error {
			worked <- j.ObjectID
			return waitFor(ctx, next)
		}))
		config.ResourceWorkTimeout = 10 * patience
		config.Namespaces = map[string]delta.NamespaceConfig{"full": {MaxWorkers: 1}}
		c := g.client(config)
		c.LookForCrowds()
		crowd := names("crowd", 120)
		g.inform(c, &delta.InformOpts{Namespace: "full", Priority: 3}, crowd...)
		require.NoError(t, c.Start(t.Context()))
		t.Cleanup(func() { _ = c.Stop(context.Background()) })
		for range 20 { // the crowd is known
			got(t, worked)
			next <- struct{}{}
		}
		_, err := c.Inform(t.Context(), g.object(account{Name: "urgent"}), &delta.InformOpts{Namespace: "full", Priority: 1})
		require.NoError(t, err)
		for i := 0; got(t, worked) != "urgent"; i++ {
			require.Less(t, i, 10, "a few were leased before it")
			next <- struct{}{}
		}
		close(next)
		for _, name := range append(crowd, "urgent") {
			g.awaitRow(name, synced(1))
		}
	}, single)
}
