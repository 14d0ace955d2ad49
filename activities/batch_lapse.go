package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
)

const (
	// A batch waits for members that are due a little later than the first: a tenth of the wait, within these bounds. The
	// latter is well within DueGrace.
	minSlack = time.Second
	maxSlack = 30 * time.Second
)

// LapseBatch is Lapse of all members that are due, in sets. What expired is dispatched anew, into other batches.
func (a *Activities) LapseBatch(ctx context.Context, in Batch) (BatchStep, error) {
	if err := a.check(in.Installation, in.Kind); err != nil {
		return BatchStep{}, err
	}
	ids, generations := in.IDs.All(), in.Generations.All()
	expired, err := db.New().ExpireMembers(ctx, a.Pool, db.ExpireMembersParams{
		WorkflowID: in.WorkflowID, Ids: ids, Generations: generations, DefaultExpiry: a.Rest.Expiry,
	})
	if err != nil {
		return BatchStep{}, fmt.Errorf("expiring members of %s: %w", in.WorkflowID, err)
	}
	if expired > 0 {
		a.redispatched()
	}
	_, err = db.New().RemoveMembers(ctx, a.Pool, db.RemoveMembersParams{
		WorkflowID: in.WorkflowID, Ids: ids, Generations: generations, DefaultSyncedRetention: a.Rest.SyncedRetention,
		DefaultDegradedRetention: a.Rest.DegradedRetention, DefaultDeletedRetention: a.Rest.DeletedRetention,
	})
	if err != nil {
		return BatchStep{}, fmt.Errorf("removing members of %s: %w", in.WorkflowID, err)
	}
	err = db.New().ProlongMembers(ctx, a.Pool, db.ProlongMembersParams{
		WorkflowID: in.WorkflowID, Ids: ids, Generations: generations, DefaultSyncedRetention: a.Rest.SyncedRetention,
		DefaultDegradedRetention: a.Rest.DegradedRetention, DefaultDeletedRetention: a.Rest.DeletedRetention, Grace: DueGrace,
	})
	if err != nil {
		return BatchStep{}, fmt.Errorf("prolonging the rest of members of %s: %w", in.WorkflowID, err)
	}
	return a.resting(ctx, in)
}

// resting says how many members rest with the batch, and when it is to look at them.
func (a *Activities) resting(ctx context.Context, in Batch) (BatchStep, error) {
	rows, err := db.New().RestingMembers(ctx, a.Pool, db.RestingMembersParams{
		WorkflowID: in.WorkflowID, Ids: in.IDs.All(), Generations: in.Generations.All(),
	})
	if err != nil {
		return BatchStep{}, fmt.Errorf("reading the members of %s: %w", in.WorkflowID, err)
	}
	waits := make([]time.Duration, len(rows))
	for i, row := range rows {
		waits[i] = max(row.DueAt.Sub(row.Now), 0)
	}
	return restFor(waits), nil
}

// restFor is the step of a batch whose members are due after these times.
func restFor(waits []time.Duration) BatchStep {
	if len(waits) == 0 {
		return BatchStep{}
	}
	slices.Sort(waits)
	until := waits[0] + min(max(waits[0]/10, minSlack), maxSlack)
	wait := waits[0]
	for _, w := range waits {
		if w <= until {
			wait = w
		}
	}
	return BatchStep{Resting: len(waits), Wait: wait}
}
