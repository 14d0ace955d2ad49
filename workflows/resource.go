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

	// WakeSignal has a resource's workflow read its row. It carries no payload, because the row holds the next step, so
	// a second signal does no harm. Signals named for [activities.Commands] carry a command.
	WakeSignal = "wake"
	// KindMemo is the kind, in the memo of a resource's workflow.
	KindMemo = "delta_kind"
	// StateQuery answers with the latest [activities.Step].
	StateQuery = "state"
)

// maxHistory is the length of the history at which the workflow continues as a new run, unless the server suggests it
// sooner.
const maxHistory = 5_000

// Resource is the workflow of one resource: it makes attempts until the resource is synced or degraded, and then waits
// until it expires or is removed. The row holds the state, so every run can begin with an attempt, whatever happened
// before.
func (k Kinds) Resource(ctx workflow.Context, ref activities.Ref) error {
	// The stack stays in memory while the workflow waits, so code that needs a large one is in other functions.
	l := newLifecycle(ctx, k[ref.Kind], ref)
	if err := l.serveSignals(ctx); err != nil {
		return err
	}
	for {
		// The attempt below serves every wake-up that has arrived until here.
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
		// A new run would cut off a command that is being carried out, so wait for it.
		if isLong(ctx) && l.isQuiet() {
			// The next run begins with an attempt, as after a wake-up.
			l.takeWakeUps()
			ref.Local = l.local
			return workflow.NewContinueAsNewError(ctx, ResourceName, ref)
		}
	}
}

// lifecycle is the state of one run of Resource.
type lifecycle struct {
	ref     activities.Ref
	options workflow.ActivityOptions
	wake    workflow.ReceiveChannel
	last    activities.Step
	// shown is the step whose state the search attributes show.
	shown activities.Step
	// local reports whether the next attempt is a local activity.
	local bool
	// foreign reports whether someone else than Delta started the workflow, with a signal.
	foreign bool
	*commands
}

func newLifecycle(ctx workflow.Context, kind Kind, ref activities.Ref) *lifecycle {
	memo := workflow.GetInfo(ctx).Memo
	ref.Encoded = !isPlain(memo)
	_, ours := memo.GetFields()[KindMemo]
	if !ours {
		// The sender of a signal does not know whether the Temporal namespace has the search attributes, and a workflow that writes missing
		// ones fails for ever. So the first attempt answers that.
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

// isPlain reports whether Temporal stores payloads as they are: a user's data converter encodes the memo as it does
// other payloads. A workflow without a memo was not started by Delta, and counts as encoded.
func isPlain(memo *commonpb.Memo) bool {
	return string(memo.GetFields()[KindMemo].GetMetadata()[converter.MetadataEncoding]) == converter.MetadataEncodingJSON
}

// isLong reports whether to continue the workflow as a new run.
func isLong(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	return info.GetContinueAsNewSuggested() || info.GetCurrentHistoryLength() > maxHistory
}

// attemptResource reads the resource, and syncs it if that is due.
func (l *lifecycle) attemptResource(ctx workflow.Context) error {
	l.showDetails(ctx, "is being looked at")
	if l.local {
		step, err := attempt.runLocal(ctx, localOptions, l.ref)
		if err == nil && !step.HandedOver {
			l.local = step.Local
			return l.applyStep(ctx, step)
		}
	}
	// The activity may take long, and the UI shows the state meanwhile.
	if err := l.showState(ctx); err != nil {
		return err
	}
	options := l.options
	options.DisableEagerExecution = l.last.Elsewhere // otherwise this workflow's worker would get it again
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

// applyStep keeps the result of a step, and shows it to people.
func (l *lifecycle) applyStep(ctx workflow.Context, step activities.Step) error {
	l.last = step
	l.showDetails(ctx, describeWait(step, workflow.Now(ctx)))
	// A workflow that Delta started without search attributes stays without, because Temporal may have refused them.
	if l.foreign && step.SearchAttributes {
		l.ref.SearchAttributes = true
	}
	if l.isFollowedAtOnce(ctx) {
		return nil
	}
	return l.showState(ctx)
}

// isFollowedAtOnce reports whether another attempt ends in this workflow task, as after an expiry. Nobody could see the
// state until then, and to write it would cost an action of Temporal Cloud.
func (l *lifecycle) isFollowedAtOnce(ctx workflow.Context) bool {
	return l.local && l.last.Next == activities.NextAttempt && l.last.Wait <= 0 && !isLong(ctx)
}

// showState writes the row's state and namespace into the search attributes, unless this run has written them before. What
// the server says of the attributes does not count: it leaves out those that were removed, and a replay would differ.
func (l *lifecycle) showState(ctx workflow.Context) error {
	if !l.ref.SearchAttributes || l.last.State == "" || (l.shown.State == l.last.State && l.shown.Namespace == l.last.Namespace) {
		return nil
	}
	l.shown = l.last
	return workflow.UpsertTypedSearchAttributes(ctx, l.attributesAfter(ctx, l.last)...)
}

// attributesAfter returns the search attributes after a step. A workflow that Delta started has all three; one that a
// signal started lacks the kind.
func (l *lifecycle) attributesAfter(ctx workflow.Context, step activities.Step) []temporal.SearchAttributeUpdate {
	updates := []temporal.SearchAttributeUpdate{StateAttribute.ValueSet(string(step.State)), NamespaceAttribute.ValueSet(step.Namespace)}
	if kind, _ := workflow.GetTypedSearchAttributes(ctx).GetKeyword(KindAttribute); l.foreign && kind != l.ref.Kind {
		updates = append(updates, KindAttribute.ValueSet(l.ref.Kind))
	}
	return updates
}

func (l *lifecycle) isWoken() bool { return l.woken || l.wake.Len() > 0 }

// takeWakeUps receives the wake-ups that have arrived, and reports whether there were any.
func (l *lifecycle) takeWakeUps() (woken bool) {
	woken, l.woken = l.woken, false
	for l.wake.ReceiveAsync(nil) {
		woken = true
	}
	return woken
}

// awaitWakeUp waits for the time that the last step gave, or for a wake-up if one comes first.
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

// describeWait describes what a resource waits for, for people.
func describeWait(s activities.Step, now time.Time) string {
	until := now.Add(s.Wait).UTC().Format(time.RFC3339)
	switch {
	case s.Next == activities.NextRetention:
		return fmt.Sprintf("waits until %s, when it %s", until, describeRetentionEnd(s))
	case s.Next == activities.NextAttempt && s.Wait > 0:
		return fmt.Sprintf("waits for its next attempt, until %s", until)
	case s.Next == activities.NextAttempt:
		return "waits for its next attempt"
	case s.Paused:
		return "is paused"
	case s.AwaitsSlot:
		return "waits for a slot of its limit key"
	case s.AwaitsRoom:
		return "waits for room in its namespace, and then goes on in a new run"
	case s.AwaitsParent:
		return "waits for a parent to be synced"
	default:
		return "waits for nothing"
	}
}

// describeRetentionEnd describes what follows when the retention of a resource ends. Whether a synced resource expires
// is not known before: the settings at the end decide.
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
