package delta_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestASnoozedAttemptIsRepeatedLaterAndDoesNotCount(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var calls atomic.Int64
	keys := make(chan string, 10)
	var first time.Time
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		keys <- r.IdempotencyKey()
		if r.Attempt != 1 {
			t.Errorf("attempt %d", r.Attempt)
		}
		switch calls.Add(1) {
		case 1:
			first = time.Now()
			return fmt.Errorf("upstream is busy: %w", delta.ResourceSnooze(300*time.Millisecond))
		case 2:
			if waited := time.Since(first); waited < 300*time.Millisecond {
				t.Errorf("called again after %s", waited)
			}
			return delta.ResourceSnooze(0)
		}
		return nil
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	row := h.eventually("account", "ann", synced(1))
	require.EqualValues(t, 3, calls.Load(), "more calls than MaxAttempts")
	require.Equal(t, 1, row.Attempt)
	require.Equal(t, 2, row.Snoozes)
	require.Empty(t, row.Errors)
	require.EqualValues(t, 1, row.SyncCount)
	key := <-keys
	require.Len(t, key, 32)
	require.Equal(t, key, <-keys, "the key is that of the generation")
	require.Equal(t, key, <-keys)

	_, err = c.Inform(t.Context(), account{Name: "ann", Plan: "gold"}, nil)
	require.NoError(t, err)
	row = h.eventually("account", "ann", synced(2))
	require.NotEqual(t, key, <-keys)
	require.EqualValues(t, 2, row.SyncCount, "it was created once and updated once")
	require.Zero(t, row.Snoozes)
}

func TestAResourceThatDegradesHasNoFurtherAttempts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var calls atomic.Int64
	c := h.startWorker(func(context.Context, *delta.Resource[account]) error {
		calls.Add(1)
		return fmt.Errorf("update: %w", delta.ResourceDegrade(errors.New("account is closed")))
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "ann", inState(deltatype.ResourceStateDegraded))
	require.EqualValues(t, 1, calls.Load())
	require.Equal(t, "update: resource degraded: account is closed", row.Errors[0].Error)
	require.NotNil(t, row.DueAt, "its retention began")

	degraded := new(delta.ResourceDegradeError)
	require.ErrorAs(t, delta.ResourceDegrade(nil), &degraded)
	require.EqualError(t, degraded, "resource degraded")
	snoozed := new(delta.ResourceSnoozeError)
	require.ErrorAs(t, delta.ResourceSnooze(-time.Second), &snoozed)
	require.Zero(t, snoozed.Duration())
}

// createEffects creates a user's table in the same database.
func (h *harness) createEffects() {
	h.t.Helper()
	_, err := h.Pool.Exec(h.t.Context(), "CREATE TABLE effects (name text, attempt integer)")
	require.NoError(h.t, err)
}

func (h *harness) countEffects() (n int) {
	h.t.Helper()
	require.NoError(h.t, h.Pool.QueryRow(h.t.Context(), "SELECT count(*) FROM effects").Scan(&n))
	return n
}

func TestCompleteTxCommitsWithTheEffectsOrNotAtAll(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	h.createEffects()
	write := func(ctx context.Context, r *delta.Resource[account], commit bool) error {
		tx, err := h.Pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx) //nolint:errcheck // after a commit it does nothing
		if _, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", r.ObjectID, r.Attempt); err != nil {
			return err
		}
		if err := r.CompleteTx(ctx, tx); err != nil {
			return err
		}
		if !commit {
			return nil
		}
		return tx.Commit(ctx)
	}
	c := h.startWorker(func(ctx context.Context, r *delta.Resource[account]) error {
		switch r.ObjectID {
		case "fails-after":
			// As if the worker died right after the commit: the outcome is lost, but not the transaction.
			if err := write(ctx, r, true); err != nil {
				return err
			}
			return errors.New("too late to fail")
		case "rolls-back":
			// The first transaction is not committed, though Work returns nil.
			return write(ctx, r, r.Attempt > 1)
		}
		return write(ctx, r, true)
	})
	events, cancel := c.Subscribe(delta.EventCategoryObjectSynced)
	defer cancel()
	_, err := c.Inform(t.Context(), account{Name: "commits"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "commits", synced(1))
	require.Equal(t, 1, row.Attempt)
	require.EqualValues(t, 1, row.SyncCount)
	require.Equal(t, 1, h.countEffects())
	require.Equal(t, "commits", nextEvent(t, events).Resource.ObjectID)

	_, err = c.Inform(t.Context(), account{Name: "fails-after"}, nil)
	require.NoError(t, err)
	row = h.eventually("account", "fails-after", synced(1))
	require.Equal(t, "fails-after", nextEvent(t, events).Resource.ObjectID, "it is synced")
	// Temporal has the attempt's result: by now, the failure would be written.
	h.awaitEvent(row.WorkflowID, endsAttempt)
	require.Equal(t, row, h.row("account", "fails-after"))
	require.Empty(t, row.Errors)
	require.Equal(t, 2, h.countEffects())

	_, err = c.Inform(t.Context(), account{Name: "rolls-back"}, nil)
	require.NoError(t, err)
	row = h.eventually("account", "rolls-back", synced(1))
	require.Equal(t, 2, row.Attempt)
	require.Contains(t, row.Errors[0].Error, "the transaction was not committed")
	require.Equal(t, 3, h.countEffects(), "the effects of the first attempt are rolled back")
}

// The resource is informed again after CompleteTx, and the transaction is rolled back: the earlier generation was not synced, whatever Work returns.
func TestARolledBackCompleteTxSyncsNothing(t *testing.T) {
	t.Parallel()
	inBothModes(t, testRolledBackAndGoesOn[single], testRolledBackAndGoesOn[batches])
}

func testRolledBackAndGoesOn[M batchSized](t *testing.T) {
	h := newHarness(t)
	var c *delta.Client
	ready := make(chan struct{})
	c = h.start(h.config(with(&controller[loose[M]]{work: func(ctx context.Context, r *delta.Resource[loose[M]]) error {
		<-ready
		if r.Generation > 1 {
			return nil
		}
		err := pgx.BeginFunc(ctx, h.Pool, func(tx pgx.Tx) error {
			if err := r.CompleteTx(ctx, tx); err != nil {
				return err
			}
			return errRollBack
		})
		if !errors.Is(err, errRollBack) {
			return err
		}
		_, err = c.Touch(ctx, "loose", "a")
		return err
	}})))
	close(ready)
	_, err := c.Inform(t.Context(), loose[M]{Key: "a"}, nil)
	require.NoError(t, err)
	row := h.eventually("loose", "a", synced(2))
	require.EqualValues(t, 1, row.SyncCount)
	require.Contains(t, row.Errors[0].Error, "the transaction was not committed")
}

var errRollBack = errors.New("roll back")

func TestCompleteTxOfAnAttemptThatWasSupersededIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.createEffects()
	result := make(chan error, 1)
	c := h.startWorker(func(ctx context.Context, r *delta.Resource[account]) error {
		// Another worker has taken over, because this one seemed dead.
		if _, err := h.Pool.Exec(ctx, "UPDATE delta_resource SET attempt = attempt + 1, claim = gen_random_uuid()"); err != nil {
			return err
		}
		tx, err := h.Pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx) //nolint:errcheck // the test expects the rollback
		result <- r.CompleteTx(ctx, tx)
		return delta.ResourceDegrade(nil)
	})
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	err = <-result
	require.ErrorIs(t, err, delta.ErrSuperseded)
	require.ErrorContains(t, err, "account/ann")
	require.Equal(t, deltatype.ResourceStatePending, h.row("account", "ann").State)

	require.ErrorContains(t, (&delta.Resource[account]{}).CompleteTx(t.Context(), nil), "not one that Work was given")
}

// completeAndFail marks the attempt synced in a transaction that is committed, and then fails.
func (h *harness) completeAndFail(ctx context.Context, complete func(context.Context, pgx.Tx) error) error {
	tx, err := h.Pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after a commit it does nothing
	if err := complete(ctx, tx); err != nil {
		return err
	}
	return errors.Join(tx.Commit(ctx), errors.New("too late to fail"))
}

// The row changes while the transaction is open: the sync counts for the generation that was worked.
func TestCompleteTxSyncsItsGenerationDuringAnInform(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var c *delta.Client
	started := make(chan struct{})
	c = h.startWorker(func(ctx context.Context, r *delta.Resource[account]) error {
		<-started
		if r.Object.Plan == "old" {
			if _, err := c.Inform(ctx, account{Name: "ann", Plan: "new"}, nil); err != nil {
				return err
			}
		}
		return h.completeAndFail(ctx, r.CompleteTx)
	})
	close(started)
	_, err := c.Inform(t.Context(), account{Name: "ann", Plan: "old"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "ann", synced(2))
	require.EqualValues(t, 2, row.SyncCount)
	require.Empty(t, row.Errors)
}
