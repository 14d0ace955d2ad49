package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// InformPass is one pass of an informer: one try of a run.
type InformPass struct {
	// ID rises with each pass.
	ID int64
	// Kind is the listed kind. Shard is its shard; empty for a kind that is listed as a whole, and if its shards could not
	// be named.
	Kind, Shard string
	// Trigger is the origin of the run: "schedule", "request" ([Client.RunInform], [Client.ScheduleInform], the command), or
	// "workflow" if somebody started it in Temporal.
	Trigger string
	// FullListing is set for a listing of everything, beside incremental ones.
	FullListing bool
	// WorkflowID and RunID name the workflow; Attempt counts the tries of the run.
	WorkflowID, RunID string
	Attempt           int
	// StartedAt is when it began. EndedAt is when it ended; nil while it runs, or if its worker was lost.
	StartedAt time.Time
	EndedAt   *time.Time
	// Listed counts objects: New made resources, Changed started another generation, Unchanged did neither, Stale are older
	// than the stored ones, Refused break a rule. In a failed pass, some were not processed.
	Listed, New, Changed, Unchanged, Stale, Refused int64
	// Unkept is that of [InformRun].
	Unkept int64
	// Deleted and Withheld are those of [InformRun].
	Deleted, Withheld int64
	// Error is why it failed; empty otherwise.
	Error string
}

const (
	defaultPasses = 50
	maxPasses     = 10_000
)

// InformPasses returns the latest passes of the informer of a kind, or of all kinds if kind is empty, and of one shard,
// unless shard is empty. The latest pass is first. The limit is 10,000 at most; 0 means 50. The latest 1000 passes of each
// kind are kept, and 100 of each shard.
func (c *Client) InformPasses(ctx context.Context, kind, shard string, limit int) ([]InformPass, error) {
	if kind != "" {
		if err := checkName("kind", kind); err != nil {
			return nil, fmt.Errorf("delta: passes: %w", err)
		}
	}
	if err := checkKey("shard", shard); err != nil {
		return nil, fmt.Errorf("delta: passes: %w", err)
	}
	if err := setLimit("limit", &limit, defaultPasses, maxPasses); err != nil {
		return nil, fmt.Errorf("delta: passes: %w", err)
	}
	rows, err := db.New().ListInforms(ctx, c.pool, db.ListInformsParams{Kind: kind, Shard: shard, Most: int32(limit)}) //nolint:gosec // it has a bound
	if err != nil {
		return nil, fmt.Errorf("delta: passes: %w", schemaError(err))
	}
	all := make([]InformPass, len(rows))
	for i, r := range rows {
		all[i] = InformPass{
			ID: r.ID, Kind: r.Kind, Shard: r.Shard, Trigger: r.Trigger, FullListing: r.FullListing, WorkflowID: r.WorkflowID, RunID: r.RunID, Attempt: int(r.Attempt),
			StartedAt: r.StartedAt.UTC(), Listed: r.Listed, New: r.New, Changed: r.Changed, Unchanged: r.Unchanged, Stale: r.Stale,
			Refused: r.Refused, Unkept: r.Unkept, Deleted: r.Deleted, Withheld: r.Withheld, Error: r.Error, EndedAt: db.UTC(r.EndedAt),
		}
	}
	return all, nil
}
