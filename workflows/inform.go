package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// Inform is one run of a kind's informer.
func Inform(ctx workflow.Context, in activities.InformInput) (activities.InformProgress, error) {
	return informPass.run(ctx, informOptions, in)
}
