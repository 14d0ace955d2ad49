package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// Degraded is the type of the error of a foreground run of which some resources degraded.
const Degraded = "delta.Degraded"

// Inform is one run of a kind's informer: a pass or, where the controller names shards, a run of each shard. In the
// foreground it ends when every resource that it informed has settled, and fails if some of them degraded.
func Inform(ctx workflow.Context, in activities.InformInput) (activities.InformProgress, error) {
	if err := awaitPartOfSecond(ctx, in.Every); err != nil {
		return activities.InformProgress{}, err
	}
	in.Pass = workflow.GetInfo(ctx).WorkflowExecution.RunID
	options := informOptions
	options.Summary = listSummary(in)
	showInformDetails(ctx, in, "is listing")
	progress, err := informPass.run(ctx, options, in)
	if err != nil {
		showInformDetails(ctx, in, "failed: its cursor stays, and nothing more is marked deleted")
		return progress, err
	}
	if progress.Shards != nil {
		return informShards(ctx, in, *progress.Shards)
	}
	done := describeProgress(in.Kind, progress)
	if !in.RunForeground {
		showInformDetails(ctx, in, "has ended", done...)
		return progress, nil
	}
	showInformDetails(ctx, in, "waits until all that it listed has settled", done...)
	await := activities.AwaitInput{Installation: in.Installation, Kind: in.Kind, Pass: in.Pass}
	result, err := awaitSettled.run(ctx, awaitOptions, await)
	if err != nil {
		return progress, err
	}
	if _, err := forgetListing.runLocal(ctx, retentionOptions, await); err != nil {
		return progress, err
	}
	showInformDetails(ctx, in, fmt.Sprintf("has ended, and %d of what it listed are degraded", result.Degraded), done...)
	if result.Degraded > 0 {
		return progress, temporal.NewApplicationError(
			fmt.Sprintf("%d of %d resources degraded: %s", result.Degraded, progress.Listed, strings.Join(result.Named, ", ")), Degraded, progress)
	}
	return progress, nil
}

func listSummary(in activities.InformInput) string {
	if shard := in.Options.Shard; shard != "" {
		return "list shard " + shard + " of " + in.Kind
	}
	return "list " + in.Kind
}

// scheduledStart is the time at which Temporal's schedule planned a run, in whole seconds and before jitter.
var scheduledStart = temporal.NewSearchAttributeKeyTime("TemporalScheduledStartTime")

// awaitPartOfSecond waits for the rest of an interval that has fractions of a second, because Temporal's schedules know
// whole seconds only. A run that was started by request does not wait.
func awaitPartOfSecond(ctx workflow.Context, every time.Duration) error {
	if every <= 0 {
		return nil
	}
	nominal, scheduled := workflow.GetTypedSearchAttributes(ctx).GetTime(scheduledStart)
	if !scheduled {
		return nil
	}
	return workflow.Sleep(ctx, partOfSecond(nominal, every)-workflow.Now(ctx).Sub(nominal))
}

// partOfSecond returns the time from a whole second to the next multiple of an interval, counted from 1970 as Temporal
// counts; 0 if that multiple is not within the second.
func partOfSecond(second time.Time, every time.Duration) time.Duration {
	if past := time.Duration(second.UnixNano() % int64(every)); past > 0 && every-past < time.Second {
		return every - past
	}
	return 0
}
