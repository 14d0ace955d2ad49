package delta_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/internal/soak"
)

// Temporal goes back just before a heartbeat is written, as after an outage through which the write was repeated. The write must not hide that.
func TestAHeartbeatDoesNotHideThatTemporalWentBack(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var wentBack atomic.Bool
	temporal := h.dialRefusingRequests(func(_ string, request any) error {
		describe, ok := request.(*workflowservice.DescribeScheduleRequest)
		if !ok || !strings.Contains(describe.GetScheduleId(), "/installation:") || wentBack.Load() {
			return nil
		}
		var beats bool // this is the read before a heartbeat is written
		err := h.Pool.QueryRow(context.Background(), "SELECT heartbeat - 1 > marked_heartbeat AND marked_heartbeat > 0 FROM delta_installation").Scan(&beats)
		if err != nil || !beats {
			return nil
		}
		err = h.Temporal.ScheduleClient().GetHandle(context.Background(), describe.GetScheduleId()).Update(context.Background(), client.ScheduleUpdateOptions{
			DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
				action := in.Description.Schedule.Action.(*client.ScheduleWorkflowAction)
				parts := strings.SplitN(action.ID, "/", 3)
				parts[1] = "0"
				action.ID = strings.Join(parts, "/")
				return &client.ScheduleUpdate{Schedule: &in.Description.Schedule}, nil
			},
		})
		if err == nil {
			wentBack.Store(true)
		}
		return nil
	})
	var logs logBuffer
	config := h.config(with(&controller[account]{}))
	config.Temporal, config.MaintenanceJobInterval = temporal, maintainedEvery
	config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	h.start(config)
	until(t, wentBack.Load)
	until(t, func() bool { return strings.Contains(logs.String(), "Temporal has gone back") })
	require.NotContains(t, logs.String(), "does not know this installation")
}
