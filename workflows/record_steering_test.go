package workflows_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

// signal asks something of the resource's workflow.
func (r *recorder) signal(name string, payload any) {
	r.t.Helper()
	require.NoError(r.t, r.Temporal.SignalWorkflow(r.t.Context(), r.workflow(), "", name, payload))
}

// becomes waits until a generation is in a state.
func (r *recorder) becomes(state deltatype.ResourceState, generation int64) {
	r.t.Helper()
	r.wait(string(state), func() bool {
		row, err := r.client.Get(r.t.Context(), "account", "ann")
		return err == nil && row.State == state && row.Generation == generation
	})
}

func TestRecordSteering(t *testing.T) {
	if !*record {
		t.Skip("with -record only")
	}
	for name, scenario := range map[string]func(t *testing.T, name string){
		"steered-by-signals": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{})
			r.start()
			r.informs("free")
			r.becomes(deltatype.ResourceStateSynced, 1)
			r.signal("inform", map[string]any{"object": account{Name: "ann", Plan: "paid"}})
			r.becomes(deltatype.ResourceStateSynced, 2)
			r.signal("inform", "nonsense")
			r.signal("invalidate", nil)
			r.becomes(deltatype.ResourceStateSynced, 3)
			r.signal("retry", nil) // refused
			_, err := r.Pool.Exec(t.Context(), "UPDATE delta_namespace SET deleted_retention = '300 milliseconds'")
			require.NoError(t, err)
			r.signal("delete", nil)
			r.save(r.workflow(), name)
		},
		"synced-by-update": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: 10 * short})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Attempt == 1 {
					return errNotYet
				}
				return nil
			}
			r.start()
			_, err := r.client.Sync(t.Context(), account{Name: "ann", Plan: "free"}, nil)
			require.NoError(t, err)
			handle, err := r.Temporal.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
				WorkflowID: r.workflow(), UpdateName: workflows.SyncUpdate, WaitForStage: client.WorkflowUpdateStageCompleted,
				Args: []any{workflows.SyncRequest{}},
			})
			require.NoError(t, err)
			require.NoError(t, handle.Get(t.Context(), nil))
			r.save(r.workflow(), name)
		},
		"snoozed-degraded-retried": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: short})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				switch {
				case resource.Snoozes == 0 && resource.Generation == 1:
					return delta.ResourceSnooze(short)
				case resource.Generation == 1:
					return delta.ResourceDegrade(nil)
				}
				return nil
			}
			r.start()
			r.informs("free")
			r.becomes(deltatype.ResourceStateDegraded, 1)
			_, err := r.client.Retry(t.Context(), "account", "ann")
			require.NoError(t, err)
			r.save(r.workflow(), name)
		},
		"paused-in-backoff": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{})
			r.work = func(context.Context, *delta.Resource[account]) error { return errNotYet }
			r.start()
			r.informs("free")
			r.wait("a timer runs", r.has(r.workflow(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			_, err := r.client.Pause(t.Context(), "account", "ann")
			require.NoError(t, err)
			r.save(r.workflow(), name)
		},
		"inform-in-foreground": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{})
			r.inform = func(context.Context) (<-chan account, error) {
				all := make(chan account, 1)
				all <- account{Name: "bob"}
				close(all)
				return all, nil
			}
			r.start()
			run, err := r.client.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "account", RunForeground: true}, nil)
			require.NoError(t, err)
			r.save(run.WorkflowID, name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenario(t, name)
		})
	}
}
