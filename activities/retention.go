package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/shorten"
)

// EndRetention ends the retention of a settled resource when it is due: a synced resource expires where its namespace
// has an expiry, a degraded resource that may heal is tried again, and any other row is removed. The current settings
// decide: if they keep the row for longer than the settings at the beginning did, it is kept. A row that is not due
// stays as it is.
func (a *Activities) EndRetention(ctx context.Context, in Ref) (Step, error) {
	if err := a.checkTarget(in.Installation, in.Kind); err != nil {
		return Step{}, err
	}
	ref, err := a.resolveRef(ctx, in)
	if err != nil {
		return Step{}, err
	}
	got, found, err := a.getResource(ctx, ref)
	if err != nil || !found {
		return Step{Next: NextNone}, err
	}
	s, err := a.readUnclaimedStep(ctx, ref, &got)
	if err != nil || s.Next != NextRetention || s.Wait > 0 {
		return s, err
	}
	batched := a.BatchSize > 1 // then a batch takes resources that expire here
	ended, err := a.endRetention(ctx, db.EndRetentionParams{Ids: []int64{got.Resource.ID}, WholeKind: true, DispatchAfter: DispatchLease}, batched)
	if err != nil {
		return Step{}, fmt.Errorf("ending the retention of %s: %w", ref, err)
	}
	if got, found, err = a.getResource(ctx, ref); err != nil || !found {
		return Step{Next: NextNone}, err
	}
	s, err = a.readUnclaimedStep(ctx, ref, &got)
	switch {
	case err != nil:
		return s, err
	case ended.Expired+ended.Retried > 0 && batched:
		s.Next, s.Wait = NextNone, 0
	case s.Next == NextRetention:
		s.Wait = max(s.Wait, minAttemptWait) // it may have been locked
	}
	return s, nil
}

// endRetention runs the statement, for one row or many.
func (a *Activities) endRetention(ctx context.Context, in db.EndRetentionParams, batched bool) (db.EndRetentionRow, error) {
	if batched {
		in.DispatchAfter = 0
	}
	in.Grace, in.DegradedRetry, in.HashIds = DueGrace, a.Retention.DegradedRetry, a.HashObjectIDs
	in.DefaultExpiry, in.DefaultSyncedRetention = a.Retention.Expiry, a.Retention.SyncedRetention
	in.DefaultDegradedRetention, in.DefaultDeletedRetention = a.Retention.DegradedRetention, a.Retention.DeletedRetention
	ended, err := db.New().EndRetention(ctx, db.Planned(a.Pool, len(in.Ids)), in)
	if err != nil {
		return ended, err
	}
	for i, id := range ended.GivenUp {
		a.Logger.Warn("a degraded resource was kept for its retention and is removed without having been synced",
			"kind", a.Handler.Kind(), IDField(id, &id, a.HashObjectIDs), "namespace", ended.Namespaces[i], "generation", ended.Generations[i],
			"attempt", ended.Attempts[i], "workflow_id", WorkflowID(ctx),
			"last_error", shorten.Text(ended.LastErrors[i], maxShownError))
	}
	if ended.Expired+ended.Retried > 0 && batched {
		a.dispatchSoon()
	}
	return ended, nil
}

const (
	// A batch also waits for members that are due a little later than the first: a tenth of the wait, within these
	// bounds. maxSlack is well within DueGrace.
	minSlack = time.Second
	maxSlack = 30 * time.Second
)

// EndBatchRetention is EndRetention for all members that are due. A dispatcher puts members that are to be worked into
// other batches.
func (a *Activities) EndBatchRetention(ctx context.Context, in Batch) (BatchStep, error) {
	if err := a.checkTarget(in.Installation, in.Kind); err != nil {
		return BatchStep{}, err
	}
	if _, err := a.endRetention(ctx, db.EndRetentionParams{Ids: in.IDs.All(), WorkflowID: in.WorkflowID}, true); err != nil {
		return BatchStep{}, fmt.Errorf("ending the retention of members of %s: %w", in.WorkflowID, err)
	}
	return a.readRetention(ctx, in)
}

// readRetention returns how many members wait in the batch for the end of their retention, and when the batch looks at
// them.
func (a *Activities) readRetention(ctx context.Context, in Batch) (BatchStep, error) {
	rows, err := db.New().SettledMembers(ctx, a.Pool, db.SettledMembersParams{WorkflowID: in.WorkflowID, Ids: in.IDs.All()})
	if err != nil {
		return BatchStep{}, fmt.Errorf("reading the members of %s: %w", in.WorkflowID, err)
	}
	waits := make([]time.Duration, len(rows))
	for i, row := range rows {
		// A member that is still due may have been locked.
		waits[i] = max(row.DueAt.Sub(row.Now), minAttemptWait)
	}
	return batchStepAfter(waits), nil
}

// batchStepAfter returns the step of a batch with members that are due after these times.
func batchStepAfter(waits []time.Duration) BatchStep {
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
