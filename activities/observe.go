package activities

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Observation says how a resource has changed, by an attempt or by a complete listing. It is handed on once that is written.
type Observation struct {
	// Outcome is that of the attempt. A listing that no longer has the resource leaves a VerdictDeleted, and nothing else.
	Outcome
	// Kind and Namespace are those of the resource.
	Kind, Namespace string
	// Generation and Attempt are those of the attempt; 0 where a listing has deleted the resource. The row may have gone on to a newer generation.
	Generation int64
	Attempt    int
	// IsFinalizing is true where Finalize was called, rather than Work.
	IsFinalizing bool
	// IsDegraded reports whether the resource has degraded by the attempt.
	IsDegraded bool
	// IsUnwritten reports that the attempt has failed and its outcome was not written, because the resource had gone on without it. The row is as it was
	// claimed.
	IsUnwritten bool
	// Waited is for how long the resource had been due when it was claimed, and Lag how long ago its generation was made.
	Waited, Lag time.Duration
	// Row makes the row as it is then.
	Row func() (*deltatype.ResourceRow, error)
}

func (a *Activities) reportObservation(o Observation) {
	if a.Observed != nil {
		a.Observed(o)
	}
}

// makeObservation is the observation of an attempt. state is that of the row after it: a last attempt that failed does not degrade what went on to a newer
// generation meanwhile.
func (one *claimed) makeObservation(state deltatype.ResourceState, row func() (*deltatype.ResourceRow, error)) Observation {
	r := one.worked
	return Observation{
		Outcome: one.outcome, Kind: r.Kind, Namespace: r.Namespace, Generation: r.Generation, Attempt: int(r.Attempt), IsFinalizing: r.IsFinalizing(),
		IsDegraded: state == deltatype.ResourceStateDegraded, Waited: one.waited, Lag: one.generationLag(), Row: row,
	}
}

// generationLag is how long ago the generation was made: until the claim by the clock of the database, and since then by this machine's, so that a
// difference between them does not count.
func (one *claimed) generationLag() time.Duration {
	if one.worked.AttemptedAt == nil {
		return 0
	}
	return max(one.worked.AttemptedAt.Sub(one.worked.GenerationAt), 0) + time.Since(one.takenAt)
}

// observedDeletion is the observation of a resource that a listing no longer has.
func observedDeletion(r *db.Resource) Observation {
	return Observation{Outcome: Outcome{Verdict: VerdictDeleted}, Kind: r.Kind, Namespace: r.Namespace, Row: r.Row}
}

// PassObservation says what a pass of an informer came to: one try of a run, or the failure to name its shards.
type PassObservation struct {
	Kind, Shard string
	// WorkflowID and RunID are those of the run in Temporal, and Attempt says which try of it the pass was; empty outside of one.
	WorkflowID, RunID string
	Attempt           int32
	// Trigger says what started the run.
	Trigger string
	// Took is how long it took.
	Took time.Duration
	// Progress has its counts, New is how many of Scheduled were new, Unchanged how many objects were left alone. Those of a pass that has failed
	// are what it came to until then.
	Progress       InformProgress
	New, Unchanged int
	// Err is why it failed; nil if it did not.
	Err error
}

// PassError is the error with which Temporal is told that a pass has failed that was observed: it has a line in the log by that, so it needs none of the
// SDK's. It is as the error within it; Temporal shows its name as the type.
type PassError struct{ failure error }

// Error implements error.
func (e *PassError) Error() string { return e.failure.Error() }

// Unwrap returns what the error within wraps, rather than itself: Temporal would show its text twice.
func (e *PassError) Unwrap() error { return errors.Unwrap(e.failure) }

// Is and As look at the error within.
func (e *PassError) Is(target error) bool { return errors.Is(e.failure, target) }

// As implements errors.As.
func (e *PassError) As(target any) bool { return errors.As(e.failure, target) }

// observeEnd logs what a pass came to, or hands it on, and returns the error that Temporal is given.
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

// refuseRun has a run observed that cannot be made as it was asked for, and returns its error unchanged, because Temporal goes by its type. History and kind do
// not show it: the kind's listings have not failed.
func (p *pass) refuseRun(ctx context.Context, failure error) error {
	if p.activities.PassEnded != nil {
		p.activities.PassEnded(p.makeObservation(ctx, failure))
	}
	return failure
}

// errPassLost is why a try of a run has failed that did not end.
var errPassLost = errors.New("its worker was lost: it stopped reporting before the pass ended")

// observeLostTry reports an earlier try of the run, which did not end. How far it came nobody knows.
func (p *pass) observeLostTry(ctx context.Context, try int32, took time.Duration) {
	if p.activities.PassEnded == nil {
		return
	}
	p.activities.PassEnded(PassObservation{
		Kind: p.in.Kind, Shard: p.in.Options.Shard, WorkflowID: WorkflowID(ctx), RunID: RunID(ctx), Attempt: try,
		Trigger: cmp.Or(p.in.Trigger, TriggerWorkflow), Took: took, Err: errPassLost,
	})
}

// makeObservation makes the observation of the pass, which may have failed half way.
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

// PassStep is a part of a run of an informer.
type PassStep int

const (
	// PassLists is a pass: it lists, and writes what was listed.
	PassLists PassStep = iota
	// PassNamesShards comes before the passes of a kind with shards.
	PassNamesShards
)

// beginStep has a step of a run begin, in the context that it returns. The function is called at its end.
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
	e.Logger.Info("a claim was lost while Work, or Finalize, ran or was about to: another one has the resource, or may have it", append(e.logFields(first),
		"resources", len(set), "claim", e.claim.id)...)
	if e.ClaimsLost != nil {
		e.ClaimsLost(e.Handler.Kind(), first.Namespace, len(set))
	}
}

// observeUnwritten reports that an attempt has failed with an outcome that is not written.
func (e *execution) observeUnwritten(one *claimed, outcome Outcome) {
	if e.rehearsal != nil {
		return // the caller is given the outcome
	}
	o := one.makeObservation(one.worked.State, one.worked.Row)
	o.Outcome, o.IsUnwritten = outcome, true
	e.reportObservation(o)
}

// observeLostAttempt reports the attempt before that of a claim, whose worker was lost: the claim has noted its error.
func (e *execution) observeLostAttempt(one *claimed, attempt int32) {
	r := one.worked
	e.reportObservation(Observation{
		Outcome: Outcome{Verdict: VerdictFailed, Error: workerLost}, Kind: r.Kind, Namespace: r.Namespace, Generation: r.Generation, Attempt: int(attempt),
		IsFinalizing: r.IsFinalizing(), Row: r.Row,
	})
}
