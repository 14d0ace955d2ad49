package activities

import (
	"context"

	"go.temporal.io/sdk/activity"
)

// WorkflowID returns the id of the activity's workflow; empty outside of an activity.
func WorkflowID(ctx context.Context) string {
	if !activity.IsActivity(ctx) {
		return ""
	}
	return activity.GetInfo(ctx).WorkflowExecution.ID
}

// RunID returns the run id of the activity's workflow; empty outside of an activity.
func RunID(ctx context.Context) string {
	if !activity.IsActivity(ctx) {
		return ""
	}
	return activity.GetInfo(ctx).WorkflowExecution.RunID
}

// ActivityTry returns the number of this try of the activity; 0 outside of an activity.
func ActivityTry(ctx context.Context) int32 {
	if !activity.IsActivity(ctx) {
		return 0
	}
	return activity.GetInfo(ctx).Attempt
}

// isLocal reports whether the activity is a local one.
func isLocal(ctx context.Context) bool {
	return activity.IsActivity(ctx) && activity.GetInfo(ctx).IsLocalActivity
}
