package workflows_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// signal sends a signal to the resource's workflow.
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

func TestRecordCommands(t *testing.T) {
	if !*record {
		t.Skip("with -record only")
	}
	for name, scenario := range map[string]func(t *testing.T, name string){
		"commanded-by-signals": func(t *testing.T, name string) {
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
		// The command is carried out while Work runs: Work waits for it.
		"commanded-during-work": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{DeletedResourceRetentionPeriod: short})
			r.work = func(context.Context, *delta.Resource[account]) error {
				r.signal("delete", nil)
				r.becomes(deltatype.ResourceStateDeleted, 2)
				return nil
			}
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
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
			r.informs("free")
			r.wait("it waits for its second attempt", r.has(r.workflow(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			r.signal("sync", nil)
			r.becomes(deltatype.ResourceStateSynced, 2)
			r.signal("sync", nil)
			r.becomes(deltatype.ResourceStateSynced, 3)
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
