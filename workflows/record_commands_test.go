package workflows_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// sendSignal sends a signal to the resource's workflow.
func (r *recorder) sendSignal(name string, payload any) {
	r.t.Helper()
	require.NoError(r.t, r.Temporal.SignalWorkflow(r.t.Context(), r.workflowID(), "", name, payload))
}

// awaitState waits until a generation is in a state.
func (r *recorder) awaitState(state deltatype.ResourceState, generation int64) {
	r.t.Helper()
	r.awaitThat(string(state), func() bool {
		row, err := r.client.Get(r.t.Context(), "account", "ann")
		return err == nil && row.State == state && row.Generation == generation
	})
}

func TestRecordCommands(t *testing.T) {
	if !*record {
		t.Skip("with -record only")
	}
	for name, scenario := range map[string]func(t *testing.T, name string){
		"commanded-by-signals": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{})
			r.start()
			r.informPlan("free")
			r.awaitState(deltatype.ResourceStateSynced, 1)
			r.sendSignal("inform", map[string]any{"object": account{Name: "ann", Plan: "paid"}})
			r.awaitState(deltatype.ResourceStateSynced, 2)
			r.sendSignal("inform", "nonsense")
			r.sendSignal("invalidate", nil)
			r.awaitState(deltatype.ResourceStateSynced, 3)
			r.sendSignal("retry", nil) // refused
			_, err := r.Pool.Exec(t.Context(), "UPDATE delta_namespace SET deleted_retention = '300 milliseconds'")
			require.NoError(t, err)
			r.sendSignal("delete", nil)
			r.saveHistory(r.workflowID(), name)
		},
		// The command is carried out while Work runs: Work waits for it.
		"commanded-during-work": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{DeletedResourceRetentionPeriod: short})
			r.work = func(context.Context, *delta.Resource[account]) error {
				r.sendSignal("delete", nil)
				r.awaitState(deltatype.ResourceStateDeleted, 2)
				return nil
			}
			r.start()
			r.informPlan("free")
			r.saveHistory(r.workflowID(), name)
		},
		"synced-by-signal": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: 10 * short})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation == 1 {
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informPlan("free")
			r.awaitThat("it waits for its second attempt", r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			r.sendSignal("sync", nil)
			r.awaitState(deltatype.ResourceStateSynced, 2)
			r.sendSignal("sync", nil)
			r.awaitState(deltatype.ResourceStateSynced, 3)
			r.saveHistory(r.workflowID(), name)
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
			r.informPlan("free")
			r.awaitState(deltatype.ResourceStateDegraded, 1)
			_, err := r.client.Retry(t.Context(), "account", "ann")
			require.NoError(t, err)
			r.saveHistory(r.workflowID(), name)
		},
		"paused-in-backoff": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{})
			r.work = func(context.Context, *delta.Resource[account]) error { return errNotYet }
			r.start()
			r.informPlan("free")
			r.awaitThat("a timer runs", r.hasEvents(r.workflowID(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			_, err := r.client.Pause(t.Context(), "account", "ann")
			require.NoError(t, err)
			r.saveHistory(r.workflowID(), name)
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
			r.saveHistory(run.WorkflowID, name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenario(t, name)
		})
	}
}
