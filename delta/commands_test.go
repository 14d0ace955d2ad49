package delta_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// signalCommand sends a command as a signal to the resource's own workflow, and starts the workflow if it is not running.
func (h *harness) signalCommand(kind, id, command string, payload any) {
	h.t.Helper()
	workflowID := h.Prefix + "/" + kind + "/" + id
	_, err := h.Temporal.SignalWithStartWorkflow(h.t.Context(), workflowID, command, payload,
		client.StartWorkflowOptions{ID: workflowID, TaskQueue: h.Prefix + "/" + kind},
		workflows.ResourceName, map[string]any{"kind": kind, "object_id": id})
	require.NoError(h.t, err)
}

func TestACommandDoesNotWaitBehindWork(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		begun, ended, release := make(chan string, 100), make(chan string, 100), make(chan struct{})
		config := withLongClaims(g.config(g.controller(func(ctx context.Context, j job) error {
			if !strings.HasPrefix(j.ObjectID, "busy") {
				return nil
			}
			begun <- j.ObjectID
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				ended <- j.ObjectID + ": " + context.Cause(ctx).Error()
				return ctx.Err()
			}
		})), g.kind)
		config.ResourceWorkTimeout = 10 * patience
		c := g.start(config)
		g.inform(c, nil, "rests")
		g.awaitRow("rests", synced(1))
		// As many as can run at once, and some that wait for a slot.
		g.inform(c, nil, names("busy", 12)...)
		working := map[string]bool{}
		for range 8 {
			working[got(t, begun)] = true
		}
		g.signalCommand(g.kind, "rests", "delete", nil)
		g.awaitRow("rests", inState(deltatype.ResourceStateDeleted))
		require.Empty(t, ended)

		var deleted string
		for deleted = range working {
			break
		}
		g.signalCommand(g.kind, deleted, "delete", nil)
		require.Equal(t, deleted+": the resource was deleted", got(t, ended))
		require.Equal(t, deltatype.ResourceStateDeleted, g.row(g.kind, deleted).State)
		require.Empty(t, ended, "the others continue")
		close(release)
		for _, name := range names("busy", 12) {
			if name != deleted {
				require.Equal(t, 1, g.awaitRow(name, synced(1)).Attempt)
			}
		}
		row := g.awaitRow(deleted, func(r *deltatype.ResourceRow) bool { return r.ClaimedUntil == nil })
		require.Equal(t, deltatype.ResourceStateDeleted, row.State)
	})
}

// Postgres can never store such an object, so a retry is of no use.
func TestAnInformBySignalThatCannotBeStoredIsRefusedOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[raw]{})))
	_, err := c.Inform(t.Context(), raw{Name: "ann", Body: json.RawMessage("1")}, nil)
	require.NoError(t, err)
	before := h.eventually("raw", "ann", synced(1))

	id := h.Prefix + "/raw/ann"
	h.signalCommand("raw", "ann", "inform", map[string]any{"object": raw{Name: "ann", Body: json.RawMessage("1e200000")}})
	var details string
	until(t, func() bool { details = h.workflowDetails(id); return strings.Contains(details, "Refused: inform: ") }, "the details do not mention it")
	require.Equal(t, 1, strings.Count(details, "Refused:"))

	// Later signals are executed.
	h.signalCommand("raw", "ann", "invalidate", nil)
	h.eventually("raw", "ann", synced(2))
	var failures, markers int
	until(t, func() bool { // the row may be synced before the history shows it
		failures, markers = 0, 0
		for _, event := range h.history(id) {
			if marker := event.GetMarkerRecordedEventAttributes(); namesActivity(marker, activities.CommandName) {
				markers++
				if marker.GetFailure() != nil {
					failures++
				}
			}
		}
		return markers >= 2
	})
	require.Equal(t, 1, failures, "it was tried once")
	require.Equal(t, 2, markers)
	require.JSONEq(t, string(before.EncodedObject), string(h.row("raw", "ann").EncodedObject))
	var step activities.Step
	until(t, func() bool { // the row may be synced before the workflow knows
		value, err := h.Temporal.QueryWorkflow(t.Context(), id, "", workflows.StateQuery)
		return err == nil && value.Get(&step) == nil && step.State == deltatype.ResourceStateSynced
	}, "%s", shown[activities.Step]{&step})
}
