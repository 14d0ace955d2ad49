package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
)

const (
	// claimPeriods is how many heartbeat timeouts a claim lasts that is not renewed.
	claimPeriods = 2
	// MaxLostInBatch is how many attempts members of a batch lose together with their worker: one whose Work kills the process takes those that
	// were claimed with it along. After that each goes on by itself.
	MaxLostInBatch = 2
	// unlimited is for a resource that is worked by itself: it loses all of its attempts.
	maxLostSingle = 1 << 15
)

// execution is one execution of the attempt activity. It claims rows, has Work called for them, and writes what came of it: for one
// resource or many.
type execution struct {
	*Activities
	// workflowID is that of the workflow; empty outside of one.
	workflowID string
	// single is true for the execution of a resource's own workflow, which may claim the row whatever batch it was leased to, and
	// goes on by itself with a newer generation.
	single bool
	// hashed is true where object ids are kept from Temporal.
	hashed bool
	claim  *claim
	// reserved are the slots of the call of Work, where they were taken before the claim.
	reserved *reservation
	// rehearsal is set where there are no rows: nothing is read or written. See [Activities.Rehearse].
	rehearsal *rehearsal
	// base is the context of user code: it does not end because Temporal is silent.
	base context.Context //nolint:containedctx // of this one execution
	// writes is the context of what is written after user code: it ends only some time after a hard stop.
	writes context.Context //nolint:containedctx // of this one execution
	end    func()
}

// beginExecution begins an execution. End it with its function end.
func (a *Activities) beginExecution(ctx context.Context, single bool) *execution {
	owner := claimOwner{a.Handler.Kind(), WorkflowID(ctx)}
	e := &execution{Activities: a, workflowID: owner.workflowID, single: single, claim: a.Claims.beginClaim(owner, a.claimPeriod())}
	base, unlink := a.untilStopped(withoutSilence(ctx))
	writes, cancel := a.untilAbandoned(ctx)
	e.base, e.writes = base, writes
	e.end = func() {
		unlink()
		cancel()
		e.claim.release()
	}
	return e
}

// claimPeriod is how long a claim lasts without a renewal.
func (a *Activities) claimPeriod() time.Duration {
	return claimPeriods * cmp.Or(a.HeartbeatTimeout, HeartbeatTimeout)
}

// claimed is a row that was claimed, and what became of it.
type claimed struct {
	// worked is the row as it was claimed, at takenAt or later.
	worked  *db.Resource
	takenAt time.Time
	// waited is for how long it had been due.
	waited time.Duration
	task   Task
	// alone has the task, for a call that is of this row only.
	ownTask [1]*Task
	tx      txCompletion
	// outcome is the outcome of Work, or the reason for not calling it.
	outcome Outcome
	// encoded is the error as it is written: once, so that a write that is repeated adds the same entry.
	encoded []byte
	// kept is true when the outcome leaves the claim open, because its call goes on.
	kept bool
	// failed is true once it was counted among those that failed, and unbatched if it goes on in a workflow of its own.
	failed, unbatched bool
	// counted is true once what became of the row was counted and observed.
	counted bool
}

// makeTask makes the claimed row's task.
func (one *claimed) makeTask(e *execution, row *db.Resource, takenAt time.Time) {
	one.worked, one.takenAt = row, takenAt
	one.tx = txCompletion{execution: e, worked: row}
	one.task.CompleteTx, one.ownTask[0] = one.tx.completeAttempt, &one.task
	if row.Carrier != nil {
		one.task.Carrier = *row.Carrier
	}
}

// claimRows claims rows. Those that others have locked at the moment are missing, as are those that are not due, or not to be had.
// What waits for a slot of its limit key is missing, too.
func (e *execution) claimRows(ctx context.Context, kind string, ids []int64) ([]*claimed, error) {
	most := int32(MaxLostInBatch)
	if e.single {
		most = maxLostSingle
	}
	params := db.ClaimResourcesParams{
		Claim: e.claim.id, ClaimFor: e.claim.period, WorkflowID: e.workflowID, WholeKind: e.single, Kind: kind, Ids: ids,
		Lost: workerLost, MaxErrors: MaxErrors, MostLost: most, Finalizes: e.Handler.Finalizes(), Keyed: e.Keys.Limited, Parented: e.HasParents,
	}
	var rows []db.ClaimResourcesRow
	takenAt := time.Now()
	err := retryTransient(ctx, claimTries, func(ctx context.Context) (err error) {
		if rows, err = db.New().ClaimResources(ctx, db.Planned(e.Pool, len(ids)), params); err != nil {
			return e.markUnanswered(err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all, pointers := make([]claimed, len(rows)), make([]*claimed, len(rows))
	for i := range rows {
		one := &all[i]
		one.makeTask(e, &rows[i].Resource, takenAt)
		if at := one.worked.AttemptedAt; at != nil {
			one.waited = max(at.Sub(rows[i].WasDueAt), 0)
		}
		if rows[i].Exhausted {
			why := workerLost
			if isLast(one.worked) {
				why = workerLostLast
			}
			one.outcome = Outcome{Verdict: VerdictFailed, Error: why, lost: true}
		} else if one.task.Row, err = one.worked.Row(); err != nil {
			return nil, err
		}
		if lost := rows[i].LostAttempt; lost > 0 {
			e.observeLostAttempt(one, lost)
		}
		pointers[i] = one
	}
	e.logClaims(pointers)
	return pointers, nil
}

// workRows has Work called for claimed rows of one namespace: for one of them, or for many where the controller takes many.
func (e *execution) workRows(set []*claimed, spawn func(call func())) {
	tasks := set[0].ownTask[:]
	for _, one := range set[1:] {
		tasks = append(tasks, &one.task)
	}
	user := userFunc{"Work", e.workOne}
	switch {
	case set[0].worked.IsFinalizing():
		user = userFunc{"Finalize", e.finalizeOne} // by itself, also where the controller takes many
	case len(set) > 1 || (!e.single && e.takesMany()):
		user = userFunc{"WorkBatch", e.Handler.WorkBatch}
	}
	outcomes := e.callUser(set, tasks, user, spawn)
	for i, one := range set {
		one.outcome = outcomes[i]
		if one.tx.used.Load() {
			one.tx.judgeOutcome(&one.outcome, user.name)
			if one.tx.committed && outcomes[i].hasFailed() {
				e.observeUnwritten(one, outcomes[i])
			}
		}
	}
}

// afterTx is how long the row is asked for whether a transaction of the user's was committed.
const txReadPatience = time.Minute

// readClaimed reads a row that was claimed, again and again where Postgres does not answer; nil where it is gone.
func (e *execution) readClaimed(worked *db.Resource) (*db.Resource, error) {
	ctx, cancel := context.WithTimeout(e.writes, txReadPatience)
	defer cancel()
	var got db.GetResourceRow
	found := false
	err := retryTransient(ctx, writeTries, func(ctx context.Context) (err error) {
		got, found, err = e.getResource(ctx, Ref{Kind: worked.Kind, ObjectID: worked.ObjectID})
		return err
	})
	if err != nil {
		e.Logger.Error("a row could not be read after CompleteTx; what it holds decides", append(e.logFields(worked), "error", err)...)
		return nil, err
	}
	if !found || got.Resource.ID != worked.ID {
		return nil, nil
	}
	return &got.Resource, nil
}

// errUnanswered marks a failure that may come from this client's connection to Postgres.
var errUnanswered = errors.New("Postgres did not answer")

// markUnanswered marks the failure of a statement, if it may come from the connection, and has the client look whether it reaches Postgres.
func (a *Activities) markUnanswered(err error) error {
	if !db.IsTransient(err) {
		return err
	}
	if a.Unanswered != nil {
		a.Unanswered()
	}
	return fmt.Errorf("%w: %w", errUnanswered, err)
}

// unansweredPause is the time after which another worker, which may reach Postgres, has an attempt. It does not grow: a client that does not
// reach Postgres takes no tasks, so none fails for long.
const unansweredPause = time.Second

// soonElsewhere has Temporal give an attempt to another worker soon that this one could not begin.
func soonElsewhere(err error) error {
	if !errors.Is(err, errUnanswered) {
		return err
	}
	return temporal.NewApplicationErrorWithOptions(err.Error(), "delta.Unanswered", temporal.ApplicationErrorOptions{NextRetryDelay: unansweredPause})
}

// getResource reads a resource; found is false where there is none.
func (a *Activities) getResource(ctx context.Context, ref Ref) (row db.GetResourceRow, found bool, err error) {
	row, err = db.New().GetResource(ctx, a.Pool, db.GetResourceParams{Kind: ref.Kind, ObjectID: ref.ObjectID})
	if isNoRows(err) {
		return row, false, nil
	}
	if err != nil {
		return row, false, fmt.Errorf("reading %s: %w", ref, a.markUnanswered(err))
	}
	return row, true, nil
}
