package workflows_test

import (
	"context"
	"flag"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/workflows"
)

// Record the histories again, all or one of them, with
//
//	go test ./workflows -run TestRecord -record
//	go test ./workflows -run TestRecord/woken-twice -record
//
// Do so for a path that has no history yet. Do not replace the histories of a release, because they stand for workflows that
// run at users, and must replay for ever.
var record = flag.Bool("record", false, "record the histories in testdata on a real Temporal")

const short = 300 * time.Millisecond

func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("with -record only")
	}
	removed := delta.NamespaceConfig{
		SyncedResourceRetentionPeriod: short, DegradedResourceRetentionPeriod: short, DeletedResourceRetentionPeriod: short,
	}
	for name, scenario := range map[string]func(t *testing.T, name string){
		"synced-removed": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
		},
		"failed-synced-removed": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Attempt == 1 {
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
		},
		"informed-during-work": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation == 1 {
					r.informPlan("paid")
				}
				return nil
			}
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
		},
		"informed-during-backoff": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			failed := make(chan struct{})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation == 1 {
					close(failed)
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informPlan("free")
			<-failed
			r.awaitThat("a timer runs", r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			r.informPlan("paid")
			r.saveHistory(r.workflowID(), name)
		},
		"degraded-removed": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(context.Context, *delta.Resource[account]) error { return delta.ResourceDegrade(errNotYet) }
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
		},
		"deleted-removed": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(context.Context, *delta.Resource[account]) error { return delta.ResourceDelete(nil) }
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
		},
		"expired-twice": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{ResourceExpiry: short})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation < 3 {
					return nil
				}
				// The third time it rests for ever, and its lifecycle ends.
				_, err := r.Pool.Exec(context.Background(),
					"UPDATE delta_namespace SET resource_expiry = '0', synced_retention = '-1 hour'")
				return err
			}
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
		},
		"handed-over": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Attempt == 1 {
					r.awaitThat("an ordinary activity waits for it", r.isExecuted)
					time.Sleep(activities.MaxLocalAttempt)
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
			require.True(t, r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_MARKER_RECORDED, 1)(), "it was not local")
			require.True(t, r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_ACTIVITY_TASK_FAILED, 1)(), "the ordinary activity did not fail")
		},
		"woken-twice": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: 2 * time.Second})
			r.start()
			r.informPlan("free")
			r.awaitThat("it rests", r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			for range 2 {
				require.NoError(t, r.Temporal.SignalWorkflow(t.Context(), r.workflowID(), "", workflows.WakeSignal, nil))
			}
			r.saveHistory(r.workflowID(), name)
		},
		// The others were recorded when new rows had their workflow signalled too.
		"started-eagerly": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: time.Second})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation == 1 && resource.Attempt == 1 {
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informPlan("free")
			r.awaitThat("it rests", r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_TIMER_STARTED, 2))
			r.informPlan("paid")
			r.saveHistory(r.workflowID(), name)
		},
		// As when Temporal takes a worker for dead that goes on: the second attempt waits for its claim.
		"found-a-living-claim": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Attempt == 1 {
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informPlan("free")
			r.awaitThat("it waits for its second attempt", r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			require.NoError(t, r.claimRow("ann", 5*time.Second))
			r.saveHistory(r.workflowID(), name)
			require.True(t, r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_MARKER_RECORDED, 4)(), "it did not find the claim") // three attempts, and its removal
		},
		"rests-for-ever": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: -1})
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
		},
		"inform": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.start()
			r.saveHistory(r.informRun(), name)
		},
		"inform-part-of-a-second": func(t *testing.T, name string) {
			r := newRecorderInforming(t, removed, 1500*time.Millisecond)
			r.start()
			r.saveHistory(r.informRun(func(id string) bool { return r.hasEvents(id, enumspb.EVENT_TYPE_TIMER_FIRED, 1)() }), name)
		},
		"inform-failed-once": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			var runs atomic.Int64
			r.inform = func(context.Context) (<-chan account, error) {
				if runs.Add(1) == 1 {
					return nil, errNotYet
				}
				all := make(chan account, 1)
				all <- account{Name: "bob"}
				close(all)
				return all, nil
			}
			r.start()
			r.saveHistory(r.informRun(), name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenario(t, name)
		})
	}
}
