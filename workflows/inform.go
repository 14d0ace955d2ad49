package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// Degraded is the type of the error of a run in the foreground, some of whose resources degraded.
const Degraded = "delta.Degraded"

// Inform is one run of a kind's informer. In the foreground it ends when all that it informed has settled, and fails if
// some of it degraded.
func Inform(ctx workflow.Context, in activities.InformInput) (activities.InformProgress, error) {
	in.Pass = workflow.GetInfo(ctx).WorkflowExecution.RunID
	options := informOptions
	options.Summary = "list " + in.Kind
	progress, err := informPass.run(ctx, options, in)
	if err != nil || !in.RunForeground {
		return progress, err
	}
	await := activities.AwaitInput{Installation: in.Installation, Kind: in.Kind, Pass: in.Pass}
	result, err := awaitSettled.run(ctx, awaitOptions, await)
	if err != nil {
		return progress, err
	}
	if _, err := forgetListing.runLocal(ctx, retentionOptions, await); err != nil {
		return progress, err
	}
	if result.Degraded > 0 {
		return progress, temporal.NewApplicationError(
			fmt.Sprintf("%d of %d resources degraded: %s", result.Degraded, progress.Listed, strings.Join(result.Named, ", ")), Degraded, progress)
	}
	return progress, nil
}
