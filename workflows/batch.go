package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// Batch is the lifecycle of many resources: one attempt of all of them, then rest until they expire or are removed. A member
// that failed, or that somebody asked something of, is dispatched anew, and is no longer the batch's. The rows say who is, so
// every run can begin with an attempt.
func (k Kinds) Batch(ctx workflow.Context, in activities.Batch) error {
	var last activities.BatchStep
	err := workflow.SetQueryHandlerWithOptions(ctx, StateQuery, func() (activities.BatchStep, error) { return last, nil },
		workflow.QueryHandlerOptions{Description: "What became of the members, and how many of them rest."})
	if err != nil {
		return err
	}
	options := attemptOptions(k[in.Kind])
	options.Summary = fmt.Sprintf("attempt of %d", len(in.IDs))
	tellBatch(ctx, in, last, "is being worked on")
	if last, err = attemptBatch.run(ctx, options, in); err != nil {
		return err
	}
	for last.Resting > 0 {
		now := workflow.Now(ctx)
		tellBatch(ctx, in, last, fmt.Sprintf("rests until %s with %d members", now.Add(last.Wait).UTC().Format(time.RFC3339), last.Resting))
		timer := workflow.TimerOptions{Summary: fmt.Sprintf("%d members: until they expire or are removed", last.Resting)}
		if err := workflow.NewTimerWithOptions(ctx, last.Wait, timer).Get(ctx, nil); err != nil {
			return err
		}
		step, err := lapseBatch.runLocal(ctx, lapseBatchOptions, in)
		if err != nil {
			return err
		}
		last.Resting, last.Wait = step.Resting, step.Wait
		info := workflow.GetInfo(ctx)
		if last.Resting > 0 && (info.GetContinueAsNewSuggested() || info.GetCurrentHistoryLength() > maxHistory) {
			return workflow.NewContinueAsNewError(ctx, BatchName, in)
		}
	}
	tellBatch(ctx, in, last, "has no members any more")
	return nil
}

// tellBatch writes what a person sees in the workflow's details.
func tellBatch(ctx workflow.Context, in activities.Batch, s activities.BatchStep, doing string) {
	lines := []string{
		fmt.Sprintf("The batch of %d %s.", len(in.IDs), doing),
		fmt.Sprintf("Synced **%d**, failed %d, degraded %d, snoozed %d, deleted %d, went on meanwhile %d.",
			s.Synced, s.Failed, s.Degraded, s.Snoozed, s.Deleted, s.Left),
	}
	if s.Failed+s.Degraded > 0 {
		lines = append(lines, "Those that failed go on in workflows of their own:")
	}
	for _, failure := range s.Failures {
		lines = append(lines, strings.TrimSuffix("- "+failure.ID+": "+failure.Error, ": "))
	}
	if more := s.Failed + s.Degraded - len(s.Failures); more > 0 {
		lines = append(lines, fmt.Sprintf("- and %d more", more))
	}
	workflow.SetCurrentDetails(ctx, strings.Join(lines, "\n\n"))
}
