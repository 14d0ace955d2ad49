package delta

import (
	"context"
	"errors"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// readInstallation reads the installation of the database.
func (e *engine) readInstallation(ctx context.Context) error {
	if err := e.client.encoding.checkPool(ctx); err != nil {
		return err
	}
	installation, err := db.New().GetInstallation(ctx, e.client.pool)
	if err != nil {
		return fmt.Errorf("reading the installation: %w", schemaError(err))
	}
	switch there := installation.SchemaVersion; {
	case there < db.SchemaVersion:
		return ErrNoSchema
	case there > db.SchemaVersion:
		return fmt.Errorf("the database has Delta's schema %d, and this client knows %d: it is older than others. Update it", there, db.SchemaVersion)
	}
	e.installation, e.started = installation.ID, installation.WorkflowIDPrefix != nil
	e.hashIDs.Store(installation.HashObjectIds)
	return e.checkPrefix(installation)
}

// claimDatabase fixes the names of workflows for all clients of the database.
func (e *engine) claimDatabase(ctx context.Context) error {
	hash := e.client.config.HashObjectIDs
	own := e.client.coder.KeyID(e.installation)
	installation, err := db.New().ClaimInstallation(ctx, e.client.pool, db.ClaimInstallationParams{Prefix: e.names.prefix, HashObjectIds: hash, ObjectHashKey: own})
	if err != nil {
		return fmt.Errorf("writing the prefix: %w", schemaError(err))
	}
	e.hashIDs.Store(installation.HashObjectIds)
	if there := installation.HashObjectIds; there != nil && *there != hash {
		return inputError("Config.HashObjectIDs", hash, "must be %t, as it is for other clients of this database: "+namedTwice, *there, "hash_object_ids")
	}
	return errors.Join(e.checkPrefix(installation), e.client.coder.CheckKey(own, installation.ObjectHashKey))
}

func (e *engine) checkPrefix(installation db.Installation) error {
	if there := installation.WorkflowIDPrefix; there != nil && *there != e.names.prefix {
		return inputError("Config.WorkflowIDPrefix", e.names.prefix, "must be %q, which other clients of this database use: "+namedTwice, *there, "workflow_id_prefix")
	}
	return nil
}

// namedTwice explains the problem of clients that name workflows differently, and how to change a column.
const namedTwice = "otherwise a resource would have two workflows. To change it, stop all clients, terminate the workflows, and run: " +
	"UPDATE delta_installation SET %s = NULL"
