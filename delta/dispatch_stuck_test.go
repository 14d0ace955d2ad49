package delta

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chariot-giving/delta/activities"
)

// A dispatcher ends the workflow of a row without a claim only if its activity has had the time to claim it, or to say that it waits.
func TestAnActivityThatHasJustBegunIsNotStuck(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const started, queued = enumspb.PENDING_ACTIVITY_STATE_STARTED, enumspb.PENDING_ACTIVITY_STATE_SCHEDULED
	for name, one := range map[string]struct {
		state   enumspb.PendingActivityState
		began   time.Duration // before now
		waits   bool
		isStuck bool
	}{
		"silent for long":                {state: started, began: time.Minute, isStuck: true},
		"waits for a slot":               {state: started, began: time.Minute, waits: true},
		"just begun":                     {state: started, began: time.Second},
		"begun by a clock that is ahead": {state: started, began: -time.Second},
		"by one that is hours ahead":     {state: started, began: -3 * time.Hour, isStuck: true},
		"in its queue":                   {state: queued, began: time.Minute},
		"silent for a heartbeat timeout": {state: started, began: activities.HeartbeatTimeout, isStuck: true},
	} {
		pending := &workflowpb.PendingActivityInfo{State: one.state, LastStartedTime: timestamppb.New(now.Add(-one.began))}
		if one.waits {
			pending.HeartbeatDetails = &commonpb.Payloads{}
		}
		found := &workflowservice.DescribeWorkflowExecutionResponse{PendingActivities: []*workflowpb.PendingActivityInfo{pending}}
		require.Equal(t, one.isStuck, hasSilentWorker(found, now), name)
	}
}
