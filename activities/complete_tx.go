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

// txCompletion marks an attempt synced, or finalized, in a transaction of the user's.
type txCompletion struct {
	execution *execution
	worked    *db.Resource
	// used is set when it was called, wrote when it has written: whether the transaction was committed can be read off the row.
	used, wrote atomic.Bool
	// committed is set when the row shows that the transaction was committed.
	committed bool
	// rehearsed says, in a rehearsal, which transaction it was; nil until it was called with one.
	rehearsed atomic.Pointer[rehearsedTx]
}

// completeAttempt writes the outcome. It waits for others that have locked the row, as any statement of the user's in this transaction does.
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
	// Its own: the one of the call is Work's.
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

// judgeOutcome says, by what the row has become, whether the transaction was committed: then the attempt has synced, and whatever the function
// returned came too late. If it was not, what it said without the transaction stands, except that all is well.
func (c *txCompletion) judgeOutcome(outcome *Outcome, function string) {
	if r := c.execution.rehearsal; r != nil {
		c.decideOutcome(outcome, function, r.isCommitted(c.execution.writes, c.rehearsed.Load()), true)
		return
	}
	w := c.worked
	r, err := c.execution.readClaimed(w)
	if err != nil {
		// Nothing is written where it was committed. Where it was not, its effects are lost, and that must not pass for a success.
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
	// Of a row that went on meanwhile the outcome is written as well, as that of the generation before.
	open := mine && r.ClaimedUntil != nil && (r.Generation > w.Generation || r.IsWorked())
	c.decideOutcome(outcome, function, c.wrote.Load() && done && (!mine || r.ClaimedUntil == nil), open)
}

// decideOutcome has the outcome follow from whether the transaction was committed. open is an attempt whose outcome can still be written.
func (c *txCompletion) decideOutcome(outcome *Outcome, function string, committed, open bool) {
	switch {
	case committed:
		*outcome, c.committed = Outcome{Verdict: c.successVerdict()}, true
	case open && outcome.Verdict == c.successVerdict():
		*outcome = Outcome{Verdict: VerdictFailed, Error: function + " returned nil after CompleteTx, but the transaction was not committed"}
	}
}
