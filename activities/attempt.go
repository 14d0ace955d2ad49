package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/sdk/activity"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Next is what the lifecycle of a resource does after a step.
type Next string

const (
	// NextAttempt is another attempt, after Wait.
	NextAttempt Next = "attempt"
	// NextLapse is expiry or removal, after Wait.
	NextLapse Next = "lapse"
	// NextNone ends the lifecycle: the resource rests for good, or is no more.
	NextNone Next = "none"
)

// Step is what a step came to.
type Step struct {
	// Next and Wait say how the lifecycle goes on.
	Next Next          `json:"next"`
	Wait time.Duration `json:"wait,omitempty"`
	// Generation is that of the row after the step.
	Generation int64 `json:"generation,omitempty"`
	// SyncedGeneration is the newest that was synced.
	SyncedGeneration int64 `json:"synced_generation,omitempty"`
	// State is that of the row after the step; empty where there is no row.
	State deltatype.ResourceState `json:"state,omitempty"`
	// Namespace, Attempt, MaxAttempts, SyncCount and Paused are those of the row.
	Namespace   string `json:"namespace,omitempty"`
	Attempt     int    `json:"attempt,omitempty"`
	MaxAttempts int    `json:"max_attempts,omitempty"`
	SyncCount   int64  `json:"sync_count,omitempty"`
	Paused      bool   `json:"paused,omitempty"`
	// Error is the beginning of the latest error of a row that is not synced.
	Error string `json:"error,omitempty"`
}

// shownTo leaves the error out where object ids are kept from Temporal: it may well name one.
func (s Step) shownTo(ref Ref) Step {
	if ref.HashedID != "" {
		s.Error = ""
	}
	return s
}

// What the errors of a resource say of attempts whose worker died.
const (
	workerLost     = "the worker was lost: it stopped reporting before the attempt ended"
	workerLostLast = "the worker was lost during the last attempt: it stopped reporting before the attempt ended"
)

// Attempt brings the resource one step on: it claims the row, calls Work, and writes what came of it. Two statements,
// with Work between them and in no transaction. Where there is nothing to attempt, it says what the row waits for.
//
// It may run twice, late, or for a row that went on: each write finds the generation and attempt that it was made for,
// or changes nothing.
func (a *Activities) Attempt(ctx context.Context, ref Ref) (Step, error) {
	if err := a.check(ref.Installation, ref.Kind); err != nil {
		// The row, if this database has one of that name, is waiting for a workflow of its own.
		redispatch := db.RedispatchResourceParams{After: time.Second, Kind: ref.Kind, ObjectID: ref.ObjectID}
		if err := db.New().RedispatchResource(ctx, a.Pool, redispatch); err != nil {
			return Step{}, fmt.Errorf("dispatching %s anew: %w", ref, err)
		}
		return Step{}, err
	}
	defer a.heartbeat(ctx)()
	ref, err := a.resolve(ctx, ref)
	if err != nil {
		return Step{}, err
	}

	claimed, err := db.New().ClaimAttempt(ctx, a.Pool, db.ClaimAttemptParams{
		Net:       DispatchNet,
		Lost:      workerLost,
		MaxErrors: MaxErrors,
		Kind:      ref.Kind,
		ObjectID:  ref.ObjectID,
		// The one who claims is the owner, whoever started it.
		WorkflowID: workflowID(ctx),
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return a.unclaimed(ctx, ref)
	}
	if err != nil {
		return Step{}, fmt.Errorf("claiming an attempt of %s: %w", ref, err)
	}
	worked := &claimed.Resource
	row, err := worked.Row()
	if err != nil {
		return Step{}, err
	}
	tx := &txCompletion{activities: a, worked: worked}
	outcome := a.work(ctx, row, tx.complete)
	if tx.used.Load() {
		// The transaction is to have written the outcome, if it was committed.
		got, found, err := a.get(context.WithoutCancel(ctx), ref)
		if err != nil || !found {
			return Step{Next: NextNone}, err
		}
		var committed bool
		if outcome, committed = tx.judged(&got.Resource, outcome); committed {
			a.observe(VerdictSynced, got.Resource.Row)
		}
		if outcome.Verdict == VerdictSynced {
			return step(got.Resource, got.Now), nil // if it was not committed, the row went on without us
		}
	}
	return a.complete(ctx, ref, worked, outcome)
}

// unclaimed says what a row that offers no attempt waits for.
func (a *Activities) unclaimed(ctx context.Context, ref Ref) (Step, error) {
	got, found, err := a.get(ctx, ref)
	if err != nil || !found {
		return Step{Next: NextNone}, err
	}
	if got, found, err = a.awaitBatch(ctx, ref, got); err != nil || !found {
		return Step{Next: NextNone}, err
	}
	r := got.Resource
	if isHeld(r, got.Now) {
		s := step(r, got.Now)
		s.Next, s.Wait = NextAttempt, maxBatchPoll
		return s, nil
	}
	if r.State == deltatype.ResourceStatePending && isLast(&r) && !isOfAnother(ctx, r) {
		// The last attempt was claimed, and its worker died.
		return a.complete(ctx, ref, &r, Outcome{Verdict: VerdictFailed, Error: workerLostLast})
	}
	s := step(r, got.Now)
	if s.Next == NextLapse && a.isOfBatch(ctx, r) || isOfAnother(ctx, r) {
		s.Next, s.Wait = NextNone, 0
	}
	if s.Next == NextAttempt {
		controller, err := db.New().GetController(ctx, a.Pool, ref.Kind)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return Step{}, fmt.Errorf("reading the settings of kind %s: %w", ref.Kind, err)
		}
		if controller.Paused {
			// A dispatcher wakes it when its kind is resumed.
			s.Next, s.Paused = NextNone, true
			return s, nil
		}
		// The row changed between the two statements, or a failed one is due this very moment: no hot loop.
		s.Wait = max(s.Wait, 100*time.Millisecond)
	}
	return s, nil
}

// workflowID is that of the workflow that the activity is of; empty outside of one.
func workflowID(ctx context.Context) string {
	if !activity.IsActivity(ctx) {
		return ""
	}
	return activity.GetInfo(ctx).WorkflowExecution.ID
}

// isHeld tells whether a batch may have the row's Work run.
func isHeld(r db.Resource, now time.Time) bool { return r.HeldUntil != nil && r.HeldUntil.After(now) }

// isOfBatch tells whether it is a batch, and not the workflow that looks at the row, that attends to its rest. That may be
// so where the kind has no batches any more.
func (a *Activities) isOfBatch(ctx context.Context, r db.Resource) bool {
	return !r.Alone && namesAnother(ctx, r)
}

// isOfAnother tells whether the attempt that runs, or was lost, is that of another workflow, which goes on with it.
func isOfAnother(ctx context.Context, r db.Resource) bool {
	return r.State == deltatype.ResourceStatePending && r.Alone && namesAnother(ctx, r)
}

// namesAnother tells whether the row names another workflow than the one that looks at it.
func namesAnother(ctx context.Context, r db.Resource) bool {
	id := workflowID(ctx)
	return id != "" && r.WorkflowID != nil && *r.WorkflowID != id
}

const (
	batchPoll    = 20 * time.Millisecond
	maxBatchPoll = time.Second
	// batchPatience is how long an attempt waits for a batch before its workflow has a say again.
	batchPatience = 20 * time.Second
)

// awaitBatch waits until no batch has the row's Work run, or for some time.
func (a *Activities) awaitBatch(ctx context.Context, ref Ref, got db.GetResourceRow) (_ db.GetResourceRow, found bool, err error) {
	found = true
	end := time.Now().Add(batchPatience)
	for wait := batchPoll; found && isHeld(got.Resource, got.Now) && time.Now().Before(end); wait = min(2*wait, maxBatchPoll) {
		select {
		case <-ctx.Done():
			return got, false, ctx.Err()
		case <-time.After(wait):
		}
		if got, found, err = a.get(ctx, ref); err != nil {
			return got, false, err
		}
	}
	return got, found, nil
}

// maxShownError bounds what of an error enters a history.
const maxShownError = 300

// step reads off a row how its lifecycle goes on.
func step(r db.Resource, now time.Time) Step {
	s := Step{
		Next:             NextNone,
		Generation:       r.Generation,
		SyncedGeneration: r.SyncedGeneration,
		State:            r.State,
		Namespace:        r.Namespace,
		Attempt:          int(r.Attempt - r.Snoozes),
		MaxAttempts:      int(r.MaxAttempts),
		SyncCount:        r.SyncCount,
		Paused:           r.Paused,
	}
	switch r.State {
	case deltatype.ResourceStateScheduled, deltatype.ResourceStateExpired, deltatype.ResourceStateFailed, deltatype.ResourceStatePending:
		if r.Paused {
			return s // a dispatcher wakes it when it is resumed
		}
		s.Next = NextAttempt
	case deltatype.ResourceStateSynced, deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted:
		if r.DueAt == nil {
			return s
		}
		s.Next = NextLapse
	case deltatype.ResourceStateUnknown:
		return s
	}
	if r.DueAt != nil {
		s.Wait = max(r.DueAt.Sub(now), 0)
	}
	if n := len(r.Errors); n > 0 && r.State != deltatype.ResourceStateSynced {
		var latest deltatype.AttemptError
		if json.Unmarshal(r.Errors[n-1], &latest) == nil {
			s.Error = bound(latest.Error, maxShownError)
		}
	}
	return s
}

// complete writes the outcome, fenced by the generation and attempt of the row that was worked.
func (a *Activities) complete(ctx context.Context, ref Ref, worked *db.Resource, outcome Outcome) (Step, error) {
	// The outcome is worth keeping even when the activity's context has ended: without it Work runs once more.
	ctx = context.WithoutCancel(ctx)
	// Encoded once: a write that is repeated adds the same entry, or none.
	encoded, err := encodeError(countedAttempt(worked), outcome)
	if err != nil {
		return Step{}, err
	}
	var written db.GetResourceRow
	err = retry(ctx, func(ctx context.Context) (err error) {
		written, err = a.write(ctx, worked, outcome, encoded)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		// The row went on without us, or it holds our outcome already and only the answer was lost.
		got, found, err := a.get(ctx, ref)
		if err != nil || !found {
			return Step{Next: NextNone}, err
		}
		return step(got.Resource, got.Now), nil
	}
	if err != nil {
		return Step{}, fmt.Errorf("writing the outcome of attempt %d of %s/%s, generation %d: %w",
			countedAttempt(worked), ref.Kind, ref.ObjectID, worked.Generation, err)
	}
	a.observe(outcome.Verdict, written.Resource.Row)
	return step(written.Resource, written.Now), nil
}

// observe tells who wants to know what was written.
func (a *Activities) observe(verdict Verdict, row func() (*deltatype.ResourceRow, error)) {
	if a.Observed != nil {
		a.Observed(verdict, row)
	}
}

// countedAttempt is the attempt as it counts against the most there may be: a snoozed one does not. What fences a write is the
// number in the row, which never repeats.
func countedAttempt(r *db.Resource) int { return int(r.Attempt - r.Snoozes) }

// isLast tells whether there is no attempt after this one.
func isLast(r *db.Resource) bool { return countedAttempt(r) >= int(r.MaxAttempts) }

func (a *Activities) writeSynced(ctx context.Context, conn db.DBTX, worked *db.Resource) (db.GetResourceRow, error) {
	row, err := db.New().CompleteSynced(ctx, conn, db.CompleteSyncedParams{
		ID: worked.ID, Generation: worked.Generation, Attempt: worked.Attempt,
		Namespace: worked.Namespace, DefaultExpiry: a.Rest.Expiry, DefaultRetention: a.Rest.SyncedRetention, Grace: DueGrace,
	})
	return db.GetResourceRow(row), err
}

func (a *Activities) write(ctx context.Context, worked *db.Resource, outcome Outcome, encoded []byte) (db.GetResourceRow, error) {
	q := db.New()
	switch {
	case outcome.Verdict == VerdictSynced:
		return a.writeSynced(ctx, a.Pool, worked)
	case outcome.Verdict == VerdictSnoozed:
		row, err := q.CompleteSnoozed(ctx, a.Pool, db.CompleteSnoozedParams{
			ID: worked.ID, Generation: worked.Generation, Attempt: worked.Attempt,
			SnoozeFor: outcome.SnoozeFor, DispatchAfter: outcome.SnoozeFor + DueGrace,
		})
		return db.GetResourceRow(row), err
	case outcome.Verdict == VerdictDeleted:
		row, err := q.CompleteDeleted(ctx, a.Pool, db.CompleteDeletedParams{
			ID: worked.ID, Generation: worked.Generation, Attempt: worked.Attempt,
			Namespace: worked.Namespace, DefaultRetention: a.Rest.DeletedRetention, Grace: DueGrace,
			Error: encoded, MaxErrors: MaxErrors,
		})
		return db.GetResourceRow(row), err
	case outcome.Verdict == VerdictDegraded || isLast(worked):
		row, err := q.CompleteDegraded(ctx, a.Pool, db.CompleteDegradedParams{
			ID: worked.ID, Generation: worked.Generation, Attempt: worked.Attempt,
			Namespace: worked.Namespace, DefaultRetention: a.Rest.DegradedRetention, Grace: DueGrace,
			Error: encoded, MaxErrors: MaxErrors,
		})
		return db.GetResourceRow(row), err
	default:
		after := a.Retry.Backoff(countedAttempt(worked))
		row, err := q.CompleteFailed(ctx, a.Pool, db.CompleteFailedParams{
			ID: worked.ID, Generation: worked.Generation, Attempt: worked.Attempt,
			RetryAfter: after, DispatchAfter: after + DueGrace, Error: encoded, MaxErrors: MaxErrors,
		})
		return db.GetResourceRow(row), err
	}
}

// encodeError makes the entry for the row's errors. Postgres has no NUL in JSON text.
func encodeError(attempt int, outcome Outcome) ([]byte, error) {
	return json.Marshal(deltatype.AttemptError{
		At:      time.Now().UTC(),
		Attempt: attempt,
		Error:   bound(outcome.Error, maxErrorBytes),
		Trace:   bound(outcome.Trace, maxTraceBytes),
	})
}

func bound(s string, limit int) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
	if len(s) <= limit {
		return s
	}
	const mark = " … (cut)"
	return strings.ToValidUTF8(s[:limit-len(mark)], "") + mark
}

const (
	writeTimeout = 10 * time.Second
	writeTries   = 6
)

// retry repeats a write that failed for a passing reason, for about half a minute. The write is fenced, so one that
// took effect although its answer was lost does no harm when it is repeated.
func retry(ctx context.Context, do func(context.Context) error) error {
	for try := 1; ; try++ {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, writeTimeout)
			defer cancel()
			return do(ctx)
		}()
		if err == nil || try == writeTries || !isPassing(err) {
			return err
		}
		time.Sleep(time.Second << (try - 1) / 2)
	}
}

// isPassing tells whether the database may well accept the same statement a little later: the connection broke, the server is
// shutting down, starting, out of resources, or no longer the primary, or it had to choose a victim, or a lock was waited for in vain.
func isPassing(err error) bool {
	if errors.Is(err, pgx.ErrNoRows) {
		return false
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true
	}
	const readOnly, lockNotAvailable = "25006", "55P03"
	class := pg.Code[:min(len(pg.Code), 2)]
	return pg.Code == readOnly || pg.Code == lockNotAvailable || class == "08" || class == "40" || class == "53" || class == "57"
}
