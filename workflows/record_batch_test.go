package workflows_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// pooled is an object of a kind with batches.
type pooled struct{ account }

func (pooled) Kind() string { return "pooled" }

func (pooled) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{BatchSize: 10, InformInterval: -1, Parallelism: 3}
}

type pooledController struct {
	delta.WorkerDefaults[pooled]
	delta.InformerDefaults[pooled]
	work func(*delta.Resource[pooled]) error
}

func (c pooledController) Work(_ context.Context, r *delta.Resource[pooled]) error { return c.work(r) }

func (pooledController) Inform(context.Context, *delta.InformOptions) (<-chan pooled, error) {
	none := make(chan pooled)
	close(none)
	return none, nil
}

// runBatch informs a few objects, and saves the batch that the first of them is in.
func runBatch(t *testing.T, name string, namespace delta.NamespaceConfig, work func(*recorder, *delta.Resource[pooled]) error) *recorder {
	t.Helper()
	r := newRecorder(t, delta.NamespaceConfig{})
	controllers := delta.NewControllers()
	delta.AddController(controllers, pooledController{work: func(resource *delta.Resource[pooled]) error { return work(r, resource) }})
	namespace.MaxWorkers = 10
	c, err := delta.NewClient(r.Pool, &delta.Config{
		Controllers: controllers, Temporal: r.Temporal, WorkflowIDPrefix: r.Prefix,
		Namespaces: map[string]delta.NamespaceConfig{delta.NamespaceDefault: namespace},
	})
	require.NoError(t, err)
	r.client = c
	var objects []delta.Object
	for i := range 6 {
		objects = append(objects, pooled{account{Name: fmt.Sprint("ann", i), Plan: "free"}})
	}
	_, err = c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	r.start()
	r.awaitThat("it is synced", func() bool {
		row, err := c.Get(t.Context(), "pooled", "ann0")
		if err == nil && row.State == deltatype.ResourceStateSynced {
			r.batch = row.WorkflowID
		}
		return r.batch != ""
	})
	r.saveHistory(r.batch, name)
	return r
}

func TestRecordBatch(t *testing.T) {
	if !*record {
		t.Skip("with -record only")
	}
	fine := func(*recorder, *delta.Resource[pooled]) error { return nil }
	for name, run := range map[string]func(t *testing.T, name string){
		"batch-removed": func(t *testing.T, name string) {
			runBatch(t, name, delta.NamespaceConfig{SyncedResourceRetentionPeriod: 10 * short}, fine)
		},
		"batch-expired": func(t *testing.T, name string) {
			runBatch(t, name, delta.NamespaceConfig{ResourceExpiry: 10 * short}, fine)
		},
		// As when another worker took a member over: its outcome is refused here, and the batch waits for the end of that claim.
		"batch-waits-for-a-claim": func(t *testing.T, name string) {
			removed := delta.NamespaceConfig{SyncedResourceRetentionPeriod: 20 * short}
			r := runBatch(t, name, removed, func(r *recorder, resource *delta.Resource[pooled]) error {
				if resource.ObjectID == "ann5" && resource.Attempt == 1 {
					return r.claimRow("ann5", 3*time.Second)
				}
				return nil
			})
			require.True(t, r.hasEvents(r.batch, enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, 2)(), "it did not find the claim")
		},
		"batch-rests-for-ever": func(t *testing.T, name string) {
			runBatch(t, name, delta.NamespaceConfig{SyncedResourceRetentionPeriod: -1}, fine)
		},
		"batch-some-failed": func(t *testing.T, name string) {
			runBatch(t, name, delta.NamespaceConfig{SyncedResourceRetentionPeriod: 10 * short}, func(_ *recorder, r *delta.Resource[pooled]) error {
				switch r.ObjectID {
				case "ann1":
					return errNotYet
				case "ann2":
					return delta.ResourceDegrade(errNotYet)
				case "ann3":
					return delta.ResourceSnooze(short)
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, name)
		})
	}
}
