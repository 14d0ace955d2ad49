package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// RefusedObject is an object in a listing that cannot be taken because it breaks a rule. It affects neither other objects,
// nor deletions of others, nor the cursor, and its resource, if there is one, is not deleted. It is taken when a listing
// returns it and it is valid, or, if its JSON is kept, when a new version of the controller accepts it.
type RefusedObject struct {
	// Kind and ObjectID name it. The id is the object's, which may itself break the rule, or be cut for that reason; all
	// objects without an id are one here.
	Kind, ObjectID string
	// Shard is the shard of the listing; empty for a kind that is listed as a whole.
	Shard string
	// Rule is the broken rule, and the offending value.
	Rule string
	// Since is when it was first refused, Last when it was last.
	Since, Last time.Time
	// IsKept reports whether its JSON is kept. If it is larger than 64 KiB, or Postgres cannot store it, it is not, and only
	// a listing that returns it again takes it.
	IsKept bool
}

// refusedShown is how many refused objects are read at once: more than are kept of a kind.
const refusedShown = 2000

// Refused returns the refused objects of a kind, or of all kinds if kind is empty, by kind, shard and id. About 1000 are
// kept of a kind, or of a shard.
func (c *Client) Refused(ctx context.Context, kind string) ([]RefusedObject, error) {
	if kind != "" {
		if err := checkName("kind", kind); err != nil {
			return nil, fmt.Errorf("delta: refused objects: %w", err)
		}
	}
	rows, err := db.New().ListRefused(ctx, c.pool, db.ListRefusedParams{Kind: kind, Most: refusedShown})
	if err != nil {
		return nil, fmt.Errorf("delta: refused objects: %w", schemaError(err))
	}
	all := make([]RefusedObject, len(rows))
	for i, r := range rows {
		all[i] = RefusedObject{Kind: r.Kind, Shard: r.Shard, ObjectID: r.ObjectID, Rule: r.Rule, Since: r.RefusedAt.UTC(), Last: r.LastRefusedAt.UTC(), IsKept: r.Kept}
	}
	return all, nil
}
