package activities

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

// Batch names the members of a batch and their database. It has the ids of their rows, which say nothing of the
// objects, and never change after the start.
type Batch struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	// WorkflowID is the batch's workflow; the rows of its members have it.
	WorkflowID string `json:"workflow_id"`
	// IDs are the ids of the members' rows, in the order of their object ids.
	IDs Numbers `json:"ids"`
	// Hashed reports whether object ids are kept from Temporal.
	Hashed bool `json:"hashed,omitempty"`
}

// BatchStep is the result of a step of a batch.
type BatchStep struct {
	// Resting counts the members that wait in this batch for the end of their retention. The next ones are due after
	// Wait. At zero the batch ends.
	Resting int           `json:"resting"`
	Wait    time.Duration `json:"wait,omitempty"`
	// Claimed counts the members that another execution has claimed, such as one that Temporal took for dead. The batch
	// looks at them again after Wait.
	Claimed int `json:"claimed,omitempty"`
	// Progress counts outcomes of Work, of all steps of an attempt.
	Progress
}

// Progress counts the outcomes of a batch's members.
type Progress struct {
	Synced   int `json:"synced,omitempty"`
	Failed   int `json:"failed,omitempty"`
	Degraded int `json:"degraded,omitempty"`
	Snoozed  int `json:"snoozed,omitempty"`
	Deleted  int `json:"deleted,omitempty"`
	// Withheld counts the members that were not worked because their kind or namespace was snoozed, their limit key was
	// full, or a parent was not synced.
	Withheld int `json:"withheld,omitempty"`
	// Undecodable counts the members that wait for a worker that can decode their objects.
	Undecodable int `json:"undecodable,omitempty"`
	// Left counts outcomes that came too late: the resource went on, or another worker had claimed it.
	Left int `json:"left,omitempty"`
	// Failures has some of the members that failed or degraded.
	Failures []BatchFailure `json:"failures,omitempty"`
}

// BatchFailure is a failed member.
type BatchFailure struct {
	// ID is the object's id, or its hash where object ids are kept from Temporal.
	ID string `json:"id"`
	// Error is the beginning of the error; empty where object ids are kept from Temporal.
	Error string `json:"error,omitempty"`
}

// maxFailures bounds the failures that a history names.
const maxFailures = 20

const (
	// maxClaimSet is how many members are claimed at once, unless one call takes more of them.
	maxClaimSet = 500
	// MaxUnbatched is how many failed members of a batch go on in single workflows. If more fail, the cause is not
	// theirs, and each retry would start as many workflows again.
	MaxUnbatched = 20
)

// AttemptBatch attempts the members of a batch: it claims them in sets, calls Work for each, and writes outcomes in
// sets meanwhile. It may run twice, late, or for members that went on: only the execution with a member's claim calls
// Work. A member with a written outcome is not claimed again.
func (a *Activities) AttemptBatch(ctx context.Context, in Batch) (BatchStep, error) {
	if err := a.checkTarget(in.Installation, in.Kind); err != nil {
		return BatchStep{}, err
	}
	run := &batchRun{execution: a.beginExecution(ctx, false), in: in, ids: in.IDs.All()}
	defer run.end()
	run.workflowID, run.hashed = in.WorkflowID, in.Hashed
	if activity.IsActivity(ctx) && activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &run.progress) // the outcomes of an earlier execution count too
	}
	defer a.startHeartbeatWith(ctx, func() []any { return []any{run.soFar()} })()
	if err := run.attemptMembers(ctx); err != nil {
		return BatchStep{}, err
	}
	if len(run.retentions) == len(run.ids) {
		step := batchStepAfter(run.retentions)
		step.Progress = run.soFar()
		return step, nil
	}
	ctx = context.WithoutCancel(ctx) // a cancelled batch counts the outcomes that were written, too
	step, err := a.readRetention(ctx, in)
	if err == nil {
		err = run.addClaimedByOthers(ctx, &step)
	}
	step.Progress = run.soFar()
	return step, err
}

// batchRun is one execution of AttemptBatch.
type batchRun struct {
	*execution
	in  Batch
	ids []int64

	mu       sync.Mutex
	progress Progress
	// retentions are the times until the members that this execution has written are due, counted from their outcomes.
	// If all members settled, the rows need not be read; one that goes on meanwhile is dispatched by itself.
	retentions []time.Duration
	// failed counts failed members, for MaxUnbatched.
	failed int
}

func (r *batchRun) attemptMembers(ctx context.Context) error {
	results := make(chan *claimed, maxFlush)
	fed := make(chan error, 1)
	go func() {
		defer close(results)
		fed <- r.feedMembers(ctx, results)
	}()
	err := r.collectOutcomes(results)
	if feedErr := <-fed; feedErr != nil && err == nil {
		err = feedErr
	}
	return err
}

// takesMany reports whether the controller gets many resources in one call.
func (a *Activities) takesMany() bool { return a.BatchSize > 1 && a.Handler.WorksBatches() }

// errMembersLeft makes Temporal give the remaining members to another worker.
var errMembersLeft = errStopping("the members that are left go to another one")

// feedMembers claims members and hands them to Work, until none is left or the worker stops.
func (r *batchRun) feedMembers(ctx context.Context, results chan<- *claimed) (err error) {
	stopping := workerStop(ctx)
	stopped := func() bool {
		select {
		case <-stopping:
			return true
		default:
			return r.base.Err() != nil
		}
	}
	giveBack := sync.OnceFunc(r.BatchSlots.takeSlot(r.base))
	f := &feeder{batchRun: r, results: results, stopped: stopped, calls: make(chan func())}
	defer func() {
		giveBack()
		f.workers.Wait()
		close(f.calls)
		if f.released.Load() && err == nil {
			err = errMembersLeft
		}
	}()
	most := maxClaimSet
	if r.takesMany() {
		most = max(most, len(r.ids))
	}
	var missing []int64
	for from := 0; from < len(r.ids); from += most {
		if stopped() {
			return errMembersLeft
		}
		left, err := f.claimAndWork(ctx, r.ids[from:min(from+most, len(r.ids))])
		if err != nil {
			return err
		}
		missing = append(missing, left...)
	}
	if missing, err = r.leaveToOthers(ctx, missing); err != nil {
		return err
	}
	// Some of the missing members were locked by other transactions, and the others went on. A member that is still locked when no other
	// is worked is left to its lease.
	giveBack()
	for pauses := newLockedPauses(); len(missing) > 0 && !stopped(); {
		last := f.working.Load() == 0
		if missing, err = f.claimAndWork(ctx, missing); err != nil {
			return err
		}
		if missing, err = r.leaveToOthers(ctx, missing); err != nil || last {
			return err
		}
		sleep(r.base, pauses.Delay())
	}
	return nil
}

// leaveToOthers leaves members that wait for their parents, or are snoozed, to dispatchers, and returns the others.
func (r *batchRun) leaveToOthers(ctx context.Context, missing []int64) (others []int64, err error) {
	waiting, err := r.awaitParents(context.WithoutCancel(ctx), r.in.Kind, missing)
	if err != nil {
		return nil, err
	}
	r.countWithheld(len(waiting))
	return r.leaveSnoozed(ctx, excludeIDs(missing, waiting))
}

// leaveSnoozed leaves members that were not claimed because they are snoozed to dispatchers, and returns the others.
func (r *batchRun) leaveSnoozed(ctx context.Context, missing []int64) (others []int64, err error) {
	if len(missing) == 0 {
		return nil, nil
	}
	params := db.WithholdMembersParams{Kind: r.in.Kind, Ids: missing, WorkflowID: r.in.WorkflowID}
	var withheld []int64
	err = retryTransient(context.WithoutCancel(ctx), claimTries, func(ctx context.Context) (err error) {
		withheld, err = db.New().WithholdMembers(ctx, db.Planned(r.Pool, len(missing)), params)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("leaving snoozed members of %s to a dispatcher: %w", r.in.WorkflowID, err)
	}
	r.countWithheld(len(withheld))
	return excludeIDs(missing, withheld), nil
}

// countWithheld counts members that were left to dispatchers.
func (r *batchRun) countWithheld(members int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Withheld += members
}

// collectOutcomes writes outcomes in sets until there are no more. It tries locked rows again meanwhile, and they delay
// no others.
func (r *batchRun) collectOutcomes(results <-chan *claimed) error {
	var unwritten []*claimed
	var failure error
	flush := func(set []*claimed) (locked []*claimed) {
		wake := false
		locked, err := r.writeOutcomes(set, r.isUnbatched, func(one *claimed, row *db.WriteOutcomesRow) { wake = r.countMember(one, row) || wake })
		if err != nil {
			failure = err
			unwritten = append(unwritten, set...)
		}
		if wake {
			r.dispatchSoon()
		}
		return locked
	}
	locked := gatherOutcomes(results, flush)
	if len(unwritten) > 0 {
		// Postgres may have refused them because of others in their set.
		set := unwritten
		unwritten, failure = nil, nil
		locked = append(locked, flush(set)...)
	}
	if len(locked) > 0 {
		left, err := r.writeUntilUnlocked(locked, lockedPatience, r.isUnbatched, func(one *claimed, row *db.WriteOutcomesRow) { r.countMember(one, row) })
		if err != nil {
			failure = err
		}
		r.writeLater(left)
		r.dispatchSoon()
	}
	return failure
}

// isUnbatched reports whether a failed member goes on in a single workflow: where people see it wait, or because it may
// take others along.
func (r *batchRun) isUnbatched(one *claimed) bool {
	switch one.outcome.Verdict {
	case VerdictFailed, VerdictDegraded, VerdictSnoozed, VerdictUndecodable:
		if !one.failed { // a locked row comes here several times
			one.failed = true
			r.failed++
			one.unbatched = one.outcome.lost || r.failed <= MaxUnbatched
		}
		return one.unbatched
	default:
		return false
	}
}

// countMember counts and observes the outcome of a member; row is nil if the member went on without it. It reports
// whether a dispatcher has to look at the member.
func (r *batchRun) countMember(one *claimed, row *db.WriteOutcomesRow) (wake bool) {
	wake, isNew := r.addToProgress(one, row)
	if isNew && one.tx.committed { // without the lock, which heartbeats wait for: it may read the row, and calls user code
		r.reportObservation(one.makeObservation(deltatype.ResourceStateSynced, func() (*deltatype.ResourceRow, error) { return r.readRow(one) }))
	}
	return wake
}

// addToProgress counts the outcome of a member, and also reports whether it was not counted before.
func (r *batchRun) addToProgress(one *claimed, row *db.WriteOutcomesRow) (wake, isNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one.counted {
		return row == nil, false
	}
	one.counted = true
	if one.tx.committed {
		r.progress.Synced++
		return true, true
	}
	if row == nil {
		r.progress.Left++
		return true, true
	}
	r.countVerdict(one, row.State)
	rests := row.State == deltatype.ResourceStateSynced || row.State == deltatype.ResourceStateDegraded ||
		(row.State == deltatype.ResourceStateDeleted && (row.Finalized == nil || *row.Finalized))
	if rests && row.Generation == one.worked.Generation && row.DueAt != nil && row.DispatchAt != nil && row.DispatchAt.After(row.Now) {
		r.retentions = append(r.retentions, row.DueAt.Sub(row.Now))
	}
	return row.DispatchAt != nil && !row.DispatchAt.After(row.Now), true
}

// readRow returns the current row of a member.
func (r *batchRun) readRow(one *claimed) (*deltatype.ResourceRow, error) {
	if row, err := r.readClaimed(one.worked); err == nil && row != nil {
		return row.Row()
	}
	return one.worked.Row()
}

// countVerdict counts the verdict of a member with a row in that state. The caller has the lock.
func (r *batchRun) countVerdict(one *claimed, state deltatype.ResourceState) {
	switch p := &r.progress; one.outcome.Verdict {
	case VerdictSynced:
		p.Synced++
	case VerdictSnoozed:
		p.Snoozed++
	case VerdictDeleted, VerdictFinalized:
		p.Deleted++
	case VerdictWithheld:
		p.Withheld++
	case VerdictUndecodable:
		p.Undecodable++
	case VerdictReleased:
	case VerdictFailed, VerdictDegraded:
		if state == deltatype.ResourceStateDegraded {
			p.Degraded++
		} else {
			p.Failed++
		}
		if len(p.Failures) >= maxFailures {
			return
		}
		failure := BatchFailure{ID: one.worked.ObjectID, Error: shorten.Text(one.outcome.Error, maxShownError)}
		if r.hashed {
			failure = BatchFailure{}
			if id := one.worked.HashedID; id != nil {
				failure.ID = *id
			}
		}
		p.Failures = append(p.Failures, failure)
	}
}

// addClaimedByOthers adds to a step the members that other executions have claimed.
func (r *batchRun) addClaimedByOthers(ctx context.Context, step *BatchStep) error {
	open, err := db.New().OpenClaims(ctx, r.Pool, db.OpenClaimsParams{Ids: r.ids, WorkflowID: r.in.WorkflowID})
	if err != nil {
		return fmt.Errorf("reading the claims of %s: %w", r.in.WorkflowID, err)
	}
	for _, other := range open {
		if other.Claim != nil && *other.Claim == r.claim.id {
			continue // its Work goes on, or its row is locked
		}
		wait := min(max(other.ClaimedUntil.Sub(other.Now), minClaimWait), maxClaimWait)
		if step.Claimed == 0 || wait < step.Wait {
			step.Wait = wait
		}
		step.Claimed++
	}
	return nil
}

func (r *batchRun) soFar() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.progress
	p.Failures = append([]BatchFailure(nil), p.Failures...)
	return p
}
