package activities

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
)

// ErrSuperseded is returned by CompleteTx for an attempt that is no longer the resource's: it was given to another worker,
// or the resource went on. The transaction should be rolled back.
var ErrSuperseded = errors.New("the attempt is no longer the resource's current one")

// txCompletion marks an attempt synced, or finalized, in a user's transaction.
type txCompletion struct {
	execution *execution
	worked    *db.Resource
	// used is set when CompleteTx was called, wrote when it has written. The row shows later whether the transaction
	// was committed.
	used, wrote atomic.Bool
	// committed is set when the row shows that the transaction was committed.
	committed bool
	// rehearsed names the transaction in a rehearsal; nil until CompleteTx was called.
	rehearsed atomic.Pointer[rehearsedTx]
}

// completeAttempt writes the outcome. It waits for transactions that have locked the row, as the user's own statements
// do.
func (c *txCompletion) completeAttempt(ctx context.Context, tx pgx.Tx) error {
	c.used.Store(true)
	written, err := c.writeOutcome(ctx, tx)
	if err == nil && !written {
		err = ErrSuperseded
	}
	if err != nil {
		return fmt.Errorf("completing attempt %d of %s/%s, generation %d: %w",
			c.worked.Attempt, c.worked.Kind, c.worked.ObjectID, c.worked.Generation, err)
	}
	c.wrote.Store(true)
	return nil
}

func (c *txCompletion) writeOutcome(ctx context.Context, tx pgx.Tx) (written bool, err error) {
	if r := c.execution.rehearsal; r != nil {
		marked, err := r.markTx(ctx, tx)
		c.rehearsed.Store(marked)
		return err == nil, err
	}
	if err := db.New().LockResource(ctx, tx, c.worked.ID); err != nil {
		return false, err
	}
	// Not the attempt's own claimed row: that one gets its outcome when Work returns.
	one := &claimed{worked: c.worked, outcome: Outcome{Verdict: c.successVerdict()}}
	o, err := c.execution.outcomesOf([]*claimed{one}, nil)
	if err != nil {
		return false, err
	}
	rows, err := db.New().WriteOutcomes(ctx, tx, o.WriteOutcomesParams)
	return len(rows) == 1, err
}

// successVerdict is the verdict of a call that returned nil.
func (c *txCompletion) successVerdict() Verdict {
	if c.worked.IsFinalizing() {
		return VerdictFinalized
	}
	return VerdictSynced
}

// judgeOutcome reads off the row whether the transaction was committed. If it was, the attempt has synced, and the
// result of the function came too late. If it was not, the result stands, unless it is success.
func (c *txCompletion) judgeOutcome(outcome *Outcome, function string) {
	if r := c.execution.rehearsal; r != nil {
		c.decideOutcome(outcome, function, r.isCommitted(c.execution.writes, c.rehearsed.Load()), true)
		return
	}
	w := c.worked
	r, err := c.execution.readClaimed(w)
	if err != nil {
		// If the transaction was committed, nothing is written. If it was not, its effects are lost, which must not pass for a success.
		if outcome.Verdict == c.successVerdict() {
			*outcome = Outcome{Verdict: VerdictFailed, Error: fmt.Sprintf("%s returned nil after CompleteTx, and whether the transaction was committed could not be read: %v", function, err)}
		}
		return
	}
	if r == nil {
		return // fenced: nothing is written where the row is gone
	}
	mine := r.Claim != nil && *r.Claim == c.execution.claim.id
	done := r.SyncedGeneration >= w.Generation
	if w.IsFinalizing() {
		done = r.Generation == w.Generation && r.Finalized != nil && *r.Finalized
	}
	// A row that went on meanwhile takes the outcome too, for the generation before.
	open := mine && r.ClaimedUntil != nil && (r.Generation > w.Generation || r.IsWorked())
	c.decideOutcome(outcome, function, c.wrote.Load() && done && (!mine || r.ClaimedUntil == nil), open)
}

// decideOutcome changes the outcome by whether the transaction was committed. open reports whether the outcome can
// still be written.
func (c *txCompletion) decideOutcome(outcome *Outcome, function string, committed, open bool) {
	switch {
	case committed:
		*outcome, c.committed = Outcome{Verdict: c.successVerdict()}, true
	case open && outcome.Verdict == c.successVerdict():
		*outcome = Outcome{Verdict: VerdictFailed, Error: function + " returned nil after CompleteTx, but the transaction was not committed"}
	}
}
