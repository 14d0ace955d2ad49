package deltaotel_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	api "go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/deltaotel"
)

// newTwins returns two Telemetries of one MeterProvider, like those of two clients in a program.
func newTwins(t *testing.T) (provider api.MeterProvider, a, b *deltaotel.Telemetry, o *observed) {
	t.Helper()
	o = &observed{t: t, reader: metric.NewManualReader()}
	provider = metric.NewMeterProvider(metric.WithReader(o.reader))
	for _, to := range []**deltaotel.Telemetry{&a, &b} {
		var err error
		*to, err = deltaotel.New(&deltaotel.Config{MeterProvider: provider})
		require.NoError(t, err)
	}
	return provider, a, b, o
}

func syncedAttempt(namespace string) delta.AttemptMeasurement {
	return delta.AttemptMeasurement{Operation: delta.OperationWork, Kind: "account", Namespace: namespace, Outcome: delta.OutcomeSynced}
}

var syncedLabels = []string{"kind", "account", "namespace", "default", "operation", "work", "outcome", "synced"}

func (o *observed) requireFigure(wanted float64, name string, labels ...string) {
	o.t.Helper()
	value, there := o.readFigure(name, labels...)
	require.True(o.t, there, "%s %s", name, labels)
	require.InDelta(o.t, wanted, value, 0, "%s %s", name, labels)
}

func (o *observed) requireNone(name string, labels ...string) {
	o.t.Helper()
	_, there := o.readFigure(name, labels...)
	require.False(o.t, there, "%s %s", name, labels)
}

func TestTwoClientsOfOneMeterProviderAreShownTogether(t *testing.T) {
	t.Parallel()
	provider, a, b, o := newTwins(t)
	ctx := context.Background()
	a.Record(ctx, syncedAttempt("default"))
	for range 2 {
		b.Record(ctx, syncedAttempt("default"))
	}
	o.requireFigure(3, "delta.work.attempts", syncedLabels...)

	parts := func(isUp bool) delta.ClientMeasurement {
		return delta.ClientMeasurement{Parts: []delta.PartMeasurement{{Part: delta.HealthListener, IsUp: isUp}}, Slots: map[string]int{"account": 20}}
	}
	for _, isUp := range []bool{true, false} { // whichever came last
		a.Record(ctx, parts(isUp))
		b.Record(ctx, parts(!isUp))
		o.requireFigure(0, "delta.up", "part", "listener", "kind", "")
		o.requireFigure(40, "delta.work.slots", "kind", "account")
	}

	database := func(installation string, n int64) delta.DatabaseMeasurement {
		return delta.DatabaseMeasurement{
			Installation: installation, Due: []delta.DueMeasurement{{Kind: "account", Count: n, Oldest: time.Duration(n) * time.Second}},
			States: []delta.StateMeasurement{{Kind: "account", Namespace: "default", State: deltatype.ResourceStateSynced, Count: n}},
			Passes: []delta.LastPassMeasurement{{Kind: "account", Lag: time.Duration(n) * time.Second, Failing: n, Withheld: n}},
		}
	}
	requireDatabase := func(sum, longest float64) {
		o.requireFigure(sum, "delta.outbox.due", "kind", "account")
		o.requireFigure(longest, "delta.outbox.age", "kind", "account")
		o.requireFigure(sum, "delta.resources", "kind", "account", "namespace", "default", "state", "synced")
		o.requireFigure(longest, "delta.pass.lag", "kind", "account")
		o.requireFigure(sum, "delta.pass.failing", "kind", "account")
		o.requireFigure(sum, "delta.deletions.withheld", "kind", "account")
	}
	a.Record(ctx, database("one", 5))
	requireDatabase(5, 5)
	b.Record(ctx, database("one", 3)) // b has taken over, and a does not know it yet
	requireDatabase(3, 3)
	a.Record(ctx, delta.DatabaseMeasurement{})
	requireDatabase(3, 3)
	a.Record(ctx, database("another database", 4))
	requireDatabase(7, 4)

	// The counts of a closed Telemetry stay as long as another one is open.
	require.NoError(t, b.Close())
	require.NoError(t, b.Close())
	requireDatabase(4, 4)
	o.requireFigure(0, "delta.up", "part", "listener", "kind", "")
	o.requireFigure(20, "delta.work.slots", "kind", "account")
	o.requireFigure(3, "delta.work.attempts", syncedLabels...)
	require.NoError(t, a.Close())
	require.Empty(t, o.pointNames(), "nothing is collected any longer")
	a.Record(ctx, syncedAttempt("default"))
	_, end := a.StartSpan(ctx, delta.Span{Operation: delta.OperationInform, Kind: "account"})
	end(delta.SpanEnd{})

	c, err := deltaotel.New(&deltaotel.Config{MeterProvider: provider})
	require.NoError(t, err)
	c.Record(ctx, syncedAttempt("default"))
	o.requireFigure(1, "delta.work.attempts", syncedLabels...)
}

// pointNames returns the metrics that have values, without histograms, which the SDK keeps itself.
func (o *observed) pointNames() (names []string) {
	for _, m := range o.collect() {
		if _, isHistogram := m.Data.(metricdata.Histogram[float64]); !isHistogram {
			names = append(names, m.Name)
		}
	}
	return names
}

func TestTheGaugesOfAClientThatHasStoppedAreGone(t *testing.T) {
	t.Parallel()
	_, a, b, o := newTwins(t)
	ctx := context.Background()
	for _, telemetry := range []*deltaotel.Telemetry{a, b} {
		telemetry.Record(ctx, delta.ClientMeasurement{Parts: []delta.PartMeasurement{{Part: delta.HealthListener}}, Slots: map[string]int{"account": 1}})
	}
	a.Record(ctx, delta.ClientMeasurement{})
	o.requireFigure(1, "delta.work.slots", "kind", "account")
	b.Record(ctx, delta.ClientMeasurement{})
	o.requireNone("delta.work.slots", "kind", "account")
	o.requireNone("delta.up", "part", "listener", "kind", "")
}

// A program may have a namespace for each customer.
func TestManyNamespacesAreCountedTogether(t *testing.T) {
	t.Parallel()
	telemetry, o := newUnstarted(t)
	const goroutines, namespaces = 4, 5_000
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for i := range namespaces {
				telemetry.Record(context.Background(), syncedAttempt(fmt.Sprint((i+g*namespaces/goroutines)%namespaces)))
			}
		})
	}
	all.Wait()
	telemetry.Record(context.Background(), delta.PassMeasurement{Kind: "account"})
	o.requireFigure(1, "delta.passes", "kind", "account", "outcome", "ok") // series below the limit are still counted separately
	series, sum, others := 0, int64(0), int64(0)
	for _, m := range o.collect() {
		data, ok := m.Data.(metricdata.Sum[int64])
		if !ok || m.Name != "delta.work.attempts" {
			continue
		}
		for _, p := range data.DataPoints {
			series++
			sum += p.Value
			if value, there := p.Attributes.Value("otel.metric.overflow"); there {
				require.True(t, value.AsBool())
				others = p.Value
			}
		}
	}
	require.EqualValues(t, goroutines*namespaces, sum)
	require.Equal(t, 1_900+1, series)
	require.EqualValues(t, goroutines*(namespaces-1_900), others)
}

// refusing is a MeterProvider that fails to register the second callback.
type refusing struct {
	noop.MeterProvider
	meter *refusingMeter
}

func (p *refusing) Meter(string, ...api.MeterOption) api.Meter { return p.meter }

type refusingMeter struct {
	noop.Meter
	registered int
}

var errRefused = errors.New("refused")

func (m *refusingMeter) RegisterCallback(api.Callback, ...api.Observable) (api.Registration, error) {
	if m.registered == 1 {
		return nil, errRefused
	}
	m.registered++
	return &registration{meter: m}, nil
}

type registration struct {
	noop.Registration
	meter *refusingMeter
}

func (r *registration) Unregister() error {
	r.meter.registered--
	return nil
}

func TestNothingStaysOfAProviderThatRefuses(t *testing.T) {
	t.Parallel()
	provider := &refusing{meter: &refusingMeter{}}
	for range 2 { // it is asked again
		_, err := deltaotel.New(&deltaotel.Config{MeterProvider: provider})
		require.ErrorIs(t, err, errRefused)
		require.Zero(t, provider.meter.registered)
	}
}

// Only the first outcomes are cached for the type of a span, and only the latest types.
func TestCallsAreMeasuredByAllOutcomesOfManyNamespaces(t *testing.T) {
	t.Parallel()
	telemetry, o := newUnstarted(t)
	outcomes := []delta.Outcome{
		delta.OutcomeSynced, delta.OutcomeFailed, delta.OutcomeDegraded, delta.OutcomeDeleted, delta.OutcomeSnoozed, delta.OutcomeUndecodable, delta.OutcomeMixed,
	}
	const namespaces, times = 200, 3
	var all sync.WaitGroup
	for range times {
		all.Go(func() {
			for n := range namespaces * len(outcomes) {
				span := delta.Span{
					Operation: delta.OperationWork, Kind: "account", Namespace: fmt.Sprint(n % namespaces), Objects: 1, Resources: make([]delta.SpanResource, 1),
				}
				_, end := telemetry.StartSpan(context.Background(), span)
				end(delta.SpanEnd{Outcome: outcomes[n/namespaces], Duration: time.Second})
				telemetry.Record(context.Background(), syncedAttempt(span.Namespace))
			}
		})
	}
	all.Wait()
	for _, namespace := range []string{"0", "42", "199"} {
		for _, outcome := range outcomes {
			o.requireFigure(times, "delta.work.duration", "kind", "account", "namespace", namespace, "operation", "work", "outcome", string(outcome))
		}
		o.requireFigure(0, "delta.work.active", "kind", "account", "namespace", namespace, "operation", "work")
		o.requireFigure(float64(times*len(outcomes)), "delta.sync.lag", "kind", "account", "namespace", namespace)
	}
}
