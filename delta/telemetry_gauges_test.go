package delta_test

import (
	"context"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// recorder is a Telemetry that keeps its measurements.
type recorder struct {
	mu  sync.Mutex
	all []delta.Measurement
}

func (*recorder) StartSpan(ctx context.Context, _ delta.Span) (context.Context, func(delta.SpanEnd)) {
	return ctx, nil
}
func (*recorder) Inject(context.Context, func(name, value string)) {}
func (r *recorder) Record(_ context.Context, m delta.Measurement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, m)
}

// recordedOf returns the measurements of a type so far.
func recordedOf[M delta.Measurement](r *recorder) (all []M) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.all {
		if one, ok := m.(M); ok {
			all = append(all, one)
		}
	}
	return all
}

// comesNow waits for a later measurement that matches.
func comesNow[M delta.Measurement](t *testing.T, r *recorder, is func(M) bool) (found M) {
	t.Helper()
	before := len(recordedOf[M](r))
	until(t, func() bool {
		for _, m := range recordedOf[M](r)[before:] {
			if is(m) {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// startMeasuring starts a client that measures often.
func (h *harness) startMeasuring(config *delta.Config) (*delta.Client, *recorder) {
	h.t.Helper()
	telemetry := &recorder{}
	config.Telemetry = telemetry
	c := h.client(config)
	c.SetMeasureInterval(20 * time.Millisecond)
	require.NoError(h.t, c.Start(context.Background()))
	h.t.Cleanup(func() { _ = c.Stop(context.Background()) })
	return c, telemetry
}

func isMeasured(m delta.DatabaseMeasurement) bool { return len(m.Due) > 0 }

func TestOneClientMeasuresTheDatabaseAndAnotherTakesOver(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	first, ofFirst := h.startMeasuring(h.config(with(&controller[account]{})))
	comesNow(t, ofFirst, isMeasured)
	second, ofSecond := h.startMeasuring(h.config(with(&controller[account]{})))
	for range 5 {
		comesNow(t, ofSecond, func(delta.ClientMeasurement) bool { return true })
	}
	require.Empty(t, recordedOf[delta.DatabaseMeasurement](ofSecond), "the first one has the lease")
	require.NoError(t, first.Stop(t.Context()))
	all := recordedOf[delta.DatabaseMeasurement](ofFirst)
	require.Equal(t, delta.DatabaseMeasurement{}, all[len(all)-1], "its measurements are dropped")
	clients := recordedOf[delta.ClientMeasurement](ofFirst)
	require.Equal(t, delta.ClientMeasurement{}, clients[len(clients)-1])
	comesNow(t, ofSecond, isMeasured)
	require.NoError(t, second.Stop(t.Context()))

	// A client that dies leaves its lease, which expires.
	_, err := h.Pool.Exec(t.Context(), "UPDATE delta_installation SET measured_by = gen_random_uuid(), measured_until = now() + interval '300 milliseconds'")
	require.NoError(t, err)
	_, ofThird := h.startMeasuring(h.config(with(&controller[account]{})))
	comesNow(t, ofThird, func(delta.ClientMeasurement) bool { return true })
	comesNow(t, ofThird, isMeasured)
}

// measuredKind is a kind with its own settings.
type measuredKind struct{ account }

func (measuredKind) Kind() string { return "measured" }
func (measuredKind) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 1, Parallelism: 7}
}

func TestTheDatabaseIsMeasured(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[measuredKind]{}))
	config.CountResourcesInterval = time.Hour // longer than the slowest machine takes
	c := h.client(h.config())
	starter, err := delta.NewClient(h.Pool, h.config(with(&controller[measuredKind]{}), with(&controller[account]{})))
	require.NoError(t, err)
	require.NoError(t, starter.Start(context.Background())) // so that the kind is known
	_, err = starter.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "measured"}, nil)
	require.NoError(t, err)
	require.NoError(t, starter.Stop(t.Context()))
	for _, name := range []string{"a", "b"} { // of a kind that the measuring client does not have
		_, err := c.Inform(t.Context(), account{Name: name}, &delta.InformOpts{Namespace: "tenant"})
		require.NoError(t, err)
	}
	_, err = h.Pool.Exec(t.Context(), `UPDATE delta_resource SET dispatch_at = now() - interval '1 hour' WHERE object_id = 'a'`)
	require.NoError(t, err)
	_, err = h.Pool.Exec(t.Context(), `UPDATE delta_shard SET succeeded_at = now() - interval '2 hours'`)
	require.NoError(t, err)
	_, err = h.Pool.Exec(t.Context(), `INSERT INTO delta_withheld (kind, missing, total, reason) VALUES ('measured', 12, 20, 'a test')`)
	require.NoError(t, err)

	_, telemetry := h.startMeasuring(config)
	m := comesNow(t, telemetry, isMeasured)
	require.Len(t, m.Due, 2)
	require.Equal(t, "account", m.Due[0].Kind)
	require.Equal(t, delta.DueMeasurement{Kind: "measured"}, m.Due[1])
	require.EqualValues(t, 2, m.Due[0].Count)
	require.GreaterOrEqual(t, m.Due[0].Oldest, time.Hour)
	require.Equal(t, []delta.StateMeasurement{{Kind: "account", Namespace: "tenant", State: deltatype.ResourceStateScheduled, Count: 2}}, m.States)
	require.Len(t, m.Passes, 1)
	require.GreaterOrEqual(t, *m.Passes[0].Age, 2*time.Hour)
	require.Zero(t, m.Passes[0].Lag, "the kind is listed on request only")
	require.EqualValues(t, 12, m.Passes[0].Withheld)
	require.Equal(t, map[string]int{"measured": 7}, recordedOf[delta.ClientMeasurement](telemetry)[0].Slots)

	// Resources are counted less often than other measurements are made.
	_, err = c.Inform(t.Context(), account{Name: "c"}, &delta.InformOpts{Namespace: "tenant"})
	require.NoError(t, err)
	m = comesNow(t, telemetry, func(m delta.DatabaseMeasurement) bool { return m.Due[0].Count == 3 })
	require.EqualValues(t, 2, m.States[0].Count)
}

func TestResourcesAreNotCountedWhereThatIsOff(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.CountResourcesInterval = -1
	c, telemetry := h.startMeasuring(config)
	_, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	for range 3 {
		require.Empty(t, comesNow(t, telemetry, isMeasured).States)
	}
	config.CountResourcesInterval = time.Second
	_, err = delta.NewClient(h.Pool, config)
	require.ErrorContains(t, err, "Config.CountResourcesInterval")
}

func TestPartsThatAreDownAreMeasured(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "its connections have parameters of their own")
	t.Parallel()
	h := newHarness(t)
	p := newCutProxy(t, h.TemporalAddress)
	config := h.config(with(&controller[account]{}))
	config.Temporal = h.temporalBy(p)
	_, telemetry := h.startMeasuring(config)
	parts := func(m delta.ClientMeasurement) map[delta.HealthPart]bool {
		all := map[delta.HealthPart]bool{}
		for _, part := range m.Parts {
			all[part.Part] = part.IsUp
		}
		return all
	}
	up := map[delta.HealthPart]bool{
		delta.HealthClient: true, delta.HealthPostgres: true, delta.HealthTemporal: true, delta.HealthWorker: true, delta.HealthDispatcher: true,
		delta.HealthListener: true,
	}
	comesNow(t, telemetry, func(m delta.ClientMeasurement) bool { return maps.Equal(up, parts(m)) })
	p.refuse()
	comesNow(t, telemetry, func(m delta.ClientMeasurement) bool {
		return !parts(m)[delta.HealthTemporal] && parts(m)[delta.HealthPostgres]
	})
	p.heal()
	comesNow(t, telemetry, func(m delta.ClientMeasurement) bool { return maps.Equal(up, parts(m)) })
}

func TestWakeUpsAndTheirFailuresAreCounted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var refuses atomic.Bool
	config := h.config(with(&controller[account]{}), with(&controller[together]{}))
	config.Temporal = h.temporalWith(func(
		ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
	) error {
		if refuses.Load() && strings.Contains(method, "StartWorkflowExecution") {
			return serviceerror.NewInvalidArgument("refused")
		}
		return invoke(ctx, method, request, reply, conn, options...)
	})
	c, telemetry := h.startMeasuring(config)
	sum := func(kind string, way delta.DispatchWay, failed bool) (workflows int) {
		for _, m := range recordedOf[delta.DispatchMeasurement](telemetry) {
			if m.Kind == kind && m.Way == way && (m.Err != nil) == failed {
				workflows += m.Workflows
			}
		}
		return workflows
	}
	_, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	_, err = c.Sync(t.Context(), together{account{Name: "ann"}}, nil)
	require.NoError(t, err)
	// The dispatcher counts after Temporal's answer; by then, the started workflow may have synced the resource.
	until(t, func() bool {
		return sum("account", delta.DispatchSingle, false) > 0 && sum("together", delta.DispatchBatch, false) > 0
	})
	require.Zero(t, sum("account", delta.DispatchSingle, true))
	refuses.Store(true)
	_, err = c.Inform(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err)
	until(t, func() bool { return sum("account", delta.DispatchSingle, true) > 0 })
}

func TestEventsThatAreDroppedAreCounted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c, telemetry := h.startMeasuring(h.config(with(&controller[account]{})))
	_, cancel := c.SubscribeConfig(&delta.SubscribeConfig{ChanSize: 1, Categories: []delta.EventCategory{delta.EventCategoryObjectSynced}})
	defer cancel()
	for _, name := range []string{"a", "b", "c"} {
		_, err := c.Sync(t.Context(), account{Name: name}, nil)
		require.NoError(t, err)
	}
	until(t, func() bool {
		dropped := 0
		for _, m := range recordedOf[delta.DroppedMeasurement](telemetry) {
			require.Equal(t, "events", m.What)
			dropped += m.Count
		}
		return dropped == 2
	})
}

type briefly struct{ account }

func (briefly) Kind() string { return "briefly" }
func (briefly) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 1, HeartbeatTimeout: 5 * time.Second} // a claim that lasts on a busy machine
}

func TestClaimsThatAreLostAreCounted(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var calls atomic.Int64
	began := make(chan struct{})
	config := h.config(with(&controller[briefly]{work: func(ctx context.Context, _ *delta.Resource[briefly]) error {
		if calls.Add(1) == 1 {
			close(began)
			<-ctx.Done()
		}
		return ctx.Err()
	}}))
	var logs logBuffer
	config.Logger = logs.logger()
	c, telemetry := h.startMeasuring(config)
	_, err := c.Inform(t.Context(), briefly{account{Name: "ann"}}, &delta.InformOpts{Namespace: "tenant"})
	require.NoError(t, err)
	<-began
	// As after a failover that has lost the claim, when another client has claimed the row.
	_, err = h.Pool.Exec(t.Context(), "UPDATE delta_resource SET claim = gen_random_uuid(), claimed_until = now() + interval '1 second'")
	require.NoError(t, err)
	until(t, func() bool { return len(recordedOf[delta.ClaimsLostMeasurement](telemetry)) > 0 })
	require.Equal(t, []delta.ClaimsLostMeasurement{{Kind: "briefly", Namespace: "tenant", Resources: 1}}, recordedOf[delta.ClaimsLostMeasurement](telemetry))
	require.True(t, logs.hasLine("level=INFO", "a claim was lost", "kind=briefly ", "object_id=ann ", "namespace=tenant ", "generation=1 ", "attempt=1 ", "workflow_id="))
}

// Without a bound, a program with a namespace for each customer would have as many metrics, and read as many rows every few minutes.
func TestResourcesAreCountedByTheNamespacesWithTheMost(t *testing.T) {
	hostile.NeedsDirect(t, "its connections have parameters of their own")
	t.Parallel()
	h := newHarness(t)
	// Namespace i has i resources of one kind, and a deleted one.
	h.exec(`insert into delta_resource (kind, object_id, object, hash, namespace, state, max_attempts)
		select 'account', i || '/' || n, '{}', '\x00', 'n' || i, case when n = 0 then 'deleted' else 'synced' end::delta_resource_state, 1
		from generate_series(1, 210) i, generate_series(0, i) n`)
	_, telemetry := h.startMeasuring(h.config(with(&controller[account]{})))
	m := comesNow(t, telemetry, isMeasured)
	byNamespace, sum := map[string]int64{}, int64(0)
	for _, s := range m.States {
		if s.State == deltatype.ResourceStateSynced {
			byNamespace[s.Namespace] = s.Count
		}
		sum += s.Count
	}
	require.EqualValues(t, h.countRows(`select count(*) from delta_resource`), sum)
	require.Len(t, byNamespace, delta.MaxCountedNamespaces+1)
	require.EqualValues(t, 11, byNamespace["n11"])
	require.NotContains(t, byNamespace, "n10")
	require.EqualValues(t, 10*11/2, byNamespace[""], "the others together")
	require.Contains(t, m.States, delta.StateMeasurement{Kind: "account", State: deltatype.ResourceStateDeleted, Count: 10})

	found := scrapeAll(t, h.clientWithPool(h.config(), readsOnly))
	require.InDelta(t, 55, found[`delta_resources{kind="account",namespace="",state="synced"}`], 0)
}
