package activities_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

var finalized = activities.Outcome{Verdict: activities.VerdictFinalized}

// newFinalizer returns a harness with a controller that has a Finalizer, the row that a starting client writes, and a
// synced resource.
func newFinalizer(t *testing.T, finalize func(context.Context, *deltatype.ResourceRow) activities.Outcome) (*harness, activities.Ref) {
	t.Helper()
	h := newHarness(t, does(synced))
	h.handler.finalize = finalize
	h.startsWith(true)
	ref := h.inform(object("a", "1"))
	h.attempt(ref)
	return h, ref
}

// startsWith writes what a client writes that starts with a controller that finalizes, or does not.
func (h *harness) startsWith(finalizes bool) {
	h.t.Helper()
	_, err := db.New().UpsertController(context.Background(), h.Pool, db.UpsertControllerParams{Name: kind, Finalizes: finalizes})
	require.NoError(h.t, err)
}

func (h *harness) delete(ref activities.Ref) {
	h.t.Helper()
	_, err := activities.RunCommand(context.Background(), h.Pool, ref.Kind, ref.ObjectID, activities.CommandDelete, h.Retention)
	require.NoError(h.t, err)
}

func isFinalized(row *deltatype.ResourceRow) bool { return row.Finalized != nil && *row.Finalized }

func TestADeletedResourceIsFinalizedBeforeItIsRemoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cause  deltatype.Cause
		delete func(h *harness, ref activities.Ref)
	}{
		"by a command": {deltatype.CauseCommand, (*harness).delete},
		"by Work": {deltatype.CauseWork, func(h *harness, ref activities.Ref) {
			h.handler.work = does(deleted)
			h.inform(object("a", "2"))
			require.Equal(h.t, activities.NextAttempt, h.attempt(ref).Next, "it goes on with Finalize")
		}},
		"by a listing": {deltatype.CauseUnlisted, func(h *harness, _ activities.Ref) {
			h.Listing = activities.Listing{Complete: true, MostDeleted: 1}
			h.handler.inform = lists()
			progress, err := h.pass(func(in *activities.InformInput) { in.Pass = uuid.NewString() })
			require.NoError(h.t, err)
			require.Equal(h.t, 1, progress.Deleted)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls []deltatype.ResourceRow
			outcomes := []activities.Outcome{failed, {Verdict: activities.VerdictSnoozed, SnoozeFor: hour}, hopeless, failed, finalized}
			h, ref := newFinalizer(t, func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
				calls = append(calls, *row)
				return outcomes[len(calls)-1]
			})
			h.Retention.DegradedRetry = 5 * hour
			c.delete(h, ref)
			h.handler.work = nil
			row := h.row(ref)
			require.False(t, *row.Finalized)
			require.LessOrEqual(t, row.DueAt.Sub(h.now()), time.Duration(0), "it is due at once")

			waits := []time.Duration{time.Second, hour, 5 * hour, 9 * time.Second}
			for i, wait := range waits {
				step := h.attempt(ref)
				require.Equal(t, activities.NextAttempt, step.Next)
				require.InDelta(t, wait, step.Wait, float64(wait)/9)
				row := h.row(ref)
				require.Equal(t, deltatype.ResourceStateDeleted, row.State)
				require.False(t, *row.Finalized)
				// Its retention may pass: it is kept.
				h.passRetention(ref)
				require.Equal(t, activities.NextAttempt, h.endRetention(ref).Next)
				require.NotNil(t, h.row(ref), "after %d attempts", i+1)
			}
			require.Equal(t, activities.NextRetention, h.attempt(ref).Next)
			row = h.row(ref)
			require.True(t, isFinalized(row))
			require.Equal(t, deltatype.ResourceStateDeleted, row.State)
			require.Equal(t, 4, row.Attempt, "a snooze is no attempt")
			require.Nil(t, row.ClaimedUntil)
			require.Len(t, calls, 5)
			for i, call := range calls {
				require.Equal(t, deltatype.ResourceStateDeleted, call.State)
				require.Equal(t, c.cause, call.Cause)
				require.Equal(t, []int{1, 2, 2, 3, 4}[i], call.Attempt)
			}
			require.Equal(t, h.Retention.DeletedRetention, h.row(ref).DueAt.Sub(h.writtenAt(ref)), "kept for its retention after that")
			h.passRetention(ref)
			require.Equal(t, activities.NextNone, h.endRetention(ref).Next)
			require.Nil(t, h.row(ref))
			require.Len(t, calls, 5)
		})
	}
}

// writtenAt returns when the row was last written with a due time, by its retention.
func (h *harness) writtenAt(ref activities.Ref) time.Time {
	h.t.Helper()
	return h.row(ref).DispatchAt.Add(-activities.DueGrace - h.Retention.DeletedRetention)
}

func TestFinalizeGoesOnAfterAllOfItsAttempts(t *testing.T) {
	t.Parallel()
	n := 0
	h, ref := newFinalizer(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		n++
		return failed
	})
	h.Retention.DegradedRetry = 5 * hour
	h.delete(ref)
	h.set(ref, "max_attempts = 3")
	for i := range 6 {
		step := h.attempt(ref)
		require.Equal(t, activities.NextAttempt, step.Next)
		require.Equal(t, i >= 2, step.Wait > hour, "slowly after all of them")
		require.Equal(t, min(i+1, 3), h.row(ref).Attempt)
		h.set(ref, "due_at = now()")
	}
	require.Equal(t, 6, n)
}

func TestAClientWithoutAFinalizerKeepsUnfinalizedRows(t *testing.T) {
	t.Parallel()
	h, ref := newFinalizer(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome { return finalized })
	finalize := h.handler.finalize
	h.handler.finalize = nil
	h.startsWith(false)
	h.delete(ref)
	_, err := h.Attempt(t.Context(), ref)
	require.ErrorContains(t, err, "has no Finalizer", "another worker has to do it")
	h.passRetention(ref)
	require.Equal(t, activities.NextAttempt, h.endRetention(ref).Next)
	batch := activities.Batch{Installation: h.Installation, Kind: kind, WorkflowID: "batch", IDs: activities.PackNumbers([]int64{h.row(ref).ID})}
	h.set(ref, "workflow_id = 'batch'")
	for _, step := range []func(context.Context, activities.Batch) (activities.BatchStep, error){h.AttemptBatch, h.EndBatchRetention} {
		_, err := step(t.Context(), batch)
		require.NoError(t, err)
		require.False(t, *h.row(ref).Finalized)
	}

	h.handler.finalize = finalize
	_, err = h.AttemptBatch(t.Context(), batch)
	require.NoError(t, err)
	require.True(t, isFinalized(h.row(ref)))
}

// What was deleted before the kind had a Finalizer, and is still there, is finalized too.
func TestWhatIsDeletedAlreadyWhenAFinalizerComesIsFinalized(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(deleted))
	ref := h.inform(object("a", "1"))
	require.Equal(t, activities.NextRetention, h.attempt(ref).Next)
	require.Nil(t, h.row(ref).Finalized)
	h.startsWith(true)
	h.handler.finalize = func(context.Context, *deltatype.ResourceRow) activities.Outcome { return finalized }
	h.passRetention(ref)
	require.Equal(t, activities.NextAttempt, h.endRetention(ref).Next)
	require.Equal(t, activities.NextRetention, h.attempt(ref).Next)
	require.True(t, isFinalized(h.row(ref)))
}

func TestAnInformDuringFinalizeMakesTheResourceLiveAgain(t *testing.T) {
	t.Parallel()
	var h *harness
	var ref activities.Ref
	h, ref = newFinalizer(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		h.inform(object("a", "1"))
		return finalized
	})
	h.delete(ref)
	step := h.attempt(ref)
	require.Equal(t, activities.NextAttempt, step.Next)
	require.Equal(t, deltatype.ResourceStateScheduled, step.State)
	require.Equal(t, activities.NextRetention, h.attempt(ref).Next)
	require.Equal(t, deltatype.ResourceStateSynced, h.row(ref).State)
	require.EqualValues(t, 2, h.handler.worked.Load())
}

// The worker dies while Finalize runs: another one has the next attempt, and what is lost counts.
func TestALostFinalizeIsTriedAgain(t *testing.T) {
	t.Parallel()
	calls := 0
	h, ref := newFinalizer(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		calls++
		return finalized
	})
	h.delete(ref)
	claim := h.claimAs(ref, true)
	require.Equal(t, activities.NextAttempt, h.attempt(ref).Next, "the other one has it")
	require.Zero(t, calls)
	due, err := db.New().LeaseDue(t.Context(), h.Pool, db.LeaseDueParams{
		Kind: kind, Batch: 10, Lease: time.Minute, Longest: hour, Priorities: []int16{1, 2, 3, 4, 5}, PassedBy: []string{}, Finalizes: true,
	})
	require.NoError(t, err)
	require.Empty(t, due)
	h.killClaim(ref)
	h.set(ref, "dispatch_at = now()")
	due, err = db.New().LeaseDue(t.Context(), h.Pool, db.LeaseDueParams{
		Kind: kind, Batch: 10, Lease: time.Minute, Longest: hour, Priorities: []int16{1, 2, 3, 4, 5}, PassedBy: []string{}, Finalizes: true,
	})
	require.NoError(t, err)
	require.Len(t, due, 1)
	require.NotNil(t, h.row(ref).DispatchAt, "it is looked at again if this wake-up is lost")

	require.Equal(t, activities.NextRetention, h.attempt(ref).Next)
	row := h.row(ref)
	require.Equal(t, 1, calls)
	require.True(t, isFinalized(row))
	require.Equal(t, 2, row.Attempt)
	require.Contains(t, errorsOf(row)[len(row.Errors)-1], "the worker was lost")

	// The lost one comes too late.
	require.Empty(t, h.writeOutcome(row, claim, "deleted"))
}

// Errors and logs say that it was Finalize, not Work, which does not return, or ends in another way than by returning.
func TestErrorsOfFinalizeNameIt(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	defer close(goOn)
	h, ref := newFinalizer(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		runtime.Goexit()
		return finalized
	})
	h.delete(ref)
	h.attempt(ref)
	h.set(ref, "due_at = now()")
	h.handler.finalize = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		<-goOn
		return finalized
	}
	h.handler.workTimeout, h.AbandonAfter = 20*time.Millisecond, 30*time.Millisecond
	h.attempt(ref)
	require.Equal(t, []string{
		"Finalize ended its goroutine (runtime.Goexit)", "timed out after 20ms: Finalize did not return within 30ms of the end of its context",
	}, errorsOf(h.row(ref)))
}

// What Finalize writes to the same database commits with the fact that it was done, or not at all.
func TestFinalizeCompletesInATransactionOfTheUsers(t *testing.T) {
	t.Parallel()
	for name, commits := range map[string]bool{"committed": true, "rolled back": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, ref := newFinalizer(t, nil)
			h.handler.finalizeTask = func(ctx context.Context, task *activities.Task) activities.Outcome {
				tx, err := h.Pool.Begin(ctx)
				require.NoError(t, err)
				defer tx.Rollback(ctx) //nolint:errcheck // it is committed, or meant to be rolled back
				require.NoError(t, task.CompleteTx(ctx, tx))
				if commits {
					require.NoError(t, tx.Commit(ctx))
				}
				return finalized
			}
			h.delete(ref)
			require.Equal(t, commits, h.attempt(ref).Next == activities.NextRetention)
			row := h.row(ref)
			require.Equal(t, commits, isFinalized(row))
			require.Equal(t, deltatype.ResourceStateDeleted, row.State)
			if !commits {
				require.Equal(t, []string{"Finalize returned nil after CompleteTx, but the transaction was not committed"}, errorsOf(row))
			}
		})
	}
}

// A transaction that was rolled back counts for nothing, also if another worker has the resource by then.
func TestARolledBackFinalizeThatLostItsClaimHasNotSucceeded(t *testing.T) {
	t.Parallel()
	h, ref := newFinalizer(t, nil)
	var observed []activities.Verdict
	h.Observed = func(o activities.Observation) {
		observed = append(observed, o.Verdict)
	}
	h.handler.finalizeTask = func(ctx context.Context, task *activities.Task) activities.Outcome {
		tx, err := h.Pool.Begin(ctx)
		require.NoError(t, err)
		require.NoError(t, task.CompleteTx(ctx, tx))
		require.NoError(t, tx.Rollback(ctx))
		h.killClaim(ref)
		h.claimAs(ref, true)
		return finalized
	}
	h.delete(ref)
	h.attempt(ref)
	require.Empty(t, observed)
	require.False(t, *h.row(ref).Finalized)
}

// What waits for its next Finalize is not the batch's any more: a dispatcher puts it into another one.
func TestAMemberThatWaitsToBeFinalizedDoesNotRestWithItsBatch(t *testing.T) {
	t.Parallel()
	outcome := failed
	h, ref := newFinalizer(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome { return outcome })
	h.delete(ref)
	batch := activities.Batch{Installation: h.Installation, Kind: kind, WorkflowID: "batch", IDs: activities.PackNumbers([]int64{h.row(ref).ID})}
	// Few that fail go on in workflows of their own, many do not.
	h.set(ref, "workflow_id = 'batch'")
	step, err := h.AttemptBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Zero(t, step.Resting)
	require.Equal(t, 1, step.Failed)
	require.Nil(t, h.row(ref).ClaimedUntil)

	h.set(ref, "workflow_id = 'batch', due_at = now()")
	outcome = finalized
	step, err = h.AttemptBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, 1, step.Resting)
	require.Equal(t, 1, step.Deleted)
}
