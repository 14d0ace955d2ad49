package activities

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// awaitParents marks rows that could not be claimed because a parent was never synced, and returns them. They leave
// their batch or workflow until a dispatcher wakes them. The claim decides whether a row may be worked, so this follows
// a claim, and a row with synced parents costs no statement.
func (e *execution) awaitParents(ctx context.Context, kind string, ids []int64) (waiting []int64, err error) {
	if !e.HasParents || len(ids) == 0 {
		return nil, nil
	}
	params := db.AwaitParentsParams{Kind: kind, Ids: ids}
	err = retryTransient(ctx, claimTries, func(ctx context.Context) (err error) {
		if waiting, err = db.New().AwaitParents(ctx, db.Planned(e.Pool, len(ids)), params); err != nil {
			return e.markUnanswered(err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("having %d resources of kind %s wait for their parents: %w", len(ids), kind, err)
	}
	if len(waiting) > 0 {
		e.dispatchSoon() // it looks at parents only while some are waited for
	}
	return waiting, nil
}

// noteSynced calls SyncedFirst if a resource was synced for the first time.
func (e *execution) noteSynced(one *claimed, syncs int64) {
	if syncs == 1 && e.SyncedFirst != nil {
		e.SyncedFirst(one.worked.Kind, one.worked.ObjectID)
	}
}
