package activities

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Observation says how an attempt or a complete listing has changed a resource. It is reported after the write.
type Observation struct {
	// Outcome is the outcome of the attempt. A listing that left the resource out has a VerdictDeleted and nothing else.
	Outcome
	// Kind and Namespace are the resource's.
	Kind, Namespace string
	// Generation and Attempt are those of the attempt; 0 where a listing has deleted the resource. The row may have
	// gone on to a newer generation.
	Generation int64
	Attempt    int
	// IsFinalizing reports whether Finalize was called, rather than Work.
	IsFinalizing bool
	// IsDegraded reports whether the attempt has degraded the resource.
	IsDegraded bool
	// IsUnwritten reports whether the attempt failed and its outcome was not written, because the resource had gone on
	// without it. The row is as it was claimed.
	IsUnwritten bool
	// Waited is how long the resource had been due when it was claimed, and Lag the time since its generation was made.
	Waited, Lag time.Duration
	// Row returns the row after the change.
	Row func() (*deltatype.ResourceRow, error)
}

// reportObservation calls Observed, if it is set.
func (a *Activities) reportObservation(o Observation) {
	if a.Observed != nil {
		a.Observed(o)
	}
}

// makeObservation returns the observation of an attempt. state is the row's state after it, because a last attempt that
// failed does not degrade a row that went on to a newer generation.
func (one *claimed) makeObservation(state deltatype.ResourceState, row func() (*deltatype.ResourceRow, error)) Observation {
	r := one.worked
	return Observation{
		Outcome: one.outcome, Kind: r.Kind, Namespace: r.Namespace, Generation: r.Generation, Attempt: int(r.Attempt), IsFinalizing: r.IsFinalizing(),
		IsDegraded: state == deltatype.ResourceStateDegraded, Waited: one.waited, Lag: one.generationLag(), Row: row,
	}
}

// generationLag returns the time since the generation was made: until the claim by the database's clock, and since then
// by this machine's, so that a difference between them does not count.
func (one *claimed) generationLag() time.Duration {
	if one.worked.AttemptedAt == nil {
		return 0
	}
	return max(one.worked.AttemptedAt.Sub(one.worked.GenerationAt), 0) + time.Since(one.takenAt)
}

// observedDeletion returns the observation of a resource that a listing left out.
func observedDeletion(r *db.Resource) Observation {
	return Observation{Outcome: Outcome{Verdict: VerdictDeleted}, Kind: r.Kind, Namespace: r.Namespace, Row: r.Row}
}

// PassObservation is the result of a pass of an informer: of one try of a run, or of a failure to name its shards.
type PassObservation struct {
	Kind, Shard string
	// WorkflowID and RunID name the run in Temporal, and Attempt is the try of the activity; empty outside of one.
	WorkflowID, RunID string
	Attempt           int32
	// Trigger says how the run was started.
	Trigger string
	// Took is how long the pass took.
	Took time.Duration
	// Progress has the counts of the pass, New counts the new ones of Scheduled, and Unchanged the unchanged objects. A
	// failed pass has its counts until the failure.
	Progress       InformProgress
	New, Unchanged int
	// Err is the error; nil if the pass succeeded.
	Err error
}

// PassError is the error for Temporal of a pass that failed and was observed. The log has a line for it already, so it
// needs none of the SDK's. It behaves like the error within it; Temporal shows its name as the type.
type PassError struct{ failure error }

// Error implements error.
func (e *PassError) Error() string { return e.failure.Error() }

// Unwrap returns the error that the error within wraps. It skips that error itself, because Temporal would show its
// text twice.
func (e *PassError) Unwrap() error { return errors.Unwrap(e.failure) }

// Is looks at the error within.
func (e *PassError) Is(target error) bool { return errors.Is(e.failure, target) }

// As implements errors.As.
func (e *PassError) As(target any) bool { return errors.As(e.failure, target) }

// observeEnd logs and reports the result of a pass, and returns the error for Temporal.
func (p *pass) observeEnd(ctx context.Context, failure error) error {
	ended := p.makeObservation(ctx, failure)
	if failure == nil {
		p.activities.Logger.Info("a pass of the informer has ended", ended.LogFields()...)
	}
	if p.activities.PassEnded != nil {
		p.activities.PassEnded(ended)
	}
	if failure == nil || p.activities.PassEnded == nil {
		return failure
	}
	return &PassError{failure}
}

// refuseRun reports a run that cannot be made as requested, and returns its error unchanged, because Temporal goes by
// its type. The history and the kind do not show it, because the kind's listings have not failed.
func (p *pass) refuseRun(ctx context.Context, failure error) error {
	if p.activities.PassEnded != nil {
		p.activities.PassEnded(p.makeObservation(ctx, failure))
	}
	return failure
}

// errPassLost is the error of a try that did not end.
var errPassLost = errors.New("its worker was lost: it stopped reporting before the pass ended")

// observeLostTry reports an earlier try of the run that did not end. Its counts are unknown.
func (p *pass) observeLostTry(ctx context.Context, try int32, took time.Duration) {
	if p.activities.PassEnded == nil {
		return
	}
	p.activities.PassEnded(PassObservation{
		Kind: p.in.Kind, Shard: p.in.Options.Shard, WorkflowID: WorkflowID(ctx), RunID: RunID(ctx), Attempt: try,
		Trigger: cmp.Or(p.in.Trigger, TriggerWorkflow), Took: took, Err: errPassLost,
	})
}

// makeObservation returns the observation of the pass, which may have failed half way.
func (p *pass) makeObservation(ctx context.Context, failure error) PassObservation {
	if failure != nil && p.cause != nil {
		failure = p.cause
	}
	return PassObservation{
		Kind: p.in.Kind, Shard: p.in.Options.Shard, WorkflowID: WorkflowID(ctx), RunID: RunID(ctx), Attempt: ActivityTry(ctx),
		Trigger: cmp.Or(p.in.Trigger, TriggerWorkflow), Took: time.Since(p.startedAt),
		Progress: p.progress, New: p.added, Unchanged: p.unchanged, Err: failure,
	}
}

// PassStep is a part of an informer's run.
type PassStep int

const (
	// PassLists is a pass: it lists objects and writes them.
	PassLists PassStep = iota
	// PassNamesShards names the shards, before the passes of a kind with shards.
	PassNamesShards
)

// beginStep begins a step of a run. It returns the step's context, and a function to call at its end.
func (a *Activities) beginStep(ctx context.Context, step PassStep, in InformInput) (context.Context, func(PassObservation)) {
	if a.PassBegins == nil {
		return ctx, func(PassObservation) {}
	}
	return a.PassBegins(ctx, step, in)
}

// observeLost reports a call of user code that was ended, or not begun, because its claim was lost.
func (e *execution) observeLost(cause error, set []*claimed) {
	if !errors.Is(cause, errClaimLost) {
		return
	}
	first := set[0].worked
	e.Logger.Info("a claim was lost while Work, or Finalize, ran or was about to: another worker has the resource, or may have it", append(e.logFields(first),
		"resources", len(set), "claim", e.claim.id)...)
	if e.ClaimsLost != nil {
		e.ClaimsLost(e.Handler.Kind(), first.Namespace, len(set))
	}
}

// observeUnwritten reports a failed attempt with an outcome that was not written.
func (e *execution) observeUnwritten(one *claimed, outcome Outcome) {
	if e.rehearsal != nil {
		return // the caller gets the outcome
	}
	o := one.makeObservation(one.worked.State, one.worked.Row)
	o.Outcome, o.IsUnwritten = outcome, true
	e.reportObservation(o)
}

// observeLostAttempt reports the attempt of a lost worker, before that of this claim. The claim has recorded its error.
func (e *execution) observeLostAttempt(one *claimed, attempt int32) {
	r := one.worked
	e.reportObservation(Observation{
		Outcome: Outcome{Verdict: VerdictFailed, Error: workerLost}, Kind: r.Kind, Namespace: r.Namespace, Generation: r.Generation, Attempt: int(attempt),
		IsFinalizing: r.IsFinalizing(), Row: r.Row,
	})
}
