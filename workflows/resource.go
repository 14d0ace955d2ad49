package workflows

import (
	"fmt"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Registered names. They are in histories: never change one.
const (
	ResourceName = "delta.Resource"
	InformName   = "delta.Inform"
	BatchName    = "delta.Batch"

	// WakeSignal tells a resource's workflow to look at its row. It carries nothing: what is to be done is in the row,
	// so it does no harm to send it twice. Signals named for [activities.Commands] order something.
	WakeSignal = "wake"
	// KindMemo is the kind, in the memo of a resource's workflow.
	KindMemo = "delta_kind"
	// StateQuery answers with the latest [activities.Step].
	StateQuery = "state"
)

// maxHistory is the length at which a run is continued as a new one, where the server does not ask for it sooner.
const maxHistory = 5_000

// Resource is the lifecycle of one resource: attempts until it is synced or degraded, then rest until it expires or is
// removed. The row says where it stands, so every run can begin with an attempt, whatever happened before.
func (k Kinds) Resource(ctx workflow.Context, ref activities.Ref) error {
	// Its stack is in memory for as long as it rests, so what takes much of one has functions of its own.
	l := newLifecycle(ctx, k[ref.Kind], ref)
	if err := l.serveSignals(ctx); err != nil {
		return err
	}
	for {
		// What was ordered up to here is what the attempt below looks at.
		l.takeWakeUps()
		if err := l.attemptResource(ctx); err != nil {
			return err
		}
		for l.last.Next == activities.NextRetention {
			if woken := l.awaitWakeUp(ctx); woken {
				break
			}
			if err := l.endRetention(ctx); err != nil {
				return err
			}
		}
		if l.last.Next == activities.NextAttempt {
			l.awaitWakeUp(ctx)
		}
		if l.last.Next == activities.NextNone {
			if err := workflow.Await(ctx, l.isQuiet); err != nil {
				return err
			}
			if !l.takeWakeUps() {
				return nil
			}
		}
		// A command that is under way would be cut off: then the next time round.
		if isLong(ctx) && l.isQuiet() {
			// The next run begins with an attempt, which is all that a wake-up orders.
			l.takeWakeUps()
			ref.Local = l.local
			return workflow.NewContinueAsNewError(ctx, ResourceName, ref)
		}
	}
}

// lifecycle is the state of one run.
type lifecycle struct {
	ref     activities.Ref
	options workflow.ActivityOptions
	wake    workflow.ReceiveChannel
	last    activities.Step
	// local has the next attempt made by a local activity.
	local bool
	// foreign is true where others than Delta have started the workflow, with a signal.
	foreign bool
	*commands
}

func newLifecycle(ctx workflow.Context, kind Kind, ref activities.Ref) *lifecycle {
	memo := workflow.GetInfo(ctx).Memo
	ref.Encoded = !isPlain(memo)
	_, ours := memo.GetFields()[KindMemo]
	if !ours {
		// Whoever sends a signal does not know whether there are search attributes, and a workflow that wrote some which are not there would
		// fail for ever. So the first attempt says it.
		ref.SearchAttributes = false
	}
	return &lifecycle{
		foreign:  !ours,
		ref:      ref,
		options:  attemptOptions(kind),
		wake:     workflow.GetSignalChannel(ctx, WakeSignal),
		local:    ref.Local,
		commands: newCommands(ctx),
	}
}

// isPlain reports whether payloads are stored as they are: a data converter of the user's encodes the memo as it does other payloads. A workflow
// that has none was not started by Delta, and is taken for encoded.
func isPlain(memo *commonpb.Memo) bool {
	return string(memo.GetFields()[KindMemo].GetMetadata()[converter.MetadataEncoding]) == converter.MetadataEncodingJSON
}

// isLong reports whether a run is to be continued as a new one.
func isLong(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	return info.GetContinueAsNewSuggested() || info.GetCurrentHistoryLength() > maxHistory
}

// attemptResource looks at the resource, and syncs it if that is due.
func (l *lifecycle) attemptResource(ctx workflow.Context) error {
	l.showDetails(ctx, "is being looked at")
	if l.local {
		step, err := attempt.runLocal(ctx, localOptions, l.ref)
		if err == nil && !step.HandedOver {
			l.local = step.Local
			return l.applyStep(ctx, step)
		}
	}
	options := l.options
	options.DisableEagerExecution = l.last.Elsewhere // the worker of this workflow would get it again
	step, err := attempt.run(ctx, options, l.ref)
	if err != nil {
		return err
	}
	l.local = step.Local
	return l.applyStep(ctx, step)
}

// endRetention expires or removes the resource, if that is due.
func (l *lifecycle) endRetention(ctx workflow.Context) error {
	step, err := endRetention.runLocal(ctx, retentionOptions, l.ref)
	if err != nil {
		return err
	}
	return l.applyStep(ctx, step)
}

// applyStep takes in what a step came to.
func (l *lifecycle) applyStep(ctx workflow.Context, step activities.Step) error {
	before := l.last
	l.last = step
	l.showDetails(ctx, describeWait(step, workflow.Now(ctx)))
	// A workflow of Delta's keeps to what it was started with: it may have been started without, because Temporal refused them.
	if l.foreign && step.SearchAttributes {
		l.ref.SearchAttributes = true
	}
	if !l.ref.SearchAttributes || step.State == "" || (before.State == step.State && before.Namespace == step.Namespace) {
		return nil
	}
	return workflow.UpsertTypedSearchAttributes(ctx, l.attributesAfter(ctx, step)...)
}

// attributesAfter are the search attributes after a step. Delta starts its workflows with all of them; where others have, the kind is missing.
func (l *lifecycle) attributesAfter(ctx workflow.Context, step activities.Step) []temporal.SearchAttributeUpdate {
	updates := []temporal.SearchAttributeUpdate{StateAttribute.ValueSet(string(step.State)), NamespaceAttribute.ValueSet(step.Namespace)}
	if kind, _ := workflow.GetTypedSearchAttributes(ctx).GetKeyword(KindAttribute); l.foreign && kind != l.ref.Kind {
		updates = append(updates, KindAttribute.ValueSet(l.ref.Kind))
	}
	return updates
}

func (l *lifecycle) isWoken() bool { return l.woken || l.wake.Len() > 0 }

// takeWakeUps takes the wake-ups that have arrived and tells whether there were any.
func (l *lifecycle) takeWakeUps() (woken bool) {
	woken, l.woken = l.woken, false
	for l.wake.ReceiveAsync(nil) {
		woken = true
	}
	return woken
}

// awaitWakeUp waits for as long as the last step says, or for a wake-up if that comes first.
func (l *lifecycle) awaitWakeUp(ctx workflow.Context) (woken bool) {
	if l.last.Wait <= 0 {
		return l.takeWakeUps()
	}
	timerCtx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	timer := workflow.NewTimerWithOptions(timerCtx, l.last.Wait, workflow.TimerOptions{Summary: timerSummary(l.last)})
	_ = workflow.Await(ctx, func() bool { return timer.IsReady() || l.isWoken() })
	return l.isWoken() && l.takeWakeUps()
}

// describeWait says in words what a resource waits for.
func describeWait(s activities.Step, now time.Time) string {
	until := now.Add(s.Wait).UTC().Format(time.RFC3339)
	switch {
	case s.Next == activities.NextRetention:
		return fmt.Sprintf("rests until %s, when it %s", until, describeRetentionEnd(s))
	case s.Next == activities.NextAttempt && s.Wait > 0:
		return fmt.Sprintf("waits for its next attempt, until %s", until)
	case s.Next == activities.NextAttempt:
		return "waits for its next attempt"
	case s.Paused:
		return "is paused"
	case s.AwaitsSlot:
		return "waits for a slot of its limit key"
	case s.AwaitsParent:
		return "waits for a parent to be synced"
	default:
		return "waits for nothing"
	}
}

// describeRetentionEnd says in words what a resource rests for. Whether one that is synced expires is for settings to say, when its rest ends.
func describeRetentionEnd(s activities.Step) string {
	switch {
	case s.Heals:
		return "is tried again"
	case s.State == deltatype.ResourceStateDegraded, s.State == deltatype.ResourceStateDeleted:
		return "is removed"
	default:
		return "expires or is removed"
	}
}

func timerSummary(s activities.Step) string {
	if s.Next == activities.NextRetention {
		return string(s.State) + ": until it " + describeRetentionEnd(s)
	}
	return string(s.State) + ": until the next attempt"
}
