package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

// Next is what the lifecycle of a resource does after a step.
type Next string

const (
	// NextAttempt is another attempt, after Wait.
	NextAttempt Next = "attempt"
	// NextRetention is expiry or removal, after Wait.
	NextRetention Next = "retention"
	// NextNone ends the lifecycle: the resource rests for good, or is no more.
	NextNone Next = "none"
)

// Step is what a step came to.
type Step struct {
	// Next and Wait say how the lifecycle goes on.
	Next Next          `json:"next"`
	Wait time.Duration `json:"wait,omitempty"`
	// Generation is that of the row after the step.
	Generation int64 `json:"generation,omitempty"`
	// SyncedGeneration is the newest that was synced.
	SyncedGeneration int64 `json:"synced_generation,omitempty"`
	// State is that of the row after the step; empty where there is no row.
	State deltatype.ResourceState `json:"state,omitempty"`
	// Namespace, Attempt, MaxAttempts, SyncCount and Paused are those of the row.
	Namespace   string `json:"namespace,omitempty"`
	Attempt     int    `json:"attempt,omitempty"`
	MaxAttempts int    `json:"max_attempts,omitempty"`
	SyncCount   int64  `json:"sync_count,omitempty"`
	Paused      bool   `json:"paused,omitempty"`
	// AwaitsSlot says that the row waits for a slot of its limit key.
	AwaitsSlot bool `json:"awaits_slot,omitempty"`
	// AwaitsParent says that the row waits for a parent, which was never synced.
	AwaitsParent bool `json:"awaits_parent,omitempty"`
	// Heals says that the resource has degraded, and is tried again after Wait rather than removed.
	Heals bool `json:"heals,omitempty"`
	// Error is the beginning of the latest error of a row that is not synced.
	Error string `json:"error,omitempty"`
	// Local has the next attempt made by a local activity.
	Local bool `json:"local,omitempty"`
	// SearchAttributes is set where the Temporal namespace has Delta's and the ref does not say so: what started the workflow may not know.
	SearchAttributes bool `json:"search_attributes,omitempty"`
	// Elsewhere says that the object did not decode here: the next attempt is for any worker of the task queue.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// HandedOver says that a local activity has not ended the attempt: an ordinary one is to follow at once.
	HandedOver bool `json:"handed_over,omitempty"`
	// failure is set where the attempt has failed: Temporal is to show that.
	failure *failure
}

// shownTo leaves the error out where object ids are kept from Temporal: it may well name one. A failed activity has no text where payloads are
// encoded, either: its message and its step would be stored as they are.
func (s Step) shownTo(ref Ref) Step {
	if ref.HashedID != "" || (ref.Encoded && s.failure != nil) {
		s.Error, s.failure = "", s.failure.withoutText()
	}
	return s
}

// What the errors of a resource say of attempts whose worker died.
const (
	workerLost     = "the worker was lost: it stopped reporting before the attempt ended"
	workerLostLast = "the worker was lost during the last attempt: it stopped reporting before the attempt ended"
)

// Attempt brings the resource one step on: it claims the row, calls Work, and writes what came of it. Two statements,
// with Work between them and in no transaction. Where there is nothing to attempt, it says what the row waits for.
//
// It may run twice, late, or for a row that went on: only the execution that has the claim calls Work, and its write finds its
// claim, or changes nothing. As a local activity it leaves what takes long, or would wait for a slot, to an ordinary one.
func (a *Activities) Attempt(ctx context.Context, ref Ref) (Step, error) {
	if err := a.check(ref.Installation, ref.Kind); err != nil {
		// The row, if this database has one of that name, is waiting for a workflow of its own.
		soon := db.DispatchSoonParams{After: time.Second, Kind: ref.Kind, ObjectID: ref.ObjectID}
		if err := db.New().DispatchSoon(ctx, a.Pool, soon); err != nil {
			return Step{}, fmt.Errorf("dispatching %s anew: %w", ref, err)
		}
		return Step{}, err
	}
	step, err := a.attemptAs(ctx, ref)
	step.Local = a.Pace != nil && a.Pace.IsLocal() && !step.Elsewhere
	step.SearchAttributes = !ref.SearchAttributes && a.HasAttributes != nil && a.HasAttributes()
	if a.HashObjectIDs {
		step.failure = step.failure.withoutText()
	}
	return step, err
}

// attemptAs makes an attempt in the way of a local or an ordinary activity.
func (a *Activities) attemptAs(ctx context.Context, ref Ref) (Step, error) {
	if isLocal(ctx) {
		return a.attemptLocally(ctx, ref)
	}
	defer a.heartbeat(ctx)()
	if one := a.local.join(RunID(ctx)); one != nil {
		return one.await(ctx)
	}
	step, err := a.attempt(ctx, ref)
	return a.local.withMissed(RunID(ctx), step), err
}

func (a *Activities) attempt(ctx context.Context, ref Ref) (Step, error) {
	ref, err := a.resolve(ctx, ref)
	if err != nil {
		return Step{}, err
	}
	e := a.execute(ctx, true)
	defer e.end()
	wanted, got, err := e.reserve(ctx, ref)
	if errors.Is(err, errNoSlot) {
		return handedOver, nil
	}
	if err != nil {
		return Step{}, err
	}
	defer e.reserved.leave()
	var one *claimed
	if wanted {
		if one, got, err = e.takeOne(ctx, ref); err != nil {
			return Step{}, err
		}
	}
	if one == nil {
		if got != nil && got.Resource.IsFinalizing() && isDue(got) && !a.Handler.Finalizes() {
			return Step{}, temporal.NewApplicationError(fmt.Sprintf("this worker's controller for kind %q has no Finalizer", ref.Kind), UnknownKind)
		}
		return a.unclaimed(ctx, ref, got)
	}
	if a.Pace != nil {
		defer a.Pace.Attempted()
	}
	if !one.outcome.lost {
		e.work([]*claimed{one}, func(call func()) { go call() })
	}
	return e.close(ctx, ref, one)
}

// errNoSlot has an ordinary activity wait for a slot, rather than a local one.
var errNoSlot = errors.New("no slot is free")

// reserve takes the slots that Work needs before the row is claimed: one that waits for them is not being worked. Where it would have to wait, it
// looks at the row first, and wanted is false for one that offers no attempt. A local activity does not wait.
func (e *execution) reserve(ctx context.Context, ref Ref) (wanted bool, got *db.GetResourceRow, err error) {
	if ref.Namespace != "" {
		if taken, ok := e.tryEnter(ref.Namespace); ok {
			e.reserved = &reservation{slots: taken, namespace: ref.Namespace}
			return true, nil, nil
		}
	}
	row, found, err := e.get(ctx, ref)
	if err != nil || !found {
		return false, nil, err
	}
	isClaimed := row.Resource.ClaimedUntil != nil && row.Resource.ClaimedUntil.After(row.Now)
	if r := &row.Resource; isClaimed || (!r.IsWorked() && !isDue(&row)) {
		return false, &row, nil
	}
	var taken slots
	var ok bool
	if isLocal(ctx) {
		if taken, ok = e.tryEnter(row.Resource.Namespace); !ok {
			return false, nil, errNoSlot
		}
	} else if taken, ok = e.enter(e.base, row.Resource.Namespace); !ok {
		return false, &row, nil // the worker stops, and the workflow goes on elsewhere
	}
	e.reserved = &reservation{slots: taken, namespace: row.Resource.Namespace}
	return true, nil, nil
}

// isDue reports whether a row waits for an attempt that is due, and may have it.
func isDue(got *db.GetResourceRow) bool {
	r := &got.Resource
	isWaiting := r.State == deltatype.ResourceStateScheduled || r.State == deltatype.ResourceStateExpired || r.State == deltatype.ResourceStateFailed
	return (isWaiting || r.IsFinalizing()) && r.DueAt != nil && !r.DueAt.After(got.Now) && !r.Paused && !got.KindPaused && got.SnoozedFor <= 0 &&
		(r.Attempt < int32(r.MaxAttempts) || r.IsFinalizing())
}

// awaitsSlot reports whether a row waits for a slot of its limit key: a dispatcher wakes it.
func awaitsSlot(r *db.Resource) bool { return r.QueuedAt != nil && r.DispatchAt == nil }

// awaitsOthers reports whether a row waits for a slot of its limit key, or for a parent: a dispatcher wakes it.
func awaitsOthers(r *db.Resource) bool { return awaitsSlot(r) || r.AwaitsParent() }

// takeOne claims the row of a resource; nil, and how the row stands instead. A row that others have locked is waited for, for a while.
func (e *execution) takeOne(ctx context.Context, ref Ref) (*claimed, *db.GetResourceRow, error) {
	end := time.Now().Add(lockedPatience)
	for id, pauses := ref.ID, newLockedPauses(); ; {
		if id != 0 {
			rows, err := e.takeWithSlot(ctx, ref, id)
			if err != nil {
				return nil, nil, err
			}
			// The row that the dispatcher has seen may be gone, and its number may be another's since a failover.
			if len(rows) == 1 && rows[0].worked.ObjectID == ref.ObjectID {
				return rows[0], nil, nil
			}
			if err := e.giveBack(rows); err != nil {
				return nil, nil, err
			}
			if len(rows) == 0 {
				if _, err := e.awaitParents(ctx, ref.Kind, []int64{id}); err != nil {
					return nil, nil, err
				}
			}
		}
		got, found, err := e.get(ctx, ref)
		if err != nil || !found {
			return nil, nil, err
		}
		if got.Resource.ID == id && (!isDue(&got) || awaitsOthers(&got.Resource) || got.Resource.ClaimedUntil != nil || time.Now().After(end) || !sleep(e.base, pauses.Delay())) {
			return nil, &got, nil
		}
		id = got.Resource.ID
	}
}

// takeWithSlot claims a row, if it has a slot of its limit key, when its call may begin.
func (e *execution) takeWithSlot(ctx context.Context, ref Ref, id int64) ([]*claimed, error) {
	sets, err := e.takeSlots(ctx, ref.Kind, []int64{id})
	if err != nil {
		return nil, fmt.Errorf("taking a slot of the limit key of %s: %w", ref, err)
	}
	last := sets[len(sets)-1]
	if len(last.ids) == 0 || !e.awaitCall(last) {
		return nil, nil
	}
	rows, err := e.take(ctx, ref.Kind, last.ids)
	if err != nil {
		return nil, fmt.Errorf("claiming an attempt of %s: %w", ref, err)
	}
	return rows, nil
}

// giveBack closes claims of resources that the execution is not for: their attempts do not count.
func (e *execution) giveBack(rows []*claimed) error {
	for _, one := range rows {
		if !one.outcome.lost {
			one.outcome.Verdict = VerdictReleased
		}
	}
	locked, err := e.write(rows, nil, func(*claimed, *db.WriteOutcomesRow) {})
	e.leave(locked)
	return err
}

// close writes what came of an attempt, and reads off how the lifecycle goes on.
func (e *execution) close(ctx context.Context, ref Ref, one *claimed) (Step, error) {
	var written *db.WriteOutcomesRow
	if !one.tx.committed {
		locked, err := e.repeat([]*claimed{one}, lockedPatience, nil, func(_ *claimed, row *db.WriteOutcomesRow) { written = row })
		if err != nil {
			return Step{}, err
		}
		e.leave(locked)
	}
	if written != nil {
		step := e.stepOf(one.after(written), written.Now)
		step.failure = one.failure(written)
		return step, nil
	}
	got, found, err := e.get(context.WithoutCancel(ctx), ref)
	if err != nil || !found {
		return Step{Next: NextNone}, err
	}
	if one.tx.committed {
		e.wakeKeys([]*claimed{one})
		e.noteSynced(one, got.Resource.SyncCount)
		e.observe(one.observed(got.Resource.State, got.Resource.Row))
		return e.unclaimed(ctx, ref, &got)
	}
	step, err := e.unclaimed(ctx, ref, &got)
	step.failure = one.failure(nil)
	return step, err
}

// unclaimed says what a row that offers no attempt waits for; nil is one that is not there.
func (a *Activities) unclaimed(ctx context.Context, ref Ref, got *db.GetResourceRow) (Step, error) {
	if got == nil {
		return Step{Next: NextNone}, nil
	}
	s, err := a.stepUnclaimed(ctx, ref, got)
	if s.Next == NextAttempt {
		s.Wait = max(s.Wait, hotLoop)
	}
	return s, err
}

const (
	// hotLoop is the least wait after an attempt that found nothing to do, although something is due: the row changed between two
	// statements, say, or is locked by others.
	hotLoop = 100 * time.Millisecond
	// minClaimWait and maxClaimWait bound the wait for the end of a claim. The execution that closes it makes the row due for a dispatcher, if
	// something is due.
	minClaimWait = time.Second
	maxClaimWait = time.Minute
)

// stepUnclaimed is stepOf for a row that this execution could not claim, or has let go of.
func (a *Activities) stepUnclaimed(ctx context.Context, ref Ref, got *db.GetResourceRow) (Step, error) {
	r := &got.Resource
	s := a.stepOf(r, got.Now)
	if s.Next == NextNone {
		return s, nil
	}
	if r.ClaimedUntil != nil {
		open, err := db.New().OpenClaims(ctx, a.Pool, db.OpenClaimsParams{Ids: []int64{r.ID}, WholeKind: true})
		if err != nil {
			return Step{}, fmt.Errorf("reading the claim of %s: %w", ref, err)
		}
		for _, claim := range open {
			s.Wait = max(s.Wait, min(max(claim.ClaimedUntil.Sub(claim.Now), minClaimWait), maxClaimWait))
		}
	}
	if s.Next == NextRetention {
		if isOfBatch(ctx, r) {
			s.Next, s.Wait = NextNone, 0
		}
		return s, nil
	}
	if got.KindPaused {
		// A dispatcher wakes it when its kind is resumed.
		s.Next, s.Paused = NextNone, true
	}
	s.Wait = max(s.Wait, got.SnoozedFor)
	return s, nil
}

// WorkflowID is that of the workflow that the activity is of; empty outside of one.
func WorkflowID(ctx context.Context) string {
	if !activity.IsActivity(ctx) {
		return ""
	}
	return activity.GetInfo(ctx).WorkflowExecution.ID
}

// RunID is that of the run of the workflow that the activity is of; empty outside of one.
func RunID(ctx context.Context) string {
	if !activity.IsActivity(ctx) {
		return ""
	}
	return activity.GetInfo(ctx).WorkflowExecution.RunID
}

// TryOf says which try of the activity this is; 0 outside of one.
func TryOf(ctx context.Context) int32 {
	if !activity.IsActivity(ctx) {
		return 0
	}
	return activity.GetInfo(ctx).Attempt
}

// isOfBatch reports whether another workflow, a batch, attends to the row's rest. That may be so where the kind has no batches any more.
func isOfBatch(ctx context.Context, r *db.Resource) bool {
	id := WorkflowID(ctx)
	return id != "" && r.WorkflowID != nil && *r.WorkflowID != id
}

// maxShownError bounds what of an error enters a history.
const maxShownError = 300

// heals reports whether a resource is tried again after retry because it has degraded, rather than removed: delta_heals in SQL.
func heals(state deltatype.ResourceState, cause *deltatype.Cause, retry time.Duration) bool {
	isHopeless := cause != nil && *cause == deltatype.CauseHopeless
	return state == deltatype.ResourceStateDegraded && !isHopeless && retry > 0
}

// stepOf reads off a row how its lifecycle goes on.
func (a *Activities) stepOf(r *db.Resource, now time.Time) Step {
	s := Step{
		Next:             NextNone,
		Generation:       r.Generation,
		SyncedGeneration: r.SyncedGeneration,
		State:            r.State,
		Namespace:        r.Namespace,
		Attempt:          int(r.Attempt),
		MaxAttempts:      int(r.MaxAttempts),
		SyncCount:        r.SyncCount,
		Paused:           r.Paused,
		AwaitsSlot:       awaitsSlot(r),
		AwaitsParent:     r.AwaitsParent(),
	}
	switch r.State {
	case deltatype.ResourceStateScheduled, deltatype.ResourceStateExpired, deltatype.ResourceStateFailed, deltatype.ResourceStatePending:
		if r.Paused || awaitsOthers(r) {
			return s // a dispatcher wakes it when it is resumed, when the slot is its own, or when its parent was synced
		}
		s.Next = NextAttempt
	case deltatype.ResourceStateSynced, deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted:
		if r.Paused {
			return s // it stays as it is until it is resumed
		}
		if r.IsFinalizing() {
			if awaitsSlot(r) {
				return s
			}
			s.Next = NextAttempt
			break
		}
		if r.DueAt == nil {
			return s
		}
		s.Next = NextRetention
		s.Heals = heals(r.State, r.Cause, a.Rest.DegradedRetry)
	case deltatype.ResourceStateUnknown:
		return s
	}
	if r.DueAt != nil {
		s.Wait = max(r.DueAt.Sub(now), 0)
	}
	if n := len(r.Errors); n > 0 && r.State != deltatype.ResourceStateSynced {
		var latest deltatype.AttemptError
		if json.Unmarshal(r.Errors[n-1], &latest) == nil {
			s.Error = shorten.Text(latest.Error, maxShownError)
			s.Elsewhere = s.Next == NextAttempt && latest.Attempt == 0
		}
	}
	return s
}
