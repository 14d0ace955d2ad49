package activities_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// What an attempt comes to, on the row and for the lifecycle, with the rest of a namespace that nobody configured.
func TestAnAttemptWritesItsOutcome(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outcome     activities.Outcome
		maxAttempts int16
		state       deltatype.ResourceState
		next        activities.Next
		wait        time.Duration
		syncedTo    int64
		errors      []string
	}{
		"synced":       {synced, 10, deltatype.ResourceStateSynced, activities.NextRetention, 24 * time.Hour, 1, nil},
		"failed":       {failed, 10, deltatype.ResourceStateFailed, activities.NextAttempt, time.Second, 0, []string{"boom"}},
		"last attempt": {failed, 1, deltatype.ResourceStateDegraded, activities.NextRetention, 48 * time.Hour, 0, []string{"boom"}},
		"deleted":      {deleted, 10, deltatype.ResourceStateDeleted, activities.NextRetention, 72 * time.Hour, 1, []string{"gone"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var given *deltatype.ResourceRow
			h := newHarness(t, func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
				given = row
				return c.outcome
			})
			o := object("a", "1")
			o.MaxAttempts = c.maxAttempts
			ref := h.inform(o)
			step := h.attempt(ref)

			require.Equal(t, deltatype.ResourceStatePending, given.State)
			require.Equal(t, 1, given.Attempt)
			require.Nil(t, given.DueAt, "while it runs, nothing is due")
			require.Equal(t, 2*activities.HeartbeatTimeout, given.ClaimedUntil.Sub(*given.AttemptedAt), "nor can others claim it")
			require.JSONEq(t, string(o.EncodedObject), string(given.EncodedObject))
			row := h.row(ref)
			require.Equal(t, c.state, row.State)
			require.Equal(t, 1, row.Attempt)
			require.Nil(t, row.ClaimedUntil, "the claim is open")
			require.Equal(t, c.syncedTo, row.SyncedGeneration)
			require.Equal(t, c.syncedTo > 0, row.SyncedAt != nil)
			require.Equal(t, c.errors, errorsOf(row))
			for _, e := range row.Errors {
				require.Equal(t, 1, e.Attempt)
				require.Equal(t, c.outcome.Trace, e.Trace)
			}
			require.Equal(t, c.next, step.Next)
			require.Equal(t, c.state, step.State)
			require.EqualValues(t, 1, step.Generation)
			if c.next == activities.NextAttempt {
				require.InDelta(t, c.wait, step.Wait, float64(c.wait)/10, "the backoff, give or take a tenth")
			} else {
				require.Equal(t, c.wait, step.Wait)
			}
			require.Equal(t, activities.DueGrace, row.DispatchAt.Sub(*row.DueAt), "a dispatcher steps in some time after the timer")
		})
	}
}

// What an attempt that finds nothing to do tells the lifecycle. Work is not called.
func TestAnAttemptOfARowThatOffersNoneSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	for state, next := range map[deltatype.ResourceState]activities.Next{
		deltatype.ResourceStateFailed:   activities.NextAttempt,
		deltatype.ResourceStateSynced:   activities.NextRetention,
		deltatype.ResourceStateDegraded: activities.NextRetention,
		deltatype.ResourceStateDeleted:  activities.NextRetention,
		deltatype.ResourceStateUnknown:  activities.NextNone,
	} {
		ref := h.inform(object(string(state), "1"))
		h.set(ref, fmt.Sprintf("state = '%s', attempt = 3, due_at = now() + interval '1 hour'", state))
		before := h.row(ref)
		began := h.now()
		step := h.attempt(ref)
		ended := h.now()
		require.Equal(t, before, h.row(ref), "%s: the row is changed", state)
		require.Equal(t, next, step.Next, state)
		require.Equal(t, state, step.State)
		if next != activities.NextNone {
			requireWait(t, before, step.Wait, began, ended)
		}
	}
	for _, state := range []deltatype.ResourceState{deltatype.ResourceStateSynced, deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted} {
		ref := h.inform(object("kept "+string(state), "1"))
		h.set(ref, fmt.Sprintf("state = '%s', due_at = NULL", state))
		require.Equal(t, activities.NextNone, h.attempt(ref).Next, "%s: it rests for good", state)
	}
	ref := h.inform(object("changed between the two statements", "1"))
	h.set(ref, "attempt = max_attempts")
	step := h.attempt(ref)
	require.Equal(t, activities.NextAttempt, step.Next)
	require.GreaterOrEqual(t, step.Wait, 100*time.Millisecond, "a hot loop")
	require.Equal(t, activities.Step{Next: activities.NextNone}, h.attempt(activities.Ref{
		Installation: h.Installation, Kind: kind, ObjectID: "no such object",
	}))
}

func TestAFailedRowIsClaimedWhenItIsDueAndNotBefore(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(failed))
	h.Retry.InitialInterval = time.Hour // it is not to be due while the test looks
	ref := h.inform(object("a", "1"))
	first := h.attempt(ref)
	require.EqualValues(t, 1, h.handler.worked.Load())

	again := h.attempt(ref)
	require.EqualValues(t, 1, h.handler.worked.Load(), "Work ran before its time")
	require.Equal(t, activities.NextAttempt, again.Next)
	require.Positive(t, again.Wait)
	require.LessOrEqual(t, again.Wait, first.Wait, "what is left of the wait")

	h.set(ref, "due_at = now()")
	h.attempt(ref)
	require.EqualValues(t, 2, h.handler.worked.Load())
	require.Equal(t, 2, h.row(ref).Attempt)
}

func TestAnAttemptWhoseWorkerWasLostCountsAndIsKeptAsAnError(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(synced))
	var observed []activities.Observation
	h.Observed = func(o activities.Observation) { observed = append(observed, o) }
	ref := h.inform(object("a", "1"))
	h.loseAttempt(ref)
	step := h.attempt(ref)
	require.Equal(t, deltatype.ResourceStateSynced, step.State)
	row := h.row(ref)
	require.Equal(t, 2, row.Attempt)
	require.Len(t, observed, 2, "metrics and hooks hear of it when the next one begins")
	require.Equal(t, activities.VerdictFailed, observed[0].Verdict)
	require.Equal(t, row.Errors[0].Error, observed[0].Error)
	require.EqualValues(t, 1, observed[0].Generation)
	require.Equal(t, 1, observed[0].Attempt)
	require.False(t, observed[0].IsDegraded || observed[0].IsUnwritten)
	was, err := observed[0].Row()
	require.NoError(t, err)
	require.Equal(t, row.Errors, was.Errors)
	require.Equal(t, activities.VerdictSynced, observed[1].Verdict)
	require.Equal(t, 2, observed[1].Attempt)
	require.Len(t, row.Errors, 1)
	require.Equal(t, 1, row.Errors[0].Attempt)
	require.Contains(t, row.Errors[0].Error, "worker was lost")
	require.Equal(t, *row.AttemptedAt, row.Errors[0].At, "it is known to be lost when the next one begins")
}

// The attempt of a lost worker finds the resource paused, and its workflow ends. Its lease lasts for some time yet.
func TestWhatLostItsWorkerWhilePausedIsDispatchedWhenResumed(t *testing.T) {
	t.Parallel()
	q, isDue := db.New(), func(h *harness, ref activities.Ref) bool { return !h.row(ref).DispatchAt.After(h.now()) }
	for what, pause := range map[string]func(h *harness, paused bool) error{
		"resource": func(h *harness, paused bool) error {
			_, err := q.PauseResource(t.Context(), h.Pool, db.PauseResourceParams{Kind: kind, ObjectID: "a", Paused: paused})
			return err
		},
		"kind": func(h *harness, paused bool) error {
			err := q.PauseKind(t.Context(), h.Pool, db.PauseKindParams{Name: kind, Paused: paused})
			if err == nil && !paused {
				var due []int64
				due, err = q.DueForDispatch(t.Context(), h.Pool, db.DueForDispatchParams{Kind: kind, Longest: activities.LongestLease})
				if err == nil {
					err = q.DispatchNow(t.Context(), h.Pool, due)
				}
			}
			return err
		},
	} {
		h := newHarness(t, does(synced))
		ref := h.inform(object("a", "1"))
		h.set(ref, "dispatch_at = now() + interval '15 minutes'")
		h.loseAttempt(ref)
		require.NoError(t, pause(h, true))
		require.Equal(t, activities.NextNone, h.attempt(ref).Next, what)
		require.False(t, isDue(h, ref), what)
		require.NoError(t, pause(h, false))
		require.True(t, isDue(h, ref), what)
		require.Equal(t, deltatype.ResourceStateSynced, h.attempt(ref).State, what)
	}
}

func TestAWorkerLostInTheLastAttemptDegradesTheResource(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	o := object("a", "1")
	o.MaxAttempts = 2
	ref := h.inform(o)
	h.loseAttempt(ref)
	h.loseAttempt(ref)
	step := h.attempt(ref)
	require.Equal(t, activities.NextRetention, step.Next)
	require.Equal(t, 48*time.Hour, step.Wait)
	row := h.row(ref)
	require.Equal(t, deltatype.ResourceStateDegraded, row.State)
	require.Equal(t, 2, row.Attempt)
	require.Len(t, row.Errors, 2)
	require.Equal(t, 2, row.Errors[1].Attempt)
	require.Contains(t, row.Errors[1].Error, "lost during the last attempt")
}

func TestARowKeepsTheLatestErrors(t *testing.T) {
	t.Parallel()
	const attempts = activities.MaxErrors + 3
	h := newHarness(t, func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
		return activities.Outcome{Verdict: activities.VerdictFailed, Error: fmt.Sprint("error ", row.Attempt)}
	})
	o := object("a", "1")
	o.MaxAttempts = attempts + 5
	ref := h.inform(o)
	for n := 1; n <= attempts; n++ {
		h.attempt(ref)
		require.Len(t, h.row(ref).Errors, min(n, activities.MaxErrors))
		h.set(ref, "due_at = now()")
	}
	want := func() (texts []string) {
		for n := attempts - activities.MaxErrors + 1; n <= attempts; n++ {
			texts = append(texts, fmt.Sprint("error ", n))
		}
		return texts
	}()
	require.Equal(t, want, errorsOf(h.row(ref)), "the oldest go first")

	// Lost attempts are bounded just so.
	h.loseAttempt(ref)
	h.claim(ref)
	got := errorsOf(h.row(ref))
	require.Len(t, got, activities.MaxErrors)
	require.Equal(t, append(want[1:], "lost"), got)
}

// The environment turns errors into failures as a worker does: what Temporal does not know as final it repeats for ever.
func TestWorkForAnotherInstallationIsRefusedForGood(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	suite := testsuite.WorkflowTestSuite{}
	suite.SetLogger(log.NewStructuredLogger(h.Logger))
	env := suite.NewTestActivityEnvironment()
	h.OwnQueue = true
	kinds := activities.Kinds{kind: h.Activities}
	kinds.RegisterResource(env)
	kinds.RegisterInform(env)
	ref := h.inform(object("a", "1"))
	h.set(ref, "dispatch_at = now() + interval '15 minutes'")
	before, began := h.row(ref), h.now()

	for _, wrong := range []struct{ installation, kind, errorType string }{
		{"00000000-0000-0000-0000-000000000000", kind, activities.WrongInstallation},
		{h.Installation, "other", "delta.WrongKind"},
	} {
		ref := activities.Ref{Installation: wrong.installation, Kind: wrong.kind, ObjectID: "a"}
		for name, in := range map[string]any{
			activities.AttemptName:      ref,
			activities.EndRetentionName: ref,
			activities.InformPassName:   activities.InformInput{Installation: wrong.installation, Kind: wrong.kind},
		} {
			_, err := env.ExecuteActivity(name, in)
			var final *temporal.ApplicationError
			require.ErrorAs(t, err, &final, name)
			require.Equal(t, wrong.errorType, final.Type(), name)
			require.True(t, final.NonRetryable(), "%s: it is tried again for ever", name)
		}
	}

	// The row waits for a workflow of its own: it gets one soon.
	after := h.row(ref)
	require.WithinRange(t, after.DispatchAt.Add(-time.Second), began, h.now(), "a second after one of the activities")
	before.DispatchAt = after.DispatchAt
	require.Equal(t, before, after, "nothing else of it is changed")
}

func TestARowAtRestIsNotRedispatchedForAnotherInstallation(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	ref := h.inform(object("a", "1"))
	h.set(ref, "state = 'synced', due_at = NULL, dispatch_at = NULL")
	before := h.row(ref)
	_, err := h.Attempt(t.Context(), activities.Ref{Installation: "other", Kind: kind, ObjectID: "a"})
	require.Error(t, err)
	require.Equal(t, before, h.row(ref))
}

func TestTimesAreRightInEveryZoneOfTheSession(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(failed))
	h.Pool = otherPool(t, h, func(c *poolConfig) { c.ConnConfig.RuntimeParams["timezone"] = "Asia/Kolkata" })
	began := time.Now()
	ref := h.inform(object("a", "1"))
	h.loseAttempt(ref)
	h.attempt(ref)
	row := h.row(ref)
	require.Len(t, row.Errors, 2, "one that Postgres wrote, one that Go wrote")
	for _, e := range row.Errors {
		// A wrong zone is hours beside it; the minute is for a server with a clock of its own.
		require.WithinRange(t, e.At, began.Add(-time.Minute), time.Now().Add(time.Minute))
		require.Equal(t, time.UTC, e.At.Location())
	}
}

func TestADatabaseThatDoesNotAnswerTheClaimIsAnErrorAndNoAttempt(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	ref := h.inform(object("a", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Attempt(ctx, ref)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "thing/a")
	_, err = db.New().GetResource(t.Context(), h.Pool, db.GetResourceParams{Kind: kind, ObjectID: "a"})
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateScheduled, h.row(ref).State)
}
