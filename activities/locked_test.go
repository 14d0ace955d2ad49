package activities_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// lock locks a resource in a transaction of the user's, until it is unlocked.
func (h *harness) lock(ref activities.Ref) (unlock func()) {
	tx, err := h.env.Pool.Begin(context.Background())
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	_, err = tx.Exec(context.Background(), "SELECT FROM delta_resource WHERE kind = $1 AND object_id = $2 FOR UPDATE", ref.Kind, ref.ObjectID)
	require.NoError(h.t, err)
	return func() { require.NoError(h.t, tx.Commit(context.Background())) }
}

// awaitState waits until a resource is in a state.
func (h *harness) awaitState(ref activities.Ref, state deltatype.ResourceState) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return h.row(ref).State == state }, patience, 10*time.Millisecond, "%s is %s, not %s", ref, h.row(ref).State, state)
}

// requireEnded receives the error of a goroutine of the test.
func requireEnded(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}

// startBatch runs a batch beside the test.
func (h *harness) startBatch(batch activities.Batch) (done chan error) {
	h.Parallelism = batch.IDs.Len()
	done = make(chan error, 1)
	go func() {
		_, err := h.AttemptBatch(context.Background(), batch)
		done <- err
	}()
	return done
}

func TestALockedRowOfABatchDelaysItsOwnOutcomeOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Claims = activities.NewClaims(h.Pool, h.Logger)
	a, b, c := h.inform(object("a", "1")), h.inform(object("b", "1")), h.inform(object("c", "1"))
	locked := make(chan func(), 1)
	h.handler.work = func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
		if row.ObjectID == "b" {
			locked <- h.lock(b)
		}
		return synced
	}
	done := h.startBatch(h.batchOf(a, b, c))
	unlock := <-locked
	h.awaitState(a, deltatype.ResourceStateSynced)
	h.awaitState(c, deltatype.ResourceStateSynced)
	row := h.row(b)
	require.Equal(t, deltatype.ResourceStatePending, row.State)
	require.NotNil(t, row.ClaimedUntil)
	unlock()
	h.awaitState(b, deltatype.ResourceStateSynced)
	requireEnded(t, done)
	require.EqualValues(t, 3, h.handler.worked.Load())
	require.Empty(t, h.row(b).Errors)
}

func TestARowOfABatchThatIsLockedAtItsClaimDelaysNoOther(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Claims = activities.NewClaims(h.Pool, h.Logger)
	a, b, c := h.inform(object("a", "1")), h.inform(object("b", "1")), h.inform(object("c", "1"))
	goOn := make(chan struct{})
	h.handler.work = func(ctx context.Context, row *deltatype.ResourceRow) activities.Outcome {
		if row.ObjectID == "c" {
			select {
			case <-goOn:
			case <-ctx.Done():
			}
		}
		return synced
	}
	batch := h.batchOf(a, b, c)
	unlock := h.lock(b)
	done := h.startBatch(batch)
	h.awaitState(a, deltatype.ResourceStateSynced)
	require.Equal(t, deltatype.ResourceStateScheduled, h.row(b).State)
	unlock()
	h.awaitState(b, deltatype.ResourceStateSynced) // while c is worked
	require.Equal(t, deltatype.ResourceStatePending, h.row(c).State)
	close(goOn)
	requireEnded(t, done)
	require.Equal(t, deltatype.ResourceStateSynced, h.row(c).State)
	require.EqualValues(t, 3, h.handler.worked.Load())
}

// A workflow that has nothing else to do waits for the lock.
func TestAnAttemptWaitsForARowThatIsLockedAtItsClaim(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(synced))
	ref := h.inform(object("a", "1"))
	unlock := h.lock(ref)
	h.Pool = otherPool(t, h, func(*poolConfig) {})
	done := make(chan error, 1)
	go func() {
		_, err := h.Attempt(context.Background(), ref)
		done <- err
	}()
	require.Eventually(t, func() bool { return h.Pool.Stat().AcquireCount() >= 3 }, patience, time.Millisecond)
	require.Zero(t, h.handler.worked.Load())
	unlock()
	h.awaitState(ref, deltatype.ResourceStateSynced)
	requireEnded(t, done)
	require.EqualValues(t, 1, h.handler.worked.Load())
}

// A lock may last longer than the activity waits: then the outcome is written beside it.
func TestAnOutcomeIsWrittenHoweverLongItsRowIsLocked(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	singleAndBatch(t, func(t *testing.T, batched bool) {
		h := newHarness(t, nil)
		h.Claims = activities.NewClaims(h.Pool, h.Logger)
		ref := h.inform(object("a", "1"))
		var unlock func()
		h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
			unlock = h.lock(ref)
			return failed
		}
		h.attemptIn(batched, ref)
		require.Equal(t, deltatype.ResourceStatePending, h.row(ref).State)
		require.NotNil(t, h.row(ref).ClaimedUntil)
		unlock()
		h.Claims.Wait()
		row := h.row(ref)
		require.Equal(t, deltatype.ResourceStateFailed, row.State)
		require.Equal(t, []string{"boom"}, errorsOf(row))
		require.Nil(t, row.ClaimedUntil)
		require.False(t, row.DispatchAt.After(*row.DueAt), "nobody has a timer for it")
		require.EqualValues(t, 1, h.handler.worked.Load())
	})
}

// logged calls a function for the records of a log.
type logged struct {
	slog.Handler
	record func(message string)
}

func (l logged) Handle(_ context.Context, r slog.Record) error {
	l.record(r.Message)
	return nil
}

// The claim is closed after the outcome was written: a closed claim would refuse the outcome, and the attempt would count as lost.
func TestWorkMayReturnBeforeItsAbandonedOutcomeIsWritten(t *testing.T) {
	t.Parallel()
	for name, isLocked := range map[string]bool{"at once": false, "while its row is locked": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			abandoned, returned := make(chan struct{}), make(chan struct{})
			h := newHarness(t, nil)
			h.Logger = slog.New(logged{h.Logger.Handler(), func(message string) {
				switch message {
				case "Work ignores the end of its context; its slots stay taken, and its resources claimed, until it returns":
					close(abandoned)
				case "Work returned after its attempt was closed; the result is not used":
					close(returned)
				}
			}})
			ref := h.inform(object("a", "1"))
			unlock := func() {}
			h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
				if isLocked {
					unlock = h.lock(ref)
				}
				<-abandoned
				return synced
			}
			h.handler.workTimeout, h.AbandonAfter = 20*time.Millisecond, 20*time.Millisecond
			done := h.startBatch(h.batchOf(ref))
			<-returned
			unlock()
			requireEnded(t, done)
			h.awaitState(ref, deltatype.ResourceStateFailed)
			row := h.row(ref)
			require.Len(t, row.Errors, 1)
			require.Contains(t, row.Errors[0].Error, "Work did not return")
			require.Eventually(t, func() bool { return h.row(ref).ClaimedUntil == nil }, patience, 10*time.Millisecond, "the claim is never closed")
		})
	}
}

// A claim that was kept for a call of Work is closed however long others keep the row locked.
func TestAKeptClaimIsClosedWhenItsRowIsNotLockedAnyMore(t *testing.T) {
	t.Parallel()
	goOn, returned := make(chan struct{}), make(chan struct{})
	h := newHarness(t, func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		<-goOn
		return synced
	})
	h.Logger = slog.New(logged{h.Logger.Handler(), func(message string) {
		if message == "Work returned after its attempt was closed; the result is not used" {
			close(returned)
		}
	}})
	h.Claims = activities.NewClaims(h.env.Pool, h.Logger)
	h.Pool = otherPool(t, h, func(*poolConfig) {})
	h.handler.workTimeout, h.AbandonAfter = 20*time.Millisecond, 20*time.Millisecond
	ref := h.inform(object("a", "1"))
	require.Equal(t, deltatype.ResourceStateFailed, h.attempt(ref).State)
	unlock := h.lock(ref)
	asked := h.Pool.Stat().AcquireCount()
	close(goOn)
	<-returned
	require.Eventually(t, func() bool { return h.Pool.Stat().AcquireCount() > asked+1 }, patience, time.Millisecond, "it is not tried again")
	require.NotNil(t, h.row(ref).ClaimedUntil)
	unlock()
	require.Eventually(t, func() bool { return h.row(ref).ClaimedUntil == nil }, patience, 10*time.Millisecond, "the claim is never closed")
}
