package deltaotel_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/chariot-giving/delta/delta"
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
	o := observe(t, func(cs *delta.Controllers) { delta.AddController(cs, listed) }, func(c *delta.Config) {
		c.ResourceInformInterval = -1
		c.Kinds = map[string]delta.ObjectSettings{"account": quickly(1)}
	})
	ctx := context.Background()
	const kind, namespace, tenant = "account", "default", "tenant"
	for i := range 3 {
		_, err := o.Inform(ctx, account{Name: fmt.Sprint("id-fine ", i)}, nil)
		require.NoError(t, err)
	}
	_, err := o.InformMany(ctx, []delta.Object{account{Name: "id-hopeless"}, account{Name: "id-retried"}}, &delta.InformOpts{Namespace: tenant})
	require.NoError(t, err)
	o.becomes(3, "delta.work.attempts", "kind", kind, "namespace", namespace, "operation", "work", "outcome", "synced")
	o.becomes(1, "delta.work.attempts", "kind", kind, "namespace", tenant, "operation", "work", "outcome", "failed")
	o.becomes(1, "delta.work.attempts", "kind", kind, "namespace", tenant, "operation", "work", "outcome", "degraded")
	o.becomes(1, "delta.work.attempts", "kind", kind, "namespace", tenant, "operation", "work", "outcome", "synced")
	o.becomes(3, "delta.work.duration", "kind", kind, "namespace", namespace, "operation", "work", "outcome", "synced")
	o.becomes(1, "delta.work.duration", "kind", kind, "namespace", tenant, "operation", "work", "outcome", "degraded")
	o.becomes(3, "delta.sync.lag", "kind", kind, "namespace", namespace)
	o.becomes(1, "delta.sync.lag", "kind", kind, "namespace", tenant)
	o.becomes(3, "delta.work.wait", "kind", kind, "namespace", tenant)
	o.becomes(0, "delta.work.active", "kind", kind, "namespace", tenant, "operation", "work")

	_, err = o.Inform(ctx, account{Name: "id-fine 0"}, nil)
	require.NoError(t, err)
	_, err = o.Inform(ctx, account{Name: "id-fine 0"}, &delta.InformOpts{Namespace: tenant})
	require.Error(t, err)
	o.becomes(3, "delta.inform.objects", "kind", kind, "namespace", namespace, "source", "inform", "result", "new")
	o.becomes(1, "delta.inform.objects", "kind", kind, "namespace", namespace, "source", "inform", "result", "unchanged")
	o.becomes(1, "delta.inform.objects", "kind", kind, "namespace", namespace, "source", "inform", "result", "refused")
	o.becomes(2, "delta.inform.objects", "kind", kind, "namespace", tenant, "source", "inform_many", "result", "new")
	o.becomes(4, "delta.inform.duration", "kind", kind, "source", "inform", "outcome", "ok")
	o.becomes(1, "delta.inform.duration", "kind", kind, "source", "inform", "outcome", "failed")

	pass := delta.ScheduleInformParams{ResourceKind: kind}
	for range 2 {
		_, err := o.RunInform(ctx, pass, nil)
		require.NoError(t, err)
	}
	o.becomes(2, "delta.passes", "kind", kind, "outcome", "ok")
	o.becomes(2, "delta.pass.duration", "kind", kind, "outcome", "ok")
	o.becomes(2, "delta.pass.objects", "kind", kind, "result", "new")
	o.becomes(2, "delta.inform.objects", "kind", kind, "namespace", namespace, "source", "list", "result", "new")
	o.becomes(2, "delta.pass.objects", "kind", kind, "result", "unchanged")
	listed.broken.Store(true)
	require.NoError(t, o.ScheduleInform(ctx, pass, nil)) // it is tried again and again
	until(t, func() bool {
		failed, _ := o.figure("delta.passes", "kind", kind, "outcome", "failed")
		return failed > 0
	})
	requireNoIDs(t, o.collect())
}

// requireNoIDs sees that no label of any metric has an object's id: those of these tests begin with "id-".
func requireNoIDs(t *testing.T, all []metricdata.Metrics) {
	t.Helper()
	for _, m := range all {
		text := fmt.Sprintf("%+v", m.Data)
		require.Contains(t, text, "account", "labels are in the text")
		require.NotContains(t, text, "id-", "%s has a label with an id", m.Name)
	}
}
