package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Errors of a resource for attempts that a dead worker had begun.
const (
	workerLost     = "the worker was lost: it stopped reporting before the attempt ended"
	workerLostLast = "the worker was lost during the last attempt: it stopped reporting before the attempt ended"
)

// Attempt takes the resource one step further: it claims the row, calls Work, and writes the outcome. That is two
// statements, with Work between them and in no transaction. Where no attempt is due, it returns what the row waits for.
//
// It may run twice, late, or for a row that went on: only the execution with the claim calls Work, and its write is
// fenced by that claim. As a local activity it leaves attempts that take long, or would wait for a slot, to an ordinary
// activity.
func (a *Activities) Attempt(ctx context.Context, ref Ref) (Step, error) {
	if err := a.checkTarget(ref.Installation, ref.Kind); err != nil {
		// If this database has a row of that name, it waits for another workflow.
		soon := db.DispatchSoonParams{After: time.Second, Kind: ref.Kind, ObjectID: ref.ObjectID}
		if err := db.New().DispatchSoon(ctx, a.Pool, soon); err != nil {
			return Step{}, fmt.Errorf("dispatching %s again: %w", ref, err)
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

// attemptAs makes an attempt as a local or as an ordinary activity.
func (a *Activities) attemptAs(ctx context.Context, ref Ref) (Step, error) {
	if isLocal(ctx) {
		return a.attemptLocally(ctx, ref)
	}
	if one := a.local.joinAttempt(RunID(ctx)); one != nil {
		defer a.startHeartbeat(ctx)()
		return one.awaitEnd(ctx)
	}
	step, err := a.attemptResource(ctx, ref)
	return a.local.addUnreported(RunID(ctx), step), err
}

// attemptResource makes an attempt. Both kinds of activities run it.
func (a *Activities) attemptResource(ctx context.Context, ref Ref) (Step, error) {
	e := a.beginExecution(ctx, true)
	defer e.end()
	if !isLocal(ctx) {
		defer a.startHeartbeatWith(ctx, e.heartbeatDetails)()
	}
	ref, err := a.resolveRef(ctx, ref)
	if err != nil {
		return Step{}, err
	}
	wanted, got, err := e.reserveSlots(ctx, ref)
	switch {
	case errors.Is(err, errNoSlot):
		return handedOver, nil
	case errors.Is(err, errNoRoom):
		return e.giveBack(ctx, ref, got)
	case err != nil:
		return Step{}, err
	}
	defer e.reserved.release()
	var one *claimed
	if wanted {
		if one, got, err = e.claimOne(ctx, ref); err != nil {
			return Step{}, err
		}
	}
	if one == nil {
		if got != nil && got.Resource.IsFinalizing() && isDue(got) && !a.Handler.Finalizes() {
			return Step{}, temporal.NewApplicationError(fmt.Sprintf("this worker's controller for kind %q has no Finalizer", ref.Kind), UnknownKind)
		}
		step, err := a.stepOfUnclaimed(ctx, ref, got)
		if !wanted && err == nil {
			e.decline(got, step)
		}
		return step, err
	}
	if a.Pace != nil {
		defer a.Pace.Attempted()
	}
	if !one.outcome.lost {
		e.workRows([]*claimed{one}, func(call func()) { go call() })
	}
	return e.closeAttempt(ctx, ref, one)
}

var (
	// errNoSlot makes a local activity leave the wait for a slot to an ordinary one.
	errNoSlot = errors.New("no slot is free")
	// errNoRoom makes an attempt give its resource back to dispatchers.
	errNoRoom = errors.New("too many attempts wait for full namespaces")
)

// reserveSlots takes the slots for Work before the row is claimed, because a row that waits for slots is not being
// worked. If no slot is free it reads the row first, and returns wanted false if no attempt is due. A local activity
// does not wait, and no more wait for full namespaces than leave slots of the worker to others.
func (e *execution) reserveSlots(ctx context.Context, ref Ref) (wanted bool, got *db.GetResourceRow, err error) {
	if ref.Namespace != "" {
		if taken, ok := e.tryAcquireSlots(ref.Namespace); ok {
			e.arrive(ref.Namespace)
			e.reserved = &reservation{slots: taken, namespace: ref.Namespace}
			return true, nil, nil
		}
	}
	row, found, err := e.getResource(ctx, ref)
	if err != nil || !found {
		return false, nil, err
	}
	isClaimed := row.Resource.ClaimedUntil != nil && row.Resource.ClaimedUntil.After(row.Now)
	r := &row.Resource
	if isClaimed || (!r.IsWorked() && !isDue(&row)) || (r.IsFinalizing() && !e.Handler.Finalizes()) {
		return false, &row, nil
	}
	namespace := r.Namespace
	taken, ok := e.tryAcquireSlots(namespace)
	if !ok {
		leave, mayWait := e.queue(namespace)
		if !mayWait {
			if e.Limit != nil {
				e.Limit.Decline(e.Handler.Kind(), namespace)
			}
			return false, &row, errNoRoom
		}
		defer leave()
		if isLocal(ctx) {
			return false, nil, errNoSlot
		}
	}
	e.arrive(namespace)
	if !ok {
		e.noteWaiting(ctx, true)
		taken, ok = e.acquireSlots(e.base, namespace)
		if e.noteWaiting(ctx, false); !ok {
			return false, &row, nil // the worker stops, and the workflow goes on elsewhere
		}
	}
	e.reserved = &reservation{slots: taken, namespace: namespace}
	return true, nil, nil
}

// waitsForSlot is the heartbeat's detail of an attempt that has no claim because it waits for a slot.
const waitsForSlot = "waits for a slot"

func (e *execution) heartbeatDetails() []any {
	if e.waits.Load() {
		return []any{waitsForSlot}
	}
	return nil
}

// noteWaiting notes that the attempt waits for a slot, or does not. A dispatcher must not take it for stuck, so that is
// reported at once.
func (e *execution) noteWaiting(ctx context.Context, is bool) {
	if e.waits.Store(is); is && activity.IsActivity(ctx) {
		activity.RecordHeartbeat(context.WithoutCancel(ctx), waitsForSlot)
	}
}

// queue is NamespaceLimit.Queue, of the execution's kind.
func (e *execution) queue(namespace string) (leave func(), ok bool) {
	if e.Limit == nil {
		return func() {}, true
	}
	return e.Limit.Queue(e.Handler.Kind(), namespace)
}

// lockedRoomWait is the wait for a row that another transaction has locked when it was to be given back.
const lockedRoomWait = time.Second

// giveBack gives a resource back to dispatchers, which bring it again when its namespace has room.
func (e *execution) giveBack(ctx context.Context, ref Ref, got *db.GetResourceRow) (Step, error) {
	given, err := db.New().DispatchAgain(ctx, e.Pool, got.Resource.ID)
	switch {
	case err != nil:
		return Step{}, fmt.Errorf("giving %s back to dispatchers: %w", ref, e.markUnanswered(err))
	case given.IsClaimed:
		return e.stepOfUnclaimed(ctx, ref, got)
	}
	if e.Pace != nil {
		e.Pace.GivenBack()
	}
	step := e.stepOf(&got.Resource, got.Now)
	step.AwaitsRoom = true
	if given.IsLocked { // or gone
		step.Next, step.Wait = NextAttempt, lockedRoomWait
		return step, nil
	}
	e.dispatchSoon()
	step.Next, step.Wait = NextNone, 0
	return step, nil
}

// arrive notes that the resource asks for a slot of its namespace.
func (e *execution) arrive(namespace string) {
	if e.Limit != nil {
		e.Limit.Arrive(e.Handler.Kind(), namespace)
	}
}

// decline notes that the resource needs no slot of its namespace, if a dispatcher has expected that. One that expires asks
// for a slot with its next attempt.
func (e *execution) decline(got *db.GetResourceRow, step Step) {
	if e.Limit != nil && got != nil && step.Next != NextRetention && got.Resource.WantsSlot(got.Now) {
		e.Limit.Decline(e.Handler.Kind(), got.Resource.Namespace)
	}
}

// isDue reports whether a row has an attempt that is due and may begin.
func isDue(got *db.GetResourceRow) bool {
	r := &got.Resource
	isWaiting := r.State == deltatype.ResourceStateScheduled || r.State == deltatype.ResourceStateExpired || r.State == deltatype.ResourceStateFailed
	return (isWaiting || r.IsFinalizing()) && r.DueAt != nil && !r.DueAt.After(got.Now) && !r.Paused && !got.KindPaused && got.SnoozedFor <= 0 &&
		(r.Attempt < int32(r.MaxAttempts) || r.IsFinalizing())
}

// claimOne claims the row of a resource. If it cannot, it returns nil and the row. It waits a while for a row that
// another transaction has locked.
func (e *execution) claimOne(ctx context.Context, ref Ref) (*claimed, *db.GetResourceRow, error) {
	end := time.Now().Add(lockedPatience)
	for id, pauses := ref.ID, newLockedPauses(); ; {
		if id != 0 {
			rows, err := e.claimWithSlot(ctx, ref, id)
			if err != nil {
				return nil, nil, err
			}
			// The row that the dispatcher saw may be gone, and after a failover its id may be another row's.
			if len(rows) == 1 && rows[0].worked.ObjectID == ref.ObjectID {
				return rows[0], nil, nil
			}
			if err := e.releaseClaims(rows); err != nil {
				return nil, nil, err
			}
			if len(rows) == 0 {
				if _, err := e.awaitParents(ctx, ref.Kind, []int64{id}); err != nil {
					return nil, nil, err
				}
			}
		}
		got, found, err := e.getResource(ctx, ref)
		if err != nil || !found {
			return nil, nil, err
		}
		if got.Resource.ID == id && (!isDue(&got) || awaitsOthers(&got.Resource) || got.Resource.ClaimedUntil != nil || time.Now().After(end) || !sleep(e.base, pauses.Delay())) {
			return nil, &got, nil
		}
		id = got.Resource.ID
	}
}

// claimWithSlot claims a row once it has a slot of its limit key and the key's rate allows the call.
func (e *execution) claimWithSlot(ctx context.Context, ref Ref, id int64) ([]*claimed, error) {
	sets, err := e.takeSlots(ctx, ref.Kind, []int64{id})
	if err != nil {
		return nil, fmt.Errorf("taking a slot of the limit key of %s: %w", ref, err)
	}
	last := sets[len(sets)-1]
	if len(last.ids) == 0 || !e.awaitCall(last) {
		return nil, nil
	}
	rows, err := e.claimRows(ctx, ref.Kind, last.ids)
	if err != nil {
		return nil, fmt.Errorf("claiming an attempt of %s: %w", ref, err)
	}
	return rows, nil
}

// releaseClaims closes claims of resources that the execution is not for. Their attempts do not count.
func (e *execution) releaseClaims(rows []*claimed) error {
	for _, one := range rows {
		if !one.outcome.lost {
			one.outcome.Verdict = VerdictReleased
		}
	}
	locked, err := e.writeOutcomes(rows, nil, func(*claimed, *db.WriteOutcomesRow) {})
	e.writeLater(locked)
	return err
}

// closeAttempt writes the outcome of an attempt and returns the next step.
func (e *execution) closeAttempt(ctx context.Context, ref Ref, one *claimed) (Step, error) {
	var written *db.WriteOutcomesRow
	if !one.tx.committed {
		locked, err := e.writeUntilUnlocked([]*claimed{one}, lockedPatience, nil, func(_ *claimed, row *db.WriteOutcomesRow) { written = row })
		if err != nil {
			return Step{}, err
		}
		e.writeLater(locked)
	}
	if written != nil {
		step := e.stepOf(one.rowAfter(written), written.Now)
		step.failure = one.describeFailure(written)
		return step, nil
	}
	got, found, err := e.getResource(context.WithoutCancel(ctx), ref)
	if err != nil || !found {
		return Step{Next: NextNone}, err
	}
	if one.tx.committed {
		e.wakeKeys([]*claimed{one})
		e.noteSynced(one, got.Resource.SyncCount)
		e.reportObservation(one.makeObservation(got.Resource.State, got.Resource.Row))
		return e.stepOfUnclaimed(ctx, ref, &got)
	}
	step, err := e.stepOfUnclaimed(ctx, ref, &got)
	step.failure = one.describeFailure(nil)
	return step, err
}
