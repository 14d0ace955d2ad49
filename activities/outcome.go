package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// lockedPatience is how long an execution waits for rows that others have locked before it ends and leaves their
	// outcomes to a goroutine.
	lockedPatience = 10 * time.Second
	// MaxExpirySpread is the largest share by which an expiry is shortened.
	MaxExpirySpread = 0.05
	// dispatchAtOnce makes a dispatcher look at a row as soon as its outcome is written.
	dispatchAtOnce = -time.Second
)

// outcomes are the rows of one statement that writes outcomes.
type outcomes struct {
	db.WriteOutcomesParams
	byID map[int64]*claimed
}

// addOutcome decides what is written for an outcome; no other function does. unbatched is for a member of a batch that
// goes on in a single workflow.
func (o *outcomes) addOutcome(e *execution, one *claimed, unbatched bool) error {
	state, delay, counted, snoozed, grace := deltatype.ResourceStateSynced, time.Duration(0), true, false, DueGrace
	var cause deltatype.Cause
	switch verdict := one.outcome.Verdict; {
	case verdict == VerdictSynced:
	case verdict == VerdictFinalized:
		state = deltatype.ResourceStateDeleted
	case verdict == VerdictDeleted:
		state, cause = deltatype.ResourceStateDeleted, deltatype.CauseWork
	case verdict == VerdictReleased, verdict == VerdictWithheld:
		state, counted, grace = deltatype.ResourceStateScheduled, false, dispatchAtOnce
	case verdict == VerdictSnoozed:
		state, counted, snoozed, delay, grace = deltatype.ResourceStateScheduled, false, true, one.outcome.SnoozeFor, e.afterWait(unbatched)
	case verdict == VerdictUndecodable:
		if err := one.encodeUndecodable(e.outcomeTime()); err != nil {
			return err
		}
		state, counted, delay, grace = deltatype.ResourceStateScheduled, false, one.undecodableWait(e.outcomeTime()), e.afterWait(unbatched)
		if one.worked.IsFinalizing() {
			state = one.worked.State
		}
	case one.worked.IsFinalizing():
		state, delay, grace = deltatype.ResourceStateFailed, e.untilFinalized(one), e.afterWait(unbatched)
	case verdict == VerdictDegraded || isLast(one.worked):
		state, cause = deltatype.ResourceStateDegraded, deltatype.CauseExhausted
		if verdict == VerdictDegraded {
			cause = deltatype.CauseHopeless
		}
		if unbatched {
			grace = dispatchAtOnce
		}
	default:
		state, delay, grace = deltatype.ResourceStateFailed, e.retryWait(one.worked), e.afterWait(unbatched)
	}
	if one.encoded == nil && one.outcome.Verdict != VerdictFinalized && state != deltatype.ResourceStateSynced && state != deltatype.ResourceStateScheduled {
		var err error
		if one.encoded, err = encodeError(e.outcomeTime(), int(one.worked.Attempt), one.outcome); err != nil {
			return err
		}
	}
	o.Ids = append(o.Ids, one.worked.ID)
	o.Generations = append(o.Generations, one.worked.Generation)
	o.States = append(o.States, string(state))
	o.Causes = append(o.Causes, string(cause))
	o.Delays = append(o.Delays, delay)
	o.Counted = append(o.Counted, counted)
	o.Snoozed = append(o.Snoozed, snoozed)
	o.Graces = append(o.Graces, grace)
	one.kept = one.outcome.isGoingOn()
	o.Kept = append(o.Kept, one.kept)
	o.Errors = append(o.Errors, string(one.encoded))
	if e.LogChanges {
		carrier := ""
		if one.worked.Carrier != nil {
			carrier = *one.worked.Carrier
		}
		o.Objects, o.Carriers = append(o.Objects, string(one.worked.Object)), append(o.Carriers, carrier)
	}
	o.byID[one.worked.ID] = one
	return nil
}

// retryWait returns the wait after the row's attempt failed.
func (e *execution) retryWait(r *db.Resource) time.Duration {
	if e.rehearsal != nil {
		return e.Retry.Wait(int(r.Attempt))
	}
	return e.Retry.Backoff(int(r.Attempt))
}

// untilFinalized returns the wait after Finalize failed. Finalize is tried until it succeeds: as slowly as a degraded
// resource once it has used as many attempts as Work may, or was hopeless.
func (e *execution) untilFinalized(one *claimed) time.Duration {
	r := one.worked
	if (isLast(r) || one.outcome.Verdict == VerdictDegraded) && e.Retention.DegradedRetry > 0 {
		return e.Retention.DegradedRetry
	}
	return e.retryWait(r)
}

// afterWait returns when a dispatcher looks at a row that waits. A single workflow has a timer, so the dispatcher only
// replaces one that was lost. A batch has no timer for failed members: a few go on in single workflows at once, where
// people see them wait, and many are batched again when they are due.
func (e *execution) afterWait(unbatched bool) time.Duration {
	switch {
	case e.single:
		return DueGrace
	case unbatched:
		return dispatchAtOnce
	default:
		return 0
	}
}

// outcomesOf returns the parameters that write the outcomes of a set.
func (e *execution) outcomesOf(set []*claimed, unbatched func(*claimed) bool) (*outcomes, error) {
	o := &outcomes{byID: make(map[int64]*claimed, len(set))}
	o.Kind = e.Handler.Kind()
	o.Claim, o.Continues, o.Lease, o.MaxErrors, o.Logs = e.claim.id, e.single, DispatchLease, MaxErrors, e.LogChanges
	o.DefaultExpiry, o.DefaultSyncedRetention, o.DegradedRetry = e.Retention.Expiry, e.Retention.SyncedRetention, e.Retention.DegradedRetry
	o.DefaultDegradedRetention, o.DefaultDeletedRetention = e.Retention.DegradedRetention, e.Retention.DeletedRetention
	o.Earlier = e.earlierShare(set)
	for _, one := range set {
		if err := o.addOutcome(e, one, unbatched != nil && unbatched(one)); err != nil {
			return nil, err
		}
	}
	e.warnUndecodable(set)
	return o, nil
}

// earlierShare returns the share by which a synced resource expires earlier, and a degraded one is tried again earlier,
// so that a million resources that were synced together do not expire together. Members of a batch do, because they are
// synced together again.
func (e *execution) earlierShare(set []*claimed) float64 {
	h := fnv.New64a()
	if e.single {
		_, _ = fmt.Fprintf(h, "%s/%s", set[0].worked.Kind, set[0].worked.ObjectID)
	} else {
		_, _ = fmt.Fprint(h, e.workflowID)
	}
	// FNV leaves the upper bits of ids that differ in their last characters alike: the product has all bits in its upper ones.
	const steps, mix = 1 << 16, 0x9e3779b97f4a7c15
	return MaxExpirySpread * float64((h.Sum64()*mix)>>48) / steps
}

// writeOutcomes writes the outcomes of a set, and returns those with rows that others have locked: try them later.
// report is called for each outcome, with nil if the row went on without it.
func (e *execution) writeOutcomes(set []*claimed, unbatched func(*claimed) bool, report func(*claimed, *db.WriteOutcomesRow)) (locked []*claimed, err error) {
	if len(set) == 0 {
		return nil, nil
	}
	o, err := e.outcomesOf(set, unbatched)
	if err != nil {
		return nil, err
	}
	var rows []db.WriteOutcomesRow
	err = e.persistWrite(set, func(ctx context.Context) (err error) {
		rows, err = db.New().WriteOutcomes(ctx, db.Planned(e.Pool, len(set)), o.WriteOutcomesParams)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("writing %d outcomes, the first of attempt %d of %s/%s, generation %d: %w",
			len(set), set[0].worked.Attempt, set[0].worked.Kind, set[0].worked.ObjectID, set[0].worked.Generation, err)
	}
	kept := make([]*claimed, 0, len(rows))
	for i := range rows {
		one := o.byID[rows[i].ID]
		delete(o.byID, rows[i].ID)
		kept = append(kept, one)
		e.reportWritten(one, &rows[i])
		report(one, &rows[i])
	}
	e.closeKept(kept)
	e.wakeKeys(kept)
	if len(o.byID) == 0 {
		return nil, nil
	}
	var missing, generations []int64
	for id, one := range o.byID {
		missing, generations = append(missing, id), append(generations, one.worked.Generation)
	}
	var standing []db.StandingOutcomesRow
	err = e.persistWrite(set, func(ctx context.Context) (err error) {
		standing, err = db.New().StandingOutcomes(ctx, db.Planned(e.Pool, len(missing)), db.StandingOutcomesParams{Ids: missing, Generations: generations, Claim: e.claim.id})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading what became of %d outcomes: %w", len(missing), err)
	}
	kept = kept[:0]
	for i := range standing {
		one := o.byID[standing[i].ID]
		switch {
		case standing[i].Open:
			locked = append(locked, one)
		case one.tx.committed:
			continue
		default:
			row := standingRow(standing[i])
			kept = append(kept, one)
			e.reportWritten(one, row)
			report(one, row)
		}
		delete(o.byID, standing[i].ID)
	}
	// The other rows went on without this execution.
	for _, one := range o.byID {
		if one.outcome.hasFailed() && !one.counted {
			e.observeUnwritten(one, one.outcome) // neither the row nor an event has its error
		}
		kept = append(kept, one)
		report(one, nil)
	}
	e.closeKept(kept)
	e.wakeKeys(kept)
	return locked, nil
}

// standingRow returns a row that holds its outcome already, as the write would have returned it.
func standingRow(r db.StandingOutcomesRow) *db.WriteOutcomesRow {
	return &db.WriteOutcomesRow{
		ID: r.ID, Generation: r.Generation, SyncedGeneration: r.SyncedGeneration, SyncCount: r.SyncCount, SyncedAt: r.SyncedAt, DueAt: r.DueAt,
		DispatchAt: r.DispatchAt, ClaimedUntil: r.ClaimedUntil, State: r.State, Cause: r.Cause, Finalized: r.Finalized, Attempt: r.Attempt, Snoozes: r.Snoozes,
		Paused: r.Paused, Now: r.Now,
	}
}

// reportWritten logs and observes an outcome that was written.
func (e *execution) reportWritten(one *claimed, row *db.WriteOutcomesRow) {
	if one.counted {
		return
	}
	if one.outcome.Verdict == VerdictReleased || one.outcome.Verdict == VerdictWithheld {
		if one.outcome.hasFailed() { // it has panicked, and its claim was lost
			e.observeUnwritten(one, one.outcome)
		}
		return
	}
	e.logOutcome(one, row)
	if one.outcome.Verdict == VerdictSynced {
		e.noteSynced(one, row.SyncCount)
	}
	e.reportObservation(one.makeObservation(row.State, func() (*deltatype.ResourceRow, error) { return one.rowAfter(row).Row() }))
}

// rowAfter returns the row as the write has left it. Columns that the write does not return are as claimed.
func (one *claimed) rowAfter(w *db.WriteOutcomesRow) *db.Resource {
	row := *one.worked
	row.Generation, row.SyncedGeneration, row.SyncCount, row.SyncedAt = w.Generation, w.SyncedGeneration, w.SyncCount, w.SyncedAt
	row.DueAt, row.DispatchAt, row.ClaimedUntil = w.DueAt, w.DispatchAt, w.ClaimedUntil
	row.State, row.Cause, row.Finalized = w.State, w.Cause, w.Finalized
	row.Attempt, row.Snoozes, row.Paused = w.Attempt, w.Snoozes, w.Paused
	if n := len(row.Errors); one.encoded != nil && (n == 0 || !bytes.Equal(row.Errors[n-1], one.encoded)) {
		row.Errors = append(slices.Clone(row.Errors), one.encoded)
		row.Errors = row.Errors[max(len(row.Errors)-MaxErrors, 0):]
	}
	return &row
}

// writeUntilUnlocked writes a set until none of its rows is locked, or the time has passed, and returns those that
// still are.
func (e *execution) writeUntilUnlocked(
	set []*claimed, patience time.Duration, unbatched func(*claimed) bool, report func(*claimed, *db.WriteOutcomesRow),
) (locked []*claimed, err error) {
	end := time.Now().Add(patience)
	for pauses := newLockedPauses(); ; {
		if set, err = e.writeOutcomes(set, unbatched, report); err != nil || len(set) == 0 || time.Now().After(end) {
			return set, err
		}
		if !sleep(e.writes, pauses.Delay()) {
			return set, context.Cause(e.writes)
		}
	}
}

// writeLater writes outcomes in a goroutine that outlives the execution, however long others keep the rows locked. The
// claim is renewed until then.
func (e *execution) writeLater(locked []*claimed) {
	if len(locked) == 0 {
		return
	}
	e.Logger.Warn("rows are locked by other transactions; their outcomes are written when they are not",
		append(e.logFields(locked[0].worked), "resources", len(locked))...)
	beside, cancel := e.untilAbandoned(e.writes)
	copied := *e
	copied.writes, copied.single = beside, false // no workflow goes on with a newer generation, or has a timer
	e.claim.retain()
	e.Claims.runBeside(func() {
		defer cancel()
		defer e.claim.release()
		if _, err := copied.writeUntilUnlocked(locked, time.Duration(1<<62), nil, func(*claimed, *db.WriteOutcomesRow) {}); err != nil {
			e.Logger.Error("outcomes could not be written; Work, or Finalize, runs again when the claim is over",
				append(e.logFields(locked[0].worked), "resources", len(locked), "error", err)...)
			return
		}
		e.dispatchSoon()
	})
}

// persistWrite repeats a write until Postgres takes it, or until some time after a hard stop. Without it Work would run
// once more. No other worker can claim the rows while Postgres is away, and the write is fenced in any case.
func (e *execution) persistWrite(set []*claimed, do func(context.Context) error) error {
	for try := 0; ; try++ {
		err := retryTransient(e.writes, writeTries, do)
		if err == nil || !db.IsTransient(err) || e.writes.Err() != nil {
			return err
		}
		e.Logger.Warn("an outcome cannot be written; it is tried again", append(e.logFields(set[0].worked), "resources", len(set), "error", err)...)
	}
}

// dispatchSoon wakes the kind's dispatcher for a few rows, because rows that failed together should not be leased at
// once.
func (a *Activities) dispatchSoon() {
	if a.Informed != nil {
		a.Informed(a.Handler.Kind(), 1)
	}
}

// isLast reports whether no attempt follows this one.
func isLast(r *db.Resource) bool { return r.Attempt >= int32(r.MaxAttempts) }

// encodeError encodes an entry for the row's errors. JSON text in Postgres may not contain NUL.
func encodeError(at time.Time, attempt int, outcome Outcome) ([]byte, error) {
	return json.Marshal(deltatype.AttemptError{
		At:      at.UTC(),
		Attempt: attempt,
		Error:   shorten.Text(outcome.Error, maxErrorBytes),
		Trace:   shorten.Text(outcome.Trace, maxTraceBytes),
	})
}
