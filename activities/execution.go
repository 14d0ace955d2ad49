package activities

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// MaxLostInBatch is how many attempts members of a batch may lose together with their worker. A member that kills
	// the process takes the attempts of the others along, so after that each goes on in a single workflow.
	MaxLostInBatch = 2
	// maxLostSingle is for a single resource, which loses only its own attempts.
	maxLostSingle = 1 << 15
)

// execution is one execution of an attempt activity, for one resource or many. It claims rows, calls Work for them, and
// writes their outcomes.
type execution struct {
	*Activities
	// workflowID is the workflow's id; empty outside of one.
	workflowID string
	// single reports whether the execution is of a resource's own workflow. That workflow may claim the row whichever
	// batch the row was leased to, and goes on with a newer generation by itself.
	single bool
	// hashed reports whether object ids are kept from Temporal.
	hashed bool
	claim  *claim
	// reserved are the slots of the call of Work, where they were taken before the claim.
	reserved *reservation
	// waits is set while it waits for a slot before its claim.
	waits *atomic.Bool
	// rehearsal is set where there are no rows: nothing is read or written. See [Activities.Rehearse].
	rehearsal *rehearsal
	// base is the context of user code. It does not end when Temporal is silent.
	base context.Context //nolint:containedctx // of this one execution
	// writes is the context of statements after user code. It ends only some time after a hard stop.
	writes context.Context //nolint:containedctx // of this one execution
	end    func()
}

// beginExecution begins an execution. End it with its function end.
func (a *Activities) beginExecution(ctx context.Context, single bool) *execution {
	owner := claimOwner{a.Handler.Kind(), WorkflowID(ctx)}
	e := &execution{Activities: a, workflowID: owner.workflowID, single: single, waits: new(atomic.Bool), claim: a.Claims.beginClaim(owner, a.claimPeriod())}
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

// claimed is a claimed row and its outcome.
type claimed struct {
	// worked is the row as it was claimed, at takenAt or later.
	worked  *db.Resource
	takenAt time.Time
	// waited is how long the row had been due.
	waited time.Duration
	task   Task
	// ownTask has the task, for a call that is for this row only.
	ownTask [1]*Task
	tx      txCompletion
	// outcome is the outcome of Work, or the reason for not calling it.
	outcome Outcome
	// encoded is the encoded error. It is kept so that a repeated write adds the same entry.
	encoded []byte
	// kept reports whether the outcome leaves the claim open, because its call goes on.
	kept bool
	// failed is set once the row was counted as failed, and unbatched if it goes on in a single workflow.
	failed, unbatched bool
	// counted is set once the outcome was counted and observed.
	counted bool
}

// makeTask makes the task of the claimed row.
func (one *claimed) makeTask(e *execution, row *db.Resource, takenAt time.Time) {
	one.worked, one.takenAt = row, takenAt
	one.tx = txCompletion{execution: e, worked: row}
	one.task.CompleteTx, one.ownTask[0] = one.tx.completeAttempt, &one.task
	if row.Carrier != nil {
		one.task.Carrier = *row.Carrier
	}
}

// decodeTask makes the task's row, which has the decoded object. The worked row keeps the stored one.
func (one *claimed) decodeTask(ctx context.Context, coder *db.Coder) (err error) {
	if one.task.Row, err = one.worked.Row(); err != nil {
		return err
	}
	one.task.IsEncoded = deltatype.IsEncoded(one.worked.Object)
	one.task.Undecoded = coder.DecodeRow(ctx, one.task.Row)
	return nil
}

// claimRows claims rows, and returns those that it could claim. It leaves out rows that another transaction has locked,
// that are not due, or that wait for a slot of their limit key.
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
		} else if err := one.decodeTask(ctx, e.Coder); err != nil {
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

// workRows calls Work for claimed rows of one namespace: for one row, or for many where the controller takes many.
func (e *execution) workRows(set []*claimed, spawn func(call func())) {
	tasks := set[0].ownTask[:]
	for _, one := range set[1:] {
		tasks = append(tasks, &one.task)
	}
	user := userFunc{"Work", e.workOne}
	switch {
	case set[0].worked.IsFinalizing():
		user = userFunc{"Finalize", e.finalizeOne} // one by one, even where the controller takes many
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

// txReadPatience is how long an execution tries to read whether a user's transaction was committed.
const txReadPatience = time.Minute

// readClaimed reads a claimed row, and retries while Postgres does not answer; nil where the row is gone.
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
		e.Logger.Error("a row could not be read after CompleteTx; its content decides", append(e.logFields(worked), "error", err)...)
		return nil, err
	}
	if !found || got.Resource.ID != worked.ID {
		return nil, nil
	}
	return &got.Resource, nil
}

// errUnanswered marks a failure that this client's connection to Postgres may have caused.
var errUnanswered = errors.New("Postgres did not answer")

// markUnanswered marks the failure of a statement that the connection may have caused, and makes the client check its
// connection.
func (a *Activities) markUnanswered(err error) error {
	if !db.IsTransient(err) {
		return err
	}
	if a.Unanswered != nil {
		a.Unanswered()
	}
	return fmt.Errorf("%w: %w", errUnanswered, err)
}

// unansweredPause is the time after which another worker, which may reach Postgres, gets an attempt. It does not grow,
// because a client that does not reach Postgres takes no tasks.
const unansweredPause = time.Second

// soonElsewhere makes Temporal give an attempt that this worker could not begin to another worker soon.
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
