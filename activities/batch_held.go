package activities

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/chariot-giving/delta/db"
)

// recover takes up what a try before this one left: members whose last attempt was lost, or that lost too many of them, and
// those that went on meanwhile.
func (r *batchRun) recover(ctx context.Context) error {
	if activity.IsActivity(ctx) && activity.GetInfo(ctx).Attempt == 1 {
		return nil
	}
	rows, err := db.New().LostMembers(ctx, r.Pool, db.LostMembersParams{
		Ids: r.ids, Generations: r.generations, WorkflowID: r.in.WorkflowID, Most: maxLost,
	})
	if err != nil {
		return fmt.Errorf("reading the members of %s: %w", r.in.WorkflowID, err)
	}
	var lost []*result
	for i := range rows {
		why := workerLost
		if isLast(&rows[i]) {
			why = workerLostLast
		}
		lost = append(lost, &result{worked: &rows[i], outcome: Outcome{Verdict: VerdictFailed, Error: why}})
	}
	if err := r.flush(ctx, lost); err != nil {
		return err
	}
	return r.release(ctx, r.ids)
}

// keepHeld keeps the members without a result with the batch, for as long as Work goes on, until the function is called.
func (r *batchRun) keepHeld(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(keepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			r.mu.Lock()
			ids := make([]int64, 0, len(r.held))
			for id := range r.held {
				ids = append(ids, id)
			}
			r.mu.Unlock()
			if len(ids) == 0 {
				continue
			}
			err := db.New().KeepHeld(ctx, r.Pool, db.KeepHeldParams{Net: DispatchNet, Ids: ids, WorkflowID: r.in.WorkflowID})
			if err != nil && ctx.Err() == nil {
				r.Logger.Warn("keeping the members of a batch failed; it is tried again", "kind", r.in.Kind, "error", err)
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// release lets go of members whose rows went on while they were worked.
func (r *batchRun) release(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	var released int64
	err := retry(ctx, func(ctx context.Context) (err error) {
		released, err = db.New().ReleaseHeld(ctx, r.Pool, db.ReleaseHeldParams{Ids: ids, WorkflowID: r.in.WorkflowID})
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing members of %s: %w", r.in.WorkflowID, err)
	}
	if released > 0 {
		r.redispatched()
	}
	return nil
}
