package delta

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// WorkflowID returns the id of a resource's single workflow in Temporal, for signals and queries. The resource need not
// exist, and Temporal is not asked.
//
// The id is the prefix, the kind and the object's id, separated by '/'. In the object's id, bytes that are not printable
// ASCII, spaces, '%' and '~' are written as %XX. An id of more than 255 characters is cut, and ends in '~' and a hash of
// the whole. If object ids are kept out of Temporal ([Config].HashObjectIDs), as the database has it once a client has
// started, the resource's HashedID replaces the object's id.
//
// Resources of a kind with a BatchSize are worked by the workflows of batches: [deltatype.ResourceRow] WorkflowID names the
// latest. A signal to the returned id works for them too, if it is sent with a start.
//
// It returns an *[InputError] if other clients of the database have another prefix.
func (c *Client) WorkflowID(ctx context.Context, kind, objectID string) (string, error) {
	err := checkName("kind", kind)
	if err == nil && objectID == "" {
		err = inputError("object id", objectID, "must not be empty")
	}
	if err == nil {
		err = checkText("object id", objectID)
	}
	if err != nil {
		return "", fmt.Errorf("delta: workflow id: %w", err)
	}
	e := &engine{client: c, names: c.temporalNames()}
	if err := e.readInstallation(ctx); err != nil {
		return "", fmt.Errorf("delta: workflow id: %w", err)
	}
	hash := c.config.HashObjectIDs
	if decided := e.hashIDs.Load(); decided != nil {
		hash = *decided
	}
	if !hash {
		return e.names.resourceWorkflowID(kind, objectID), nil
	}
	hashed, err := db.New().HashID(ctx, c.pool, db.HashIDParams{Kind: kind, ObjectID: objectID})
	if err != nil {
		return "", fmt.Errorf("delta: workflow id of %s/%s: %w", kind, objectID, schemaError(err))
	}
	return e.names.resourceWorkflowID(kind, hashed), nil
}
