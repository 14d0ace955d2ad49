package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
)

// Registered names. They are in histories: never change one.
const (
	ResourceName = "delta.Resource"
	InformName   = "delta.Inform"

	// WakeSignal tells a resource's workflow to look at its row. It carries nothing: what is to be done is in the row,
	// so it does no harm to send it twice.
	WakeSignal = "wake"
)

// maxHistory is the length at which a run is continued as a new one, where the server does not ask for it sooner.
const maxHistory = 5_000

// Resource is the lifecycle of one resource: attempts until it is synced or degraded, then rest until it expires or is
// removed. The row says where it stands, so every run can begin with an attempt, whatever happened before.
func Resource(ctx workflow.Context, ref activities.Ref) error {
	wake := workflow.GetSignalChannel(ctx, WakeSignal)
	for {
		// What was asked for up to here is what the attempt below looks at.
		drain(wake)
		step, err := attempt.run(ctx, attemptOptions, ref)
		if err != nil {
			return err
		}
		for step.Next == activities.NextLapse {
			if woken := sleep(ctx, wake, step.Wait); woken {
				break
			}
			step, err = lapse.runLocal(ctx, lapseOptions, activities.LapseInput{Ref: ref, Generation: step.Generation})
			if err != nil {
				return err
			}
		}
		if step.Next == activities.NextAttempt {
			sleep(ctx, wake, step.Wait)
		}
		if step.Next == activities.NextNone && !drain(wake) {
			return nil
		}
		info := workflow.GetInfo(ctx)
		if info.GetContinueAsNewSuggested() || info.GetCurrentHistoryLength() > maxHistory {
			// The next run begins with an attempt, which is all that a wake-up asks for.
			drain(wake)
			return workflow.NewContinueAsNewError(ctx, ResourceName, ref)
		}
	}
}

// drain takes the wake-ups that have arrived and tells whether there were any.
func drain(wake workflow.ReceiveChannel) (woken bool) {
	for wake.ReceiveAsync(nil) {
		woken = true
	}
	return woken
}

// sleep waits for a time, or for a wake-up if that comes first.
func sleep(ctx workflow.Context, wake workflow.ReceiveChannel, wait time.Duration) (woken bool) {
	if wait <= 0 {
		return drain(wake)
	}
	timerCtx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	selector := workflow.NewSelector(ctx)
	selector.AddFuture(workflow.NewTimer(timerCtx, wait), func(workflow.Future) {})
	selector.AddReceive(wake, func(c workflow.ReceiveChannel, _ bool) {
		c.ReceiveAsync(nil)
		woken = true
	})
	selector.Select(ctx)
	return woken
}
