package activities

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// A rehearsal is an attempt for rows that are in no table, for tests of controllers. It calls user code and decides the
// outcome as an attempt does. Only the claim and the statement that writes the outcome are missing: foreseeOutcome has
// the effect of that statement on a row, and a test compares the two.
type rehearsal struct {
	now time.Time
	// conn is where the transactions of CompleteTx are; nil where there are none.
	conn db.DBTX
	// failed is why it is unknown whether a transaction was committed.
	failed error
}

// RehearseInput is the input of a rehearsal.
type RehearseInput struct {
	// Rows are of one namespace, as a claim would have left them. Their IDs differ.
	Rows []*db.Resource
	// Together calls WorkBatch. Otherwise there is one row, and Work is called, or Finalize if the row is finalizing.
	Together bool
	// Now is the time of outcomes.
	Now time.Time
	// Conn is the database in which the transactions of CompleteTx begin; nil for none.
	Conn db.DBTX
}

// Rehearsed is the result of a rehearsal for one row.
type Rehearsed struct {
	// Outcome is that of user code.
	Outcome Outcome
	// Counted is false for an attempt that does not count.
	Counted bool
	// Row is the row as the outcome would leave it. DueAt is set only if another attempt follows, because expiry and
	// retention are settings in the database.
	Row *deltatype.ResourceRow
	// Decoded is the handler's resource for the row; nil where the row did not decode.
	Decoded any
}

// Rehearse calls user code for rows that are in no table, and returns what would become of them. Waits have no spread.
// It returns an error if Conn does not answer whether a transaction was committed.
func (a *Activities) Rehearse(ctx context.Context, in RehearseInput) ([]Rehearsed, error) {
	e := a.beginExecution(ctx, !in.Together)
	defer e.end()
	e.rehearsal = &rehearsal{now: in.Now, conn: in.Conn}
	set := make([]*claimed, len(in.Rows))
	for i, row := range in.Rows {
		set[i] = &claimed{}
		set[i].makeTask(e, row, time.Now())
		if err := set[i].decodeTask(ctx, a.Coder); err != nil {
			return nil, err
		}
	}
	e.workRows(set, func(call func()) { go call() })
	if e.rehearsal.failed != nil {
		return nil, e.rehearsal.failed
	}
	o, err := e.outcomesOf(set, nil)
	if err != nil {
		return nil, err
	}
	all := make([]Rehearsed, len(set))
	for i, one := range set {
		all[i] = Rehearsed{Outcome: one.outcome, Counted: o.Counted[i], Decoded: one.task.Decoded}
		if all[i].Row, err = one.rowAfter(e.foreseeOutcome(o, i)).Row(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// outcomeTime returns the time of outcomes.
func (e *execution) outcomeTime() time.Time {
	if e.rehearsal != nil {
		return e.rehearsal.now
	}
	return time.Now()
}

// foreseeOutcome returns a row of the current generation as WriteOutcomes (queries/outcome.sql) would write it.
func (e *execution) foreseeOutcome(o *outcomes, i int) *db.WriteOutcomesRow {
	r, now := o.byID[o.Ids[i]].worked, e.rehearsal.now
	state, finalizing := deltatype.ResourceState(o.States[i]), r.IsFinalizing()
	w := &db.WriteOutcomesRow{
		ID: r.ID, Generation: r.Generation, SyncedGeneration: r.SyncedGeneration, SyncCount: r.SyncCount, SyncedAt: r.SyncedAt,
		State: r.State, Cause: r.Cause, Attempt: r.Attempt, Snoozes: r.Snoozes, Paused: r.Paused, Now: now,
	}
	isDeleted := state == deltatype.ResourceStateDeleted
	isToBeFinalized := isDeleted && !finalizing && e.Handler.Finalizes()
	if finalizing || isToBeFinalized {
		finalized := isDeleted && finalizing
		w.Finalized = &finalized
	}
	if !finalizing {
		w.State = state
		if cause := deltatype.Cause(o.Causes[i]); cause != "" {
			w.Cause = &cause
		}
		if state == deltatype.ResourceStateSynced {
			w.Cause = nil
		}
	}
	switch {
	case isToBeFinalized:
		w.Attempt = 0
	case !o.Counted[i]:
		w.Attempt = max(r.Attempt-1, 0)
	}
	if o.Snoozed[i] {
		w.Snoozes++
	}
	if (isDeleted || state == deltatype.ResourceStateSynced) && r.SyncedGeneration < r.Generation {
		w.SyncedGeneration, w.SyncedAt = r.Generation, &now
		if !isDeleted {
			w.SyncCount++
		}
	}
	switch {
	case state == deltatype.ResourceStateFailed, state == deltatype.ResourceStateScheduled:
		due := now.Add(o.Delays[i])
		w.DueAt = &due
	case isToBeFinalized:
		w.DueAt = &now
	case canHeal(state, w.Cause, o.DegradedRetry):
		due := now.Add(o.DegradedRetry)
		w.DueAt = &due
	}
	return w
}

// rehearsedTx is a transaction in which CompleteTx was called.
type rehearsedTx struct{ xid, mark string }

var errNoRehearsedDatabase = errors.New("this is a rehearsal without a database: name the one in which Work begins its transactions, " +
	"a pool, a connection or a transaction, in WorkOpts.DB")

// markTx marks a transaction, by its id and by a setting that a savepoint undoes, so that isCommitted can check it
// later.
func (r *rehearsal) markTx(ctx context.Context, tx pgx.Tx) (*rehearsedTx, error) {
	if r.conn == nil {
		return nil, errNoRehearsedDatabase
	}
	marked := &rehearsedTx{mark: "delta.rehearsed_" + rand.Text()}
	err := tx.QueryRow(ctx, "SELECT pg_current_xact_id()::text FROM set_config($1, 'yes', TRUE)", marked.mark).Scan(&marked.xid)
	if err != nil {
		return nil, err
	}
	return marked, nil
}

// isCommitted reports whether a transaction was committed or, within a transaction that goes on, its savepoint
// released.
func (r *rehearsal) isCommitted(ctx context.Context, tx *rehearsedTx) (committed bool) {
	if tx == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, txReadPatience)
	defer cancel()
	err := r.conn.QueryRow(ctx, `SELECT coalesce(pg_xact_status($1::text::xid8) = 'committed', FALSE)
		OR coalesce(current_setting($2, TRUE) = 'yes', FALSE)`, tx.xid, tx.mark).Scan(&committed)
	if err != nil {
		r.failed = errors.Join(r.failed, fmt.Errorf("asking WorkOpts.DB whether the transaction of CompleteTx was committed: %w", err))
	}
	return committed
}
