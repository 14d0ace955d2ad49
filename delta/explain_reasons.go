package delta

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/remedy"
)

// findReasons returns why the resource is not synced now, the deciding reason first. Its state comes before what it waits
// for; problems that somebody must solve come before waits that end by themselves, of which the last to end is first.
func (f *facts) findReasons() []Reason {
	calls, pauses := f.callReasons(), f.pauseReasons()
	all := slices.Concat(f.stateReasons(), calls, pauses)
	if len(calls) == 0 && (f.isWaiting() || f.isLate()) {
		waits := f.waitReasons()
		blocked := slices.Concat(f.parentReasons(), f.faultReasons(), waits, f.temporalReasons())
		all = append(all, blocked...)
		switch isBlocked := len(blocked)+len(pauses) > 0; {
		case !isBlocked:
			all = append(all, f.slotReasons()...)
		case len(waits) == 0:
			all = append(all, f.limitReasons()...)
		}
	}
	all = append(all, f.remarkReasons()...)
	for i := range all {
		if until := all[i].Until; until != nil && !until.After(f.Now) {
			all[i].Until = nil // the time has passed, and the step has not happened yet
		}
	}
	return all
}

// stateReasons returns the reasons in the state of the resource, unless it only waits for a call of Work.
func (f *facts) stateReasons() []Reason {
	r := f.row
	kind, id := r.ObjectKind, r.ObjectID
	switch r.State {
	case deltatype.ResourceStateSynced:
		text := "it is synced, and kept so"
		if r.DueAt != nil {
			text = "it is synced, until it expires or its row is removed"
		}
		return []Reason{{
			Code: ReasonSynced, Text: text, Since: r.SyncedAt, Until: r.DueAt, Remedy: remedy.SyncNow(kind, id),
		}}
	case deltatype.ResourceStateDegraded:
		return []Reason{f.degradedReason()}
	case deltatype.ResourceStateDeleted:
		if f.isWaiting() {
			return []Reason{{Code: ReasonFinalizing, Text: f.deletionText() + ", and Finalize has not succeeded yet", Since: r.SyncedAt}}
		}
		text := "; its row is removed after its retention"
		if r.DueAt == nil {
			text = "; its row is kept for ever, or until its retention has passed and a complete listing has not listed it since"
		}
		return []Reason{{
			Code: ReasonDeleted, Text: f.deletionText() + text, Since: r.SyncedAt, Until: r.DueAt,
			Remedy: remedy.Revive(kind, id),
		}}
	case deltatype.ResourceStateUnknown:
		return []Reason{{
			Code: ReasonUnknownState, Text: `its state is "unknown", which Delta does not write and does not work`,
			Remedy: remedy.LeaveUnknownState(kind, id),
		}}
	default:
		return nil
	}
}

func (f *facts) degradedReason() Reason {
	r := f.row
	reason := Reason{
		Code: ReasonExhausted, Since: r.AttemptedAt, Until: r.DueAt,
		Text:   fmt.Sprintf("all of its %d attempts have failed; it is tried again slowly, and when an informer lists it", r.MaxAttempts),
		Remedy: remedy.Retry(r.ObjectKind, r.ObjectID),
	}
	switch {
	case !f.Heals:
		reason.Code, reason.Text = ReasonHopeless, "its Work has said that further attempts are hopeless; its row is removed after its retention"
	case f.DegradedRetry != nil && *f.DegradedRetry <= 0:
		reason.Text = fmt.Sprintf("all of its %d attempts have failed; its row is removed after its retention, unless an informer lists it", r.MaxAttempts)
	}
	return reason
}

// deletionText returns why the resource was deleted.
func (f *facts) deletionText() string {
	switch f.row.Cause {
	case deltatype.CauseUnlisted:
		return "it is deleted: a complete listing no longer had it"
	case deltatype.CauseWork:
		return "it is deleted: its Work has said that it is gone"
	default:
		return "it is deleted: a command has said so"
	}
}

// callReasons describes the running call.
func (f *facts) callReasons() []Reason {
	until := f.claimedUntil()
	if until == nil {
		return nil
	}
	what, by := "Work", "a client"
	if f.row.State == deltatype.ResourceStateDeleted && f.isWaiting() {
		what = "Finalize"
	}
	if t := f.temporal; t != nil && t.worker != "" {
		by = "client " + t.worker
	}
	if !f.Worked {
		return []Reason{{
			Code: ReasonEarlierCall, Since: f.row.AttemptedAt, Until: until,
			Text: by + " has claimed it for an earlier generation, or for a call that ignores the end of its context; the claim is renewed until that returns",
		}}
	}
	text := fmt.Sprintf("%s has claimed it, and calls %s; the claim is renewed until that returns", by, what)
	if f.temporal != nil && f.temporal.isBatch {
		text = fmt.Sprintf("%s has claimed it with others of its batch: %s runs, or waits for a slot of that client; the claim is renewed until that returns",
			by, what)
	}
	if how, _ := f.endedWorkflow(); how != "" {
		text += ". Its workflow " + how + " meanwhile"
	}
	all := []Reason{{Code: ReasonInWork, Text: text, Since: f.row.AttemptedAt, Until: until}}
	if f.temporal != nil && f.temporal.isBatch {
		all = append(all, f.rateReasons()...)
	}
	return all
}

// pauseReasons returns the pauses, which also keep settled resources from their next step.
func (f *facts) pauseReasons() (all []Reason) {
	if f.row.Paused {
		all = append(all, Reason{
			Code: ReasonPaused, Text: "it is paused: it is not worked, does not expire, and its row is not removed, until it is resumed",
			Remedy: remedy.ResumeResource(f.row.ObjectKind, f.row.ObjectID),
		})
	}
	if f.KindPaused {
		all = append(all, Reason{Code: ReasonKindPaused, Text: "its kind is paused: none of its resources is worked", Remedy: remedy.ResumeKind(f.row.ObjectKind)})
	}
	return all
}

// parentReasons returns the parent for which it waits.
func (f *facts) parentReasons() []Reason {
	a := f.awaited
	if a == nil {
		return nil
	}
	last := a.Path[len(a.Path)-1]
	reason := Reason{Code: ReasonParent, Text: "it " + a.Describe(), Since: f.row.DueAt, Remedy: remedy.ExplainParent(last.Kind, last.ObjectID)}
	switch {
	case a.IsCycle:
		reason.Code, reason.Remedy = ReasonParentCycle, remedy.BreakParentCycle
	case !a.IsThere:
		reason.Remedy = remedy.InformParent(last.Kind, last.ObjectID)
	}
	return []Reason{reason}
}

// faultReasons returns the problems that somebody must solve.
func (f *facts) faultReasons() (all []Reason) {
	r, t := f.row, f.temporal
	switch {
	case !f.KindKnown:
		all = append(all, Reason{Code: ReasonKindUnknown, Text: fmt.Sprintf("no client has started with the kind %q yet", r.ObjectKind), Remedy: remedy.StartWorker})
	case t != nil && len(t.pollers) == 0:
		all = append(all, Reason{
			Code: ReasonNoWorker, Text: fmt.Sprintf("nobody has polled its task queue %s for %s", t.taskQueue, pollerGrace), Remedy: remedy.StartPolling,
		})
	case t != nil && t.unrouted != "":
		all = append(all, Reason{Code: ReasonNoWorker, Text: t.unrouted + " " + t.taskQueue, Remedy: t.routingRemedy})
	case f.isUnfinalized():
		all = append(all, Reason{
			Code: ReasonNoFinalizer, Text: "no client that runs has a Finalizer for its kind: none takes it", Since: r.DueAt,
			Remedy: remedy.StartFinalizer(r.ObjectKind),
		})
	}
	latest := f.lastError()
	if latest == nil {
		return all
	}
	switch {
	case strings.HasPrefix(latest.Error, workflowNotStarted), strings.HasPrefix(latest.Error, batchNotStarted):
		// A later claim means that the workflow was started.
		if f.AwaitsAttempt && r.DispatchAt != nil && r.DispatchAt.After(f.Now) && (r.AttemptedAt == nil || r.AttemptedAt.Before(latest.At)) {
			all = append(all, Reason{
				Code: ReasonNotStarted, Text: latest.Error, Since: &latest.At, Until: r.DispatchAt, Remedy: remedy.SeeTemporal,
			})
		}
	case f.AwaitsAttempt && r.DueAt != nil && r.DueAt.After(f.Now) && r.State != deltatype.ResourceStateFailed && r.Snoozes == 0:
		all = append(all, Reason{
			Code: ReasonUndecodable, Text: "the latest worker did not understand its stored object: " + latest.Error + ". It is offered to workers again and again",
			Since: &latest.At, Until: r.DueAt, Remedy: remedy.StartUpgrade,
		})
	}
	return all
}

// isUnfinalized reports whether the row waits for Finalize and no dispatcher takes it (CountLate, queries/read.sql).
func (f *facts) isUnfinalized() bool {
	return f.row.State == deltatype.ResourceStateDeleted && f.isDue() && !f.row.Paused && !f.KindPaused &&
		f.row.DispatchAt != nil && f.Now.Sub(*f.row.DispatchAt) > lateGrace
}

// waitReasons returns the waits for a time, the latest first.
func (f *facts) waitReasons() (all []Reason) {
	r := f.row
	until := func(d time.Duration) *time.Time {
		at := f.Now.Add(d).UTC()
		return &at
	}
	if d := f.KindSnoozedFor; d > 0 {
		all = append(all, Reason{
			Code: ReasonKindSnoozed, Text: "Work of its kind has put off all of the kind", Until: until(d), Remedy: remedy.EndSnoozeOfKind(r.ObjectKind),
		})
	}
	if d := f.NamespaceSnoozedFor; d > 0 {
		all = append(all, Reason{
			Code: ReasonNamespaceSnoozed, Text: fmt.Sprintf("Work has put off all of its namespace %q", r.Namespace), Until: until(d),
			Remedy: remedy.EndSnoozeOfNamespace(r.Namespace),
		})
	}
	if isAhead := r.DueAt != nil && r.DueAt.After(f.Now); isAhead && f.AwaitsAttempt {
		switch {
		case r.State == deltatype.ResourceStateFailed:
			all = append(all, Reason{
				Code: ReasonBackoff, Text: fmt.Sprintf("attempt %d of %d has failed, and the next one waits", r.Attempt, r.MaxAttempts), Since: r.AttemptedAt,
				Until: r.DueAt, Remedy: remedy.RetryNow(r.ObjectKind, r.ObjectID),
			})
		case r.State == deltatype.ResourceStateDeleted && r.Attempt > 0 && r.Snoozes == 0:
			all = append(all, Reason{Code: ReasonBackoff, Text: "Finalize has failed, and is tried again", Since: r.AttemptedAt, Until: r.DueAt})
		case r.Snoozes > 0:
			all = append(all, Reason{
				Code: ReasonSnoozed, Text: "its Work has put it off", Since: r.AttemptedAt, Until: r.DueAt,
				Remedy: remedy.EndSnooze(r.ObjectKind, r.ObjectID),
			})
		}
	}
	slices.SortStableFunc(all, func(a, b Reason) int { return b.Until.Compare(*a.Until) })
	return all
}

// temporalReasons returns the problems between Delta and Temporal.
func (f *facts) temporalReasons() (all []Reason) {
	if f.temporalErr != nil {
		reason := Reason{
			Code: ReasonTemporalUnreachable, Remedy: remedy.ReachTemporal,
			Text: "Temporal cannot be asked, so this is without what only Temporal knows: " + strings.TrimPrefix(f.temporalErr.Error(), "delta: "),
		}
		switch {
		case errors.Is(f.temporalErr, ErrOtherInstallation):
			reason.Remedy = remedy.MatchInstallation
		case errors.Is(f.temporalErr, ErrRestoredDatabase):
			reason.Remedy = remedy.DecideRestored
		case errors.Is(f.temporalErr, errStopped):
			reason.Remedy = remedy.AskElsewhere(f.row.ObjectKind, f.row.ObjectID)
		}
		all = append(all, reason)
	}
	if f.Worked {
		all = append(all, Reason{
			Code: ReasonWorkerLost, Since: f.row.ClaimedUntil, Until: f.row.DispatchAt,
			Text: fmt.Sprintf("the worker of attempt %d was lost; the attempt counts, and another worker takes it over", f.row.Attempt),
		})
	}
	if how, at := f.endedWorkflow(); how != "" {
		all = append(all, Reason{
			Code: ReasonWorkflowGone, Text: fmt.Sprintf("its workflow %s %s; a dispatcher starts another one", f.temporal.workflowID, how),
			Since: at, Until: f.row.DispatchAt, Remedy: remedy.StartWorkflow(f.row.ObjectKind, f.row.ObjectID),
		})
	}
	if f.temporal != nil {
		if text := f.temporal.failureText(); text != "" {
			all = append(all, Reason{Code: ReasonWorkflowFailing, Text: text, Remedy: remedy.SeeWorkflow})
		}
	}
	return all
}

// endedWorkflow returns how the row's workflow has ended, and when; empty if it runs, has done its part, or is about to be
// started.
func (f *facts) endedWorkflow() (how string, at *time.Time) {
	t, r := f.temporal, f.row
	if t == nil || t.isRunning() || (!f.Worked && !f.isLeased()) {
		return "", nil
	}
	if how, at = t.wasEnded(); how != "" {
		return how, at
	}
	if t.described == nil && r.AttemptedAt != nil && r.WorkflowID != "" { // a claimed row had a workflow with this id
		return "is gone", nil
	}
	return "", nil
}

// isLeased reports whether a workflow was woken for the row, or waits for its time: the dispatcher's next look is later
// than that.
func (f *facts) isLeased() bool {
	r := f.row
	return r.DispatchAt != nil && r.DispatchAt.After(f.Now) && (r.DueAt == nil || r.DispatchAt.After(*r.DueAt))
}

// remarkReasons returns further facts, which do not decide.
func (f *facts) remarkReasons() (all []Reason) {
	r := f.row
	kind := r.ObjectKind
	if f.StalePasses != nil {
		all = append(all, Reason{
			Code: ReasonStale, Since: db.UTC(f.StaleSince), Remedy: remedy.CorrectStale(kind),
			Text: fmt.Sprintf("the latest %d passes listed an older version of it than the stored one, which was not taken", *f.StalePasses),
		})
	}
	if f.RefusedRule != nil {
		text := "what a listing, or a source, named breaks a rule, and was not taken: "
		if f.RefusedUnkept {
			text = "what a listing, or a source, named breaks a rule, and was not taken, nor kept, so it has to be named again once it is valid: "
		}
		all = append(all, Reason{
			Code: ReasonRefused, Text: text + *f.RefusedRule, Since: db.UTC(f.RefusedSince),
			Remedy: remedy.CorrectRefused(kind),
		})
	}
	if r.State == deltatype.ResourceStateDeleted {
		return all
	}
	decide := remedy.DecideWithheld(kind)
	if r.Shard != "" {
		decide = remedy.DecideWithheldOfShard(kind, r.Shard)
	}
	switch {
	case f.ShardGoneAt != nil:
		reason := Reason{
			Code: ReasonShardGone, Since: db.UTC(f.ShardGoneAt),
			Text: fmt.Sprintf("the controller no longer names its shard %q: nothing lists it, and it is not deleted before somebody has decided", r.Shard),
		}
		if f.WithheldMissing != nil {
			reason.Remedy = decide
		}
		all = append(all, reason)
	case f.WithheldMissing != nil:
		all = append(all, Reason{
			Code: ReasonWithheld, Since: db.UTC(f.WithheldSince), Remedy: decide,
			Text: fmt.Sprintf("the listings leave out %d of %d resources, of which it may be one (%s): none is marked deleted",
				*f.WithheldMissing, *f.WithheldTotal, *f.WithheldReason),
		})
	}
	return all
}
