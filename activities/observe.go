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
	// Attempt is the attempt's number; 0 where a listing has deleted the resource.
	Attempt int
	// IsFinalizing is true where Finalize was called, rather than Work.
	IsFinalizing bool
	// IsDegraded reports whether the resource has degraded by the attempt.
	IsDegraded bool
	// Waited is for how long the resource had been due when it was claimed, and Lag how long ago its generation was made.
	Waited, Lag time.Duration
	// Row makes the row as it is then.
	Row func() (*deltatype.ResourceRow, error)
}

func (a *Activities) observe(o Observation) {
	if a.Observed != nil {
		a.Observed(o)
	}
}

// observed is the observation of an attempt. state is that of the row after it: a last attempt that failed does not degrade what went on to a newer
// generation meanwhile.
func (one *claimed) observed(state deltatype.ResourceState, row func() (*deltatype.ResourceRow, error)) Observation {
	r := one.worked
	return Observation{
		Outcome: one.outcome, Kind: r.Kind, Namespace: r.Namespace, Attempt: int(r.Attempt), IsFinalizing: r.IsFinalizing(),
		IsDegraded: state == deltatype.ResourceStateDegraded, Waited: one.waited, Lag: one.lag(), Row: row,
	}
}

// lag is how long ago the generation was made: until the claim by the clock of the database, and since then by this machine's, so that a
// difference between them does not count.
func (one *claimed) lag() time.Duration {
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
	ended := p.observed(ctx, failure)
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

// observed makes the observation of the pass, which may have failed half way.
func (p *pass) observed(ctx context.Context, failure error) PassObservation {
	if failure != nil && p.cause != nil {
		failure = p.cause
	}
	return PassObservation{
		Kind: p.in.Kind, Shard: p.in.Options.Shard, WorkflowID: WorkflowID(ctx), RunID: RunID(ctx), Attempt: TryOf(ctx),
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

// observeLost reports a call of user code that was ended because its claim was lost.
func (a *Activities) observeLost(cause error, namespace string, resources int) {
	if a.ClaimsLost != nil && errors.Is(cause, errClaimLost) {
		a.ClaimsLost(a.Handler.Kind(), namespace, resources)
	}
}
