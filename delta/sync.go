package delta

import (
	"context"
	"errors"
	"fmt"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// ErrNotSynced is wrapped in the error of [Client.Sync] for a resource that settled without being synced: the row that is
// returned with it has the state, and the reason.
var ErrNotSynced = errors.New("the resource was not synced")

// Sync informs an object, and waits until the resource has settled: synced, degraded, deleted or paused, itself or with its
// kind. An unchanged object that is synced needs no wait. Sync returns the row, with [ErrNotSynced] if it is not synced. A
// resource that waits for a parent ([ObjectWithParents]) which will not be synced by itself, for example because it was not
// informed or is degraded, counts as settled; the error names the parent. If ctx ends during the wait for another parent,
// the error names that, too. [The table of states] has all states.
//
// Once the object is informed, the row is never nil: with any other error, such as the end of ctx, it is the row as it was
// informed.
//
// Sync needs a started client with a controller for the kind, which may be another one. The object is informed in any case.
// The sync goes on when ctx ends. All callers share one statement that polls their rows.
//
// [The table of states]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#states
func (c *Client) Sync(ctx context.Context, object Object, opts *InformOpts) (*deltatype.ResourceRow, error) {
	result, err := c.Inform(ctx, object, opts)
	if err != nil {
		return nil, err
	}
	row, answer := result.Resource, awaitAnswer{}
	if !isSyncedRow(row) {
		if answer, err = c.awaiter.await(ctx, row.ID, row.Generation); err != nil {
			return row, fmt.Errorf("delta: sync %s/%s: it is informed; waiting for it: %w", row.ObjectKind, row.ObjectID, err)
		}
		settled, err := c.Get(ctx, row.ObjectKind, row.ObjectID)
		if err != nil {
			return row, fmt.Errorf("delta: sync %s/%s: it has settled; reading it: %w", row.ObjectKind, row.ObjectID, err)
		}
		row = settled
	}
	if row.SyncedGeneration < result.Resource.Generation || row.State == deltatype.ResourceStateDeleted {
		why := string(row.State)
		switch {
		case row.Paused:
			why += ", paused"
		case answer.kindPaused:
			why += ", and its kind is paused"
		case answer.blocked != "":
			why += ": it " + answer.blocked
		}
		if n := len(row.Errors); n > 0 {
			why += ": " + row.Errors[n-1].Error
		}
		return row, fmt.Errorf("delta: sync %s/%s: %w: %s", row.ObjectKind, row.ObjectID, ErrNotSynced, why)
	}
	return row, nil
}

func isSyncedRow(row *deltatype.ResourceRow) bool {
	return row.State == deltatype.ResourceStateSynced && row.SyncedGeneration == row.Generation
}
