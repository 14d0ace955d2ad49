package activities

import (
	"cmp"
	"context"
	"fmt"

	"go.temporal.io/sdk/activity"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/shorten"
)

// What started a run.
const (
	TriggerSchedule = "schedule"
	TriggerRequest  = "request"
	// TriggerWorkflow is a run that a person started in Temporal.
	TriggerWorkflow = "workflow"
	// TriggerSource is a listing that a source makes by itself.
	TriggerSource = "source"
)

const (
	// informsKept is how many passes of a kind are kept, shardInformsKept how many of each of its shards.
	informsKept      = 1000
	shardInformsKept = 100
)

// beginHistory records that a pass has begun.
func (p *pass) beginHistory(ctx context.Context) error {
	params := db.BeginInformParams{
		Kind: p.in.Kind, Shard: p.in.Options.Shard, Trigger: cmp.Or(p.in.Trigger, TriggerWorkflow), FullListing: p.in.FullListing, Attempt: 1, Kept: informsKept - 1,
	}
	if params.Shard != "" {
		params.Kept = shardInformsKept - 1
	}
	if activity.IsActivity(ctx) {
		info := activity.GetInfo(ctx)
		params.WorkflowID, params.RunID, params.Attempt = info.WorkflowExecution.ID, info.WorkflowExecution.RunID, info.Attempt
	}
	begun, err := db.New().BeginInform(ctx, p.activities.Pool, params)
	if err != nil {
		return fmt.Errorf("noting that a pass begins: %w", err)
	}
	p.history = begun.ID
	if begun.LostAttempt > 0 {
		p.observeLostTry(ctx, begun.LostAttempt, begun.LostAfter)
	}
	return nil
}

// endHistory records the result of a pass, even if its context has ended. A failure to record it does not fail the
// pass.
func (p *pass) endHistory(ctx context.Context, failure error) {
	if p.history == 0 {
		return // not even its beginning could be noted
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	progress := p.progress
	params := db.EndInformParams{
		ID: p.history, Listed: int64(progress.Listed), New: int64(p.added), Changed: int64(progress.Scheduled - p.added),
		Unchanged: int64(p.unchanged), Stale: int64(progress.Stale), Refused: int64(progress.Refused),
		Unkept: int64(progress.Unkept), Deleted: int64(progress.Deleted), Withheld: progress.Withheld,
	}
	if failure != nil {
		params.Error = shorten.Text(failure.Error(), maxErrorBytes)
	}
	if err := db.New().EndInform(ctx, p.activities.Pool, params); err != nil {
		p.log().Warn("the end of a pass could not be noted in its history", "error", err)
		return
	}
	if p.in.Gone && failure == nil {
		p.forgetShard(ctx)
	}
}
