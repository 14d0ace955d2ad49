package delta

import (
	"context"
	"errors"
	"fmt"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// ErrNotSynced is wrapped in the error of [Client.Sync] for a resource that settled without being synced: the row that is
// returned with it says how it stands, and why.
var ErrNotSynced = errors.New("the resource was not synced")

// Sync informs an object, and waits until the resource has settled: synced, degraded, deleted or paused, with its kind perhaps. An object that did
// not change and is synced needs no wait. It returns the row, with [ErrNotSynced] for one that is not synced. One that waits for a parent
// ([ObjectWithParents]) which is not on its way, because it was not informed or is degraded, say, counts as settled: the error says which. If ctx ends while it waits
// for a parent that is on its way, the error says that, too.
//
// Once the object is informed, the row is never nil: with any other error, such as the end of ctx, it is the row as it was informed.
//
// It needs some client that has a controller for the kind and was started; it need not be this one. The object is informed in any
// case. The resource goes on to be synced when ctx ends. Any number of callers share one statement that looks at their rows.
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
