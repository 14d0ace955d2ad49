package activities

import (
	"context"

	"go.temporal.io/sdk/activity"
)

// WorkflowID is that of the workflow that the activity is of; empty outside of one.
func WorkflowID(ctx context.Context) string {
	if !activity.IsActivity(ctx) {
		return ""
	}
	return activity.GetInfo(ctx).WorkflowExecution.ID
}

// RunID is that of the run of the workflow that the activity is of; empty outside of one.
func RunID(ctx context.Context) string {
	if !activity.IsActivity(ctx) {
		return ""
	}
	return activity.GetInfo(ctx).WorkflowExecution.RunID
}

// ActivityTry says which try of the activity this is; 0 outside of one.
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
