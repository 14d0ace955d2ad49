package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// RefusedObject is an object that a listing named and that cannot be taken, because it breaks a rule. It stops neither the other objects,
// nor deletions of others, nor the cursor, and a resource that it has is not deleted. It is taken when a listing names it and it is valid,
// or, if its JSON could be kept, when a new version of the controller takes that.
type RefusedObject struct {
	// Kind and ObjectID name it. The id is as the object says, and may be what breaks the rule, or be cut for that reason; objects without
	// any are one here.
	Kind, ObjectID string
	// Shard is that of the listing; empty for a kind that is listed as a whole.
	Shard string
	// Rule says which one it breaks, and by what.
	Rule string
	// Since is when it was first refused, Last when it was last.
	Since, Last time.Time
	// Kept tells that its JSON is kept. Otherwise it is larger than 64 KiB, or Postgres cannot store it, and only a listing that names it again takes it.
	Kept bool
}

// refusedShown is how many refused objects are read at once: more than are kept of a kind.
const refusedShown = 2000

// Refused returns the objects of a kind that are refused, or of all kinds for an empty one, by kind, shard and id. About 1000 are kept of a kind, or of a shard.
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
		all[i] = RefusedObject{Kind: r.Kind, Shard: r.Shard, ObjectID: r.ObjectID, Rule: r.Rule, Since: r.RefusedAt.UTC(), Last: r.LastRefusedAt.UTC(), Kept: r.Kept}
	}
	return all, nil
}
