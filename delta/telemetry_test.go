package delta_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/delta"
)

type tenantKey struct{}

// tenants is a context propagator of Temporal.
type tenants struct{}

func (tenants) Inject(ctx context.Context, w workflow.HeaderWriter) error {
	switch tenant, _ := ctx.Value(tenantKey{}).(string); tenant {
	case "":
	case "broken":
		return errors.New("there is no such tenant")
	default:
		w.Set("tenant", &commonpb.Payload{Metadata: map[string][]byte{"encoding": []byte("plain")}, Data: []byte(tenant)})
	}
	return nil
}

func (tenants) Extract(ctx context.Context, r workflow.HeaderReader) (context.Context, error) {
	payload, ok := r.Get("tenant")
	switch {
	case !ok:
		return ctx, nil
	case string(payload.GetData()) == "panics":
		panic("the tenant was removed")
	}
	return context.WithValue(ctx, tenantKey{}, string(payload.GetData())), nil
}

func (tenants) InjectFromWorkflow(workflow.Context, workflow.HeaderWriter) error { return nil }
func (tenants) ExtractToWorkflow(ctx workflow.Context, _ workflow.HeaderReader) (workflow.Context, error) {
	return ctx, nil
}

func ofTenant(name string) context.Context {
	return context.WithValue(context.Background(), tenantKey{}, name)
}

func TestContextPropagatorsReachWorkFromEveryInform(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	found := make(chan string, 100)
	config := h.config(with(&controller[account]{work: func(ctx context.Context, r *delta.Resource[account]) error {
		tenant, _ := ctx.Value(tenantKey{}).(string)
		found <- r.Object.Name + " of " + tenant
		if r.Attempt == 1 && r.Object.Name == "retried" {
			return errors.New("503")
		}
		return nil
	}}))
	config.ContextPropagators = []workflow.ContextPropagator{tenants{}}
	c := h.start(config)

	_, err := c.Sync(ofTenant("acme"), account{Name: "synced"}, nil)
	require.NoError(t, err)
	require.Equal(t, "synced of acme", <-found)
	_, err = c.Inform(ofTenant("acme"), account{Name: "retried"}, nil)
	require.NoError(t, err)
	require.Equal(t, "retried of acme", <-found)
	require.Equal(t, "retried of acme", <-found, "further attempts of a generation too")
	_, err = c.InformMany(ofTenant("globex"), []delta.Object{account{Name: "many"}}, nil)
	require.NoError(t, err)
	require.Equal(t, "many of globex", <-found)
	require.NoError(t, pgx.BeginFunc(t.Context(), h.Pool, func(tx pgx.Tx) error {
		_, err := c.InformTx(ofTenant("initech"), tx, account{Name: "in a transaction"}, nil)
		return err
	}))
	require.Equal(t, "in a transaction of initech", <-found)
	_, err = c.Sync(context.Background(), account{Name: "synced", Plan: "pro"}, nil)
	require.NoError(t, err)
	require.Equal(t, "synced of ", <-found, "the newest inform of the object has no tenant")
}

func TestAPropagatorThatFailsFailsTheInformOrTheAttempt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.ContextPropagators = []workflow.ContextPropagator{tenants{}}
	c := h.start(config)
	_, err := c.Inform(ofTenant("broken"), account{Name: "ann"}, nil)
	require.ErrorContains(t, err, "Config.ContextPropagators[0]: Inject: there is no such tenant")
	require.Nil(t, h.row("account", "ann"))
	_, err = c.Inform(ofTenant(strings.Repeat("long", 5000)), account{Name: "ann"}, nil)
	input := new(delta.InputError)
	require.ErrorAs(t, err, &input)
	require.Equal(t, "Config.ContextPropagators[0]", input.Field)

	row, err := c.Sync(ofTenant("panics"), account{Name: "ann"}, &delta.InformOpts{MaxAttempts: 1})
	require.ErrorIs(t, err, delta.ErrNotSynced)
	require.Contains(t, row.Errors[0].Error, "Config.ContextPropagators[0]: Extract panicked: the tenant was removed")
}

type together struct{ account }

func (together) Kind() string { return "together" }
func (together) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 10, BatchWait: 200 * time.Millisecond}
}

// togethers has a WorkBatch that notes the tenant of each batch.
type togethers struct {
	controller[together]
	tenants chan string
}

func (c *togethers) WorkBatch(ctx context.Context, resources []*delta.Resource[together]) []error {
	tenant, _ := ctx.Value(tenantKey{}).(string)
	c.tenants <- tenant
	return make([]error, len(resources))
}

func TestAWorkBatchHasTheHeadersThatItsResourcesHaveAlike(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	work := &togethers{tenants: make(chan string, 10)}
	config := h.config(func(cs *delta.Controllers) { delta.AddController[together](cs, work) })
	config.ContextPropagators = []workflow.ContextPropagator{tenants{}}
	informer := h.client(config)
	inform := func(tenant string, names ...string) {
		var objects []delta.Object
		for _, name := range names {
			objects = append(objects, together{account{Name: name}})
		}
		_, err := informer.InformMany(ofTenant(tenant), objects, nil)
		require.NoError(t, err)
	}
	inform("acme", "a", "b")
	inform("globex", "c")
	h.start(config)
	require.Empty(t, <-work.tenants, "one batch for two tenants")
	inform("acme", "d", "e")
	require.Equal(t, "acme", <-work.tenants)
}

// faultyTelemetry is a Telemetry that breaks its contract.
type faultyTelemetry struct {
	inject func(set func(name, value string))
	mu     sync.Mutex
	ends   int
}

func (f *faultyTelemetry) StartSpan(_ context.Context, span delta.Span) (context.Context, func(delta.SpanEnd)) {
	if span.Operation == delta.OperationInform {
		panic("StartSpan")
	}
	return nil, func(delta.SpanEnd) {
		f.mu.Lock()
		f.ends++
		f.mu.Unlock()
		panic("end")
	}
}

func (f *faultyTelemetry) Inject(_ context.Context, set func(name, value string)) { f.inject(set) }
func (*faultyTelemetry) Record(context.Context, delta.Measurement)                { panic("Record") }

func TestATelemetryThatPanicsHarmsNothing(t *testing.T) {
	t.Parallel()
	for name, inject := range map[string]func(set func(name, value string)){
		"panics":        func(set func(name, value string)) { set("a", "b"); panic("Inject") },
		"not printable": func(set func(name, value string)) { set("a", "\x00"); set("b\xff", "c") },
		"too long":      func(set func(name, value string)) { set("tracestate", strings.Repeat("x", 5000)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			began := time.Now()
			var log lockedBuffer
			telemetry := &faultyTelemetry{inject: inject}
			config := h.config(with(&controller[account]{work: func(ctx context.Context, _ *delta.Resource[account]) error {
				_, err := delta.ClientFromContextSafely(ctx)
				return err
			}}))
			config.Telemetry, config.Logger = telemetry, slog.New(slog.NewTextHandler(&log, nil))
			c := h.start(config)
			_, err := c.Sync(context.Background(), account{Name: "ann"}, nil)
			require.NoError(t, err)
			var carrier *string
			require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT carrier FROM delta_resource").Scan(&carrier))
			require.Nil(t, carrier)
			telemetry.mu.Lock()
			defer telemetry.mu.Unlock()
			require.Equal(t, 1, telemetry.ends)
			lines := strings.Count(log.String(), "Config.Telemetry")
			require.Positive(t, lines)
			require.LessOrEqual(t, lines, 1+int(time.Since(began)/time.Minute), "once a minute: %s", log.String())
		})
	}
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
