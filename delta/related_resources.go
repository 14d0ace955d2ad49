package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// PreviousObject is the version of a resource's object before the stored one. [Client.PreviousObject] finds it.
type PreviousObject struct {
	// Object is JSON; nil if the version is unknown: the stored one is the first, or the kind had no log, or the log does
	// not reach back to it.
	Object json.RawMessage
	// IsSynced is set if Object is the latest synced version, and the stored object has not been synced yet. Otherwise
	// Object is the version that was synced before the stored one.
	IsSynced bool
	// Until is when a later version was written to the log; nil if IsSynced, and if Object is nil.
	Until *time.Time
	// IsLogged reports whether the kind has a log of changes ([ObjectSettings].Log) now.
	IsLogged bool
}

// PreviousObject returns the version of a resource's object before the stored one, if it is in the log of changes: it reads
// the latest 100 entries of the resource. It returns [ErrNotFound] if there is no resource. The client need not be started.
func (c *Client) PreviousObject(ctx context.Context, kind, objectID string) (*PreviousObject, error) {
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: previous object: %w", err)
	}
	row, err := db.New().PreviousObject(ctx, c.pool, db.PreviousObjectParams{Kind: kind, ObjectID: objectID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("delta: previous object of %s/%s: %w", kind, objectID, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("delta: previous object of %s/%s: %w", kind, objectID, schemaError(err))
	}
	previous := &PreviousObject{IsLogged: row.IsLogged}
	if err := c.setPrevious(ctx, kind, objectID, row, previous); err != nil {
		return nil, fmt.Errorf("delta: previous object of %s/%s: %w", kind, objectID, schemaError(err))
	}
	return previous, nil
}

// maxPreviousVersions is how many versions of an encoded object are decoded: each inform with the same object may have
// encoded it again.
const maxPreviousVersions = 100

// setPrevious sets the version before the stored one. Versions that do not decode are unknown.
func (c *Client) setPrevious(ctx context.Context, kind, objectID string, row db.PreviousObjectRow, previous *PreviousObject) error {
	stored := c.decodeOrNil(ctx, kind, objectID, row.Object)
	if stored == nil {
		return nil
	}
	if row.IsSynced {
		if synced := c.decodeOrNil(ctx, kind, objectID, row.SyncedObject); synced != nil && !haveSameContent(synced, stored) {
			previous.Object, previous.IsSynced = synced, true
			return nil
		}
	}
	most := int32(1)
	if c.coder.Encodes() {
		most = maxPreviousVersions
	}
	versions, err := db.New().PreviousVersions(ctx, c.pool, db.PreviousVersionsParams{Kind: kind, ObjectID: objectID, Object: row.Object, Most: most})
	for _, version := range versions {
		if before := c.decodeOrNil(ctx, kind, objectID, version.Before); before != nil && !haveSameContent(before, stored) {
			previous.Object, previous.Until = before, db.UTC(&version.At)
			return nil
		}
	}
	return err
}

// decodeOrNil decodes a version of an object; nil if it does not decode.
func (c *Client) decodeOrNil(ctx context.Context, kind, objectID string, stored []byte) json.RawMessage {
	object, err := c.decodeVersion(ctx, kind, objectID, stored)
	if err != nil {
		return nil
	}
	return object
}

// haveSameContent reports whether two JSON texts have the same hash.
func haveSameContent(a, b []byte) bool {
	one, errOne := hashJSON(a)
	other, errOther := hashJSON(b)
	return errOne == nil && errOther == nil && bytes.Equal(one, other)
}

// RelatedResources are the resources that are related to one. [Client.RelatedResources] reads them.
type RelatedResources struct {
	// Parents are those of its object ([ObjectWithParents]), in their order.
	Parents RelatedSet
	// KeyHolders are others with its limit key ([ObjectWithLimitKey]) that have a slot of it, claimed or about to be.
	// KeyWaiters are others that wait for one, in the order of their waits.
	Children RelatedSet
	// KeyHolders are others with its limit key ([ObjectWithLimitKey]) that have a slot of it, claimed or about to be. KeyWaiters are others that wait for one, the first first.
	KeyHolders, KeyWaiters RelatedSet
	// BatchMembers are others of its batch that wait for a call of Work or Finalize, or have one, among the 2000 resources
	// of its kind and each priority that were leased last.
	BatchMembers RelatedSet
}

// RelatedSet is a bounded set of resources.
type RelatedSet struct {
	// Resources are at most as many as were asked for.
	Resources []RelatedResource
	// HasMore is set if there are others.
	HasMore bool
}

// RelatedResource is a resource that is related to another.
type RelatedResource struct {
	Ref
	// State is its state; empty for a parent that does not exist.
	State deltatype.ResourceState
	// IsAwaited is set for a parent that was never seen synced, for which the resource waits before its next call of Work,
	// and for a child that waits for the resource in this way.
	IsAwaited bool
}

const maxRelated = 1000

// RelatedResources returns the resources that are related to one, up to limit of each relation, 1000 at most; 0 means 100.
// It is one statement, and reads by index. If a resource has very many children, it reads all their index entries. If there
// is no such resource, the result is empty. The client need not be started.
func (c *Client) RelatedResources(ctx context.Context, kind, objectID string, limit int) (*RelatedResources, error) {
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: related resources: %w", err)
	}
	if err := setLimit("limit", &limit, defaultPage, maxRelated); err != nil {
		return nil, fmt.Errorf("delta: related resources: %w", err)
	}
	rows, err := db.New().RelatedResources(ctx, c.pool, db.RelatedResourcesParams{
		Kind: kind, ObjectID: objectID, Resource: Ref{Kind: kind, ObjectID: objectID}.String(), Most: int32(limit) + 1, //nolint:gosec // it has a bound
		Longest: activities.LongestLease, BatchPrefix: c.temporalNames().batchIDPrefix(kind),
	})
	if err != nil {
		return nil, fmt.Errorf("delta: related resources of %s/%s: %w", kind, objectID, schemaError(err))
	}
	related := &RelatedResources{}
	sets := map[string]*RelatedSet{
		"parent": &related.Parents, "child": &related.Children, "holder": &related.KeyHolders, "waiter": &related.KeyWaiters, "member": &related.BatchMembers,
	}
	for _, row := range rows {
		set := sets[row.Relation]
		if len(set.Resources) == limit {
			set.HasMore = true
			continue
		}
		set.Resources = append(set.Resources, RelatedResource{
			Ref: Ref{Kind: row.Kind, ObjectID: row.ObjectID}, State: deltatype.ResourceState(row.State), IsAwaited: row.IsAwaited,
		})
	}
	return related, nil
}
