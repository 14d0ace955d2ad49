package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/internal/wording"
)

// Batch is the workflow of many resources: it attempts all of them once, and then waits until they expire or are
// removed. A member that failed, or that got a command, is dispatched again and leaves the batch. The rows name the
// workflow that attends to them, so every run can begin with an attempt.
//
// The input of a first run has a second argument, which names the members to people. It is not a parameter, so that no
// worker decodes it.
func (k Kinds) Batch(ctx workflow.Context, in *activities.Batch) error {
	// The stack stays in memory while the workflow waits, so code that needs a large one is in other functions.
	b, err := k.attemptBatch(ctx, in)
	for err == nil && b.last.Resting+b.last.Claimed > 0 {
		if err = b.startTimer(ctx).Get(ctx, nil); err == nil {
			err = b.takeNextStep(ctx)
		}
	}
	if err == nil {
		b.showDetails(ctx, "has no members any more: each goes on elsewhere, or is removed")
	}
	return err
}

func (k Kinds) attemptBatch(ctx workflow.Context, in *activities.Batch) (*batch, error) {
	b := &batch{in: *in, options: attemptOptions(k[in.Kind])}
	err := workflow.SetQueryHandlerWithOptions(ctx, StateQuery, func() (activities.BatchStep, error) { return b.last, nil },
		workflow.QueryHandlerOptions{Description: "The outcomes of the members, and how many of them wait for the end of their retention."})
	if err != nil {
		return b, err
	}
	return b, b.attemptMembers(ctx)
}

// batch is the state of one run of Batch.
type batch struct {
	in      activities.Batch
	options workflow.ActivityOptions
	last    activities.BatchStep
}

func (b *batch) attemptMembers(ctx workflow.Context) (err error) {
	b.options.Summary = fmt.Sprintf("attempt of %d", b.in.IDs.Len())
	b.showDetails(ctx, "is being worked on")
	before := b.last.Progress
	b.last, err = attemptBatch.run(ctx, b.options, b.in)
	b.last.Progress = addProgress(before, b.last.Progress)
	return err
}

// maxFailures is how many failures the details of a batch name.
const maxFailures = 20

// addProgress adds up the outcomes of two attempts. The second attempt has only members that other executions had
// claimed.
func addProgress(a, b activities.Progress) activities.Progress {
	a.Synced += b.Synced
	a.Failed += b.Failed
	a.Degraded += b.Degraded
	a.Snoozed += b.Snoozed
	a.Deleted += b.Deleted
	a.Withheld += b.Withheld
	a.Undecodable += b.Undecodable
	a.Left += b.Left
	a.Failures = append(a.Failures[:len(a.Failures):len(a.Failures)], b.Failures...)
	a.Failures = a.Failures[:min(len(a.Failures), maxFailures)]
	return a
}

// startTimer starts the timer for the members that are due next.
func (b *batch) startTimer(ctx workflow.Context) workflow.Future {
	now := workflow.Now(ctx)
	if b.last.Claimed > 0 {
		b.showDetails(ctx, fmt.Sprintf("waits for other workers, which have claimed %s", wording.Count(b.last.Claimed, "member")))
		return workflow.NewTimerWithOptions(ctx, b.last.Wait, workflow.TimerOptions{Summary: "until the claims of others are over"})
	}
	b.showDetails(ctx, fmt.Sprintf("waits until %s with %s", now.Add(b.last.Wait).UTC().Format(time.RFC3339), wording.Count(b.last.Resting, "settled member")))
	timer := workflow.TimerOptions{Summary: wording.Count(b.last.Resting, "member") + ": until the next of them expires, is tried again or is removed"}
	return workflow.NewTimerWithOptions(ctx, b.last.Wait, timer)
}

// takeNextStep expires or removes the members that are due, or attempts those again that other executions had claimed.
func (b *batch) takeNextStep(ctx workflow.Context) error {
	if b.last.Claimed > 0 {
		if err := b.attemptMembers(ctx); err != nil {
			return err
		}
	} else {
		step, err := endBatchRetention.runLocal(ctx, batchRetentionOptions, b.in)
		if err != nil {
			return err
		}
		b.last.Resting, b.last.Wait = step.Resting, step.Wait
	}
	if b.last.Resting+b.last.Claimed > 0 && isLong(ctx) {
		return workflow.NewContinueAsNewError(ctx, BatchName, b.in)
	}
	return nil
}

// showDetails writes the workflow's details, for people.
func (b *batch) showDetails(ctx workflow.Context, doing string) {
	s := b.last
	lines := []string{
		fmt.Sprintf("The batch of %d %s.", b.in.IDs.Len(), doing),
		fmt.Sprintf("Synced **%d**, failed %d, degraded %d, snoozed %d, deleted %d, went on meanwhile %d.",
			s.Synced, s.Failed, s.Degraded, s.Snoozed, s.Deleted, s.Left),
	}
	if s.Withheld > 0 {
		lines = append(lines, fmt.Sprintf("Not worked, because their kind or namespace was snoozed: %d.", s.Withheld))
	}
	if s.Undecodable > 0 {
		lines = append(lines, fmt.Sprintf("Of %d the objects do not decode: they wait for a worker that understands them.", s.Undecodable))
	}
	switch failed := s.Failed + s.Degraded; {
	case failed > activities.MaxUnbatched:
		lines = append(lines, fmt.Sprintf("%d of those that failed go on in workflows of their own, the others in other batches. The first errors:", activities.MaxUnbatched))
	case failed > 0:
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
