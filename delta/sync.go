package delta

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

// ErrNotSynced is wrapped in the error of [Client.Sync] for a resource that settled without being synced: the row that is
// returned with it says how it stands, and why.
var ErrNotSynced = errors.New("the resource was not synced")

// Sync informs an object, and waits until the resource has settled: synced, degraded, deleted or paused. An object that did
// not change and is synced needs no wait. It returns the row, with [ErrNotSynced] for one that is not synced.
//
// It needs a Temporal that can be reached, and some client that has a controller for the kind and was started; it need not
// be this one. The object is informed in any case. The resource goes on to be synced when ctx ends.
func (c *Client) Sync(ctx context.Context, object Object, opts *InformOpts) (*deltatype.ResourceRow, error) {
	result, err := c.Inform(ctx, object, opts)
	if err != nil {
		return nil, err
	}
	row := result.Resource
	if !isSettled(row) {
		e, err := c.reachFor(ctx, "sync "+row.Kind+"/"+row.ObjectID+": it is informed; waiting for it")
		if err != nil {
			return row, err
		}
		if err := e.awaitGeneration(ctx, row); err != nil {
			return row, fmt.Errorf("delta: sync %s/%s: it is informed; waiting for it: %w", row.Kind, row.ObjectID, err)
		}
		if row, err = c.Get(ctx, row.Kind, row.ObjectID); err != nil {
			return nil, err
		}
	}
	if row.SyncedGeneration < result.Resource.Generation || row.State == deltatype.ResourceStateDeleted {
		why := string(row.State)
		if row.Paused {
			why += ", paused"
		}
		if n := len(row.Errors); n > 0 {
			why += ": " + row.Errors[n-1].Error
		}
		return row, fmt.Errorf("delta: sync %s/%s: %w: %s", row.Kind, row.ObjectID, ErrNotSynced, why)
	}
	return row, nil
}

// hashedID is what Temporal knows a resource by; the row has it from now on.
func (c *Client) hashedID(ctx context.Context, kind, objectID string) (string, error) {
	hash, err := db.New().HashResourceID(ctx, c.pool, db.HashResourceIDParams{Kind: kind, ObjectID: objectID})
	if err != nil || hash == nil {
		return "", fmt.Errorf("hashing the object's id: %w", err)
	}
	return *hash, nil
}

// hashesIDs tells whether the clients of this database name workflows by hashes of ids.
func (e *engine) hashesIDs(ctx context.Context) (bool, error) {
	if e.hashIDs.Load() == nil {
		installation, err := db.New().GetInstallation(ctx, e.client.pool)
		if err != nil {
			return false, fmt.Errorf("reading the installation: %w", err)
		}
		e.hashIDs.Store(installation.HashObjectIds)
	}
	if hashed := e.hashIDs.Load(); hashed != nil {
		return *hashed, nil
	}
	return e.client.config.HashObjectIDs, nil
}

func isSettled(row *deltatype.ResourceRow) bool {
	return row.State == deltatype.ResourceStateSynced && row.SyncedGeneration == row.Generation
}

// awaitGeneration waits, with an update that starts the workflow if it does not run, until the generation has settled.
func (e *engine) awaitGeneration(ctx context.Context, row *deltatype.ResourceRow) error {
	ref := activities.Ref{Installation: e.installation, Kind: row.Kind, ObjectID: row.ObjectID, SearchAttributes: e.attributes.Load()}
	hashed, err := e.hashesIDs(ctx)
	if err != nil {
		return err
	}
	if hashed {
		hash, err := e.client.hashedID(ctx, row.Kind, row.ObjectID)
		if err != nil {
			return err
		}
		ref.ObjectID, ref.HashedID = "", hash
	}
	start := e.temporal.NewWithStartWorkflowOperation(
		startOptions(e.names, ref, row.Namespace, row.State, row.Priority), workflows.ResourceName, ref)
	handle, err := e.temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateName:   workflows.SyncUpdate,
			Args:         []any{workflows.SyncRequest{Generation: row.Generation}},
			WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err != nil {
		return err
	}
	var step activities.Step
	return handle.Get(ctx, &step)
}
