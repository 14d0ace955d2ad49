package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// SourceName is the registered name of [Source]. Histories contain it, so it never changes.
const SourceName = "delta.Source"

// Source runs a source of a kind for ever: one activity, which Temporal gives to another worker when its worker is
// gone. A run that fails gives the time until the next one itself, because the interval of a retry policy would also
// grow with each deploy.
func Source(ctx workflow.Context, in activities.SourceInput) error {
	workflow.SetCurrentDetails(ctx, fmt.Sprintf(
		"Feeds the kind **%s** from the source **%s**. Where it stands is in the table delta_source, and what is wrong in the failure of its pending activity.",
		in.Kind, in.Name))
	_, err := runSource.run(ctx, sourceOptions(in), in)
	return err
}

// sourceOptions retry the activity for ever.
func sourceOptions(in activities.SourceInput) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		StartToCloseTimeout: unbounded,
		HeartbeatTimeout:    activities.HeartbeatTimeout,
		Summary:             "source " + in.Name + " of " + in.Kind,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval:    time.Second,
			BackoffCoefficient: 1,
		},
	}
}
