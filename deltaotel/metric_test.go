package deltaotel_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/deltaotel"
)

func TestAttemptsInformsAndPassesAreCounted(t *testing.T) {
	t.Parallel()
	listed := &accounts{list: []account{{Name: "id-listed"}, {Name: "id-again"}}, work: func(_ context.Context, r *delta.Resource[account]) error {
		switch {
		case strings.HasPrefix(r.Object.Name, "id-hopeless"):
			return delta.ResourceDegrade(errors.New("no such plan"))
		case r.Object.Name == "id-retried" && r.Attempt == 1:
			return errors.New("503")
		}
		return nil
	}}
	o := startObserved(t, func(cs *delta.Controllers) { delta.AddController(cs, listed) }, func(c *delta.Config) {
		c.ResourceInformInterval = -1
		c.Kinds = map[string]delta.ObjectSettings{"account": retryQuickly(1)}
	})
	ctx := context.Background()
	const kind, namespace, tenant = "account", "default", "tenant"
	for i := range 3 {
		_, err := o.Inform(ctx, account{Name: fmt.Sprint("id-fine ", i)}, nil)
		require.NoError(t, err)
	}
	_, err := o.InformMany(ctx, []delta.Object{account{Name: "id-hopeless"}, account{Name: "id-retried"}}, &delta.InformOpts{Namespace: tenant})
	require.NoError(t, err)
	o.waitForFigure(3, "delta.work.attempts", "kind", kind, "namespace", namespace, "operation", "work", "outcome", "synced")
	o.waitForFigure(1, "delta.work.attempts", "kind", kind, "namespace", tenant, "operation", "work", "outcome", "failed")
	o.waitForFigure(1, "delta.work.attempts", "kind", kind, "namespace", tenant, "operation", "work", "outcome", "degraded")
	o.waitForFigure(1, "delta.work.attempts", "kind", kind, "namespace", tenant, "operation", "work", "outcome", "synced")
	o.waitForFigure(3, "delta.work.duration", "kind", kind, "namespace", namespace, "operation", "work", "outcome", "synced")
	o.waitForFigure(1, "delta.work.duration", "kind", kind, "namespace", tenant, "operation", "work", "outcome", "degraded")
	o.waitForFigure(3, "delta.sync.lag", "kind", kind, "namespace", namespace)
	o.waitForFigure(1, "delta.sync.lag", "kind", kind, "namespace", tenant)
	o.waitForFigure(0, "delta.work.active", "kind", kind, "namespace", tenant, "operation", "work")

	_, err = o.Inform(ctx, account{Name: "id-fine 0"}, nil)
	require.NoError(t, err)
	_, err = o.Inform(ctx, account{Name: "id-fine 0"}, &delta.InformOpts{Namespace: tenant})
	require.Error(t, err)
	o.waitForFigure(3, "delta.inform.objects", "kind", kind, "namespace", namespace, "source", "inform", "result", "new")
	o.waitForFigure(1, "delta.inform.objects", "kind", kind, "namespace", namespace, "source", "inform", "result", "unchanged")
	o.waitForFigure(1, "delta.inform.objects", "kind", kind, "namespace", namespace, "source", "inform", "result", "refused")
	o.waitForFigure(2, "delta.inform.objects", "kind", kind, "namespace", tenant, "source", "inform_many", "result", "new")
	o.waitForFigure(4, "delta.inform.duration", "kind", kind, "source", "inform", "outcome", "ok")
	o.waitForFigure(1, "delta.inform.duration", "kind", kind, "source", "inform", "outcome", "failed")

	pass := delta.ScheduleInformParams{ResourceKind: kind}
	for range 2 {
		_, err := o.RunInform(ctx, pass, nil)
		require.NoError(t, err)
	}
	o.waitForFigure(2, "delta.passes", "kind", kind, "outcome", "ok")
	o.waitForFigure(2, "delta.pass.duration", "kind", kind, "outcome", "ok")
	o.waitForFigure(2, "delta.pass.objects", "kind", kind, "result", "new")
	o.waitForFigure(2, "delta.inform.objects", "kind", kind, "namespace", namespace, "source", "list", "result", "new")
	o.waitForFigure(2, "delta.pass.objects", "kind", kind, "result", "unchanged")
	listed.broken.Store(true)
	require.NoError(t, o.ScheduleInform(ctx, pass, nil)) // the pass fails and is retried
	waitUntil(t, func() bool {
		failed, _ := o.readFigure("delta.passes", "kind", kind, "outcome", "failed")
		return failed > 0
	})
	requireNoIDs(t, o.collect())
}

// requireNoIDs requires that no label of any metric has an object's id. The ids of these tests begin with "id-".
func requireNoIDs(t *testing.T, all []metricdata.Metrics) {
	t.Helper()
	labeled := 0
	for _, m := range all {
		text := fmt.Sprintf("%+v", m.Data)
		if strings.Contains(text, "account") {
			labeled++
		}
		require.NotContains(t, text, "id-", "%s has a label with an id", m.Name)
	}
	require.Positive(t, labeled, "labels are in the text")
}

// newUnstarted returns a Telemetry without a client.
func newUnstarted(t *testing.T) (*deltaotel.Telemetry, *observed) {
	t.Helper()
	o := &observed{t: t, reader: metric.NewManualReader()}
	telemetry, err := deltaotel.New(&deltaotel.Config{MeterProvider: metric.NewMeterProvider(metric.WithReader(o.reader))})
	require.NoError(t, err)
	return telemetry, o
}

func TestGaugesShowTheLatestMeasurementUntilAnEmptyOne(t *testing.T) {
	t.Parallel()
	telemetry, o := newUnstarted(t)
	ctx, age := context.Background(), 2*time.Hour
	telemetry.Record(ctx, delta.ClientMeasurement{
		Parts: []delta.PartMeasurement{{Part: delta.HealthListener}, {Part: delta.HealthWorker, Kind: "account", IsUp: true}},
		Slots: map[string]int{"account": 20},
	})
	telemetry.Record(ctx, delta.DatabaseMeasurement{
		Due:     []delta.DueMeasurement{{Kind: "account", Count: 7, Oldest: 90 * time.Second}},
		States:  []delta.StateMeasurement{{Kind: "account", Namespace: "tenant", State: deltatype.ResourceStateDegraded, Count: 3}},
		Touches: []delta.TouchMeasurement{{Kind: "payment", Count: 4, Age: time.Minute}},
		Passes:  []delta.LastPassMeasurement{{Kind: "account", Age: &age, Lag: time.Hour, Failing: 3, Withheld: 5}, {Kind: "new", Failing: 1}},
	})
	for _, wanted := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{0, "delta.up", []string{"part", "listener", "kind", ""}},
		{1, "delta.up", []string{"part", "worker", "kind", "account"}},
		{20, "delta.work.slots", []string{"kind", "account"}},
		{7, "delta.outbox.due", []string{"kind", "account"}},
		{90, "delta.outbox.age", []string{"kind", "account"}},
		{3, "delta.resources", []string{"kind", "account", "namespace", "tenant", "state", "degraded"}},
		{7200, "delta.pass.age", []string{"kind", "account"}},
		{3600, "delta.pass.lag", []string{"kind", "account"}},
		{3, "delta.pass.failing", []string{"kind", "account"}},
		{0, "delta.pass.lag", []string{"kind", "new"}},
		{1, "delta.pass.failing", []string{"kind", "new"}},
		{5, "delta.deletions.withheld", []string{"kind", "account"}},
		{4, "delta.touches", []string{"kind", "payment"}},
		{60, "delta.touches.age", []string{"kind", "payment"}},
	} {
		value, there := o.readFigure(wanted.name, wanted.labels...)
		require.True(t, there, wanted.name)
		require.InDelta(t, wanted.value, value, 0, wanted.name)
	}
	_, there := o.readFigure("delta.pass.age", "kind", "new")
	require.False(t, there, "none has succeeded")
	telemetry.Record(ctx, delta.DispatchMeasurement{Kind: "account", Way: delta.DispatchBatch, Workflows: 2, Resources: 20})
	telemetry.Record(ctx, delta.DispatchMeasurement{Kind: "account", Way: delta.DispatchSingle, Workflows: 1, Resources: 1, Err: errors.New("down")})
	telemetry.Record(ctx, delta.ClaimsLostMeasurement{Kind: "account", Namespace: "tenant", Resources: 4})
	telemetry.Record(ctx, delta.DroppedMeasurement{What: "events", Count: 6})
	telemetry.Record(ctx, delta.PassMeasurement{Kind: "account", Deleted: 8})
	o.waitForFigure(2, "delta.dispatch.workflows", "kind", "account", "way", "batch", "outcome", "ok")
	o.waitForFigure(1, "delta.dispatch.workflows", "kind", "account", "way", "single", "outcome", "failed")
	o.waitForFigure(4, "delta.claims.lost", "kind", "account", "namespace", "tenant")
	o.waitForFigure(6, "delta.events.dropped", "what", "events")
	o.waitForFigure(8, "delta.pass.deleted", "kind", "account")

	telemetry.Record(ctx, delta.ClientMeasurement{})
	telemetry.Record(ctx, delta.DatabaseMeasurement{})
	for _, m := range o.collect() {
		require.NotContains(t, []string{"delta.up", "delta.work.slots", "delta.outbox.due", "delta.resources", "delta.pass.age", "delta.pass.lag", "delta.pass.failing"}, m.Name,
			"another client measures, or none runs")
	}
}
