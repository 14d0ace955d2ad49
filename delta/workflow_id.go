package delta

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// WorkflowID returns the id of a resource's own workflow in Temporal, to which signals are sent and queries are put. The resource need
// not be there, and Temporal is not asked.
//
// The id is the prefix, the kind and the object's id, divided by '/'. Bytes of the object's id that are not printable ASCII, spaces, '%'
// and '~' are written as %XX. An id of more than 255 characters is cut, and ends in '~' and a hash of the whole. Where object ids are
// kept from Temporal ([Config].HashObjectIDs), as the database says once a client has started, the object's id is replaced by
// the resource's HashedID.
//
// The resources of a kind with a BatchSize are attended to by the workflows of batches, of which [deltatype.ResourceRow] WorkflowID names
// the latest. A signal to the id that is returned here works for them too, if it is sent with a start.
//
// It returns an *[InputError] where other clients of the database have another prefix.
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
