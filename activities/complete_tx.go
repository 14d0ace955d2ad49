package activities

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// ErrSuperseded is returned by CompleteTx for an attempt that is no longer the resource's: it was given to another worker,
// or the resource went on. The transaction should be rolled back.
var ErrSuperseded = errors.New("the attempt is no longer the resource's current one")

// txCompletion marks an attempt synced in a transaction of the user's.
type txCompletion struct {
	activities *Activities
	worked     *db.Resource
	// used tells that it was called, wrote that it wrote: what the transaction has come to, the row tells.
	used, wrote atomic.Bool
}

func (c *txCompletion) complete(ctx context.Context, tx pgx.Tx) error {
	c.used.Store(true)
	_, err := c.activities.writeSynced(ctx, tx, c.worked)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrSuperseded
	}
	if err != nil {
		return fmt.Errorf("completing attempt %d of %s/%s, generation %d: %w",
			countedAttempt(c.worked), c.worked.Kind, c.worked.ObjectID, c.worked.Generation, err)
	}
	c.wrote.Store(true)
	return nil
}

// judged says, by what the row has become, whether the transaction was committed: then the attempt has synced, and whatever Work
// returned came too late. If it was not, what Work said without it stands, except that all is well.
func (c *txCompletion) judged(r *db.Resource, outcome Outcome) (_ Outcome, committed bool) {
	w := c.worked
	if c.wrote.Load() && r.ID == w.ID && r.SyncedGeneration >= w.Generation {
		return Outcome{Verdict: VerdictSynced}, true
	}
	open := r.State == deltatype.ResourceStatePending && r.Generation == w.Generation && r.Attempt == w.Attempt
	if open && outcome.Verdict == VerdictSynced {
		outcome = Outcome{Verdict: VerdictFailed, Error: "Work returned nil after CompleteTx, but the transaction was not committed"}
	}
	return outcome, false
}
