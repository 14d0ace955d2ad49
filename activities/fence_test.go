package activities_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// verdicts are the outcomes of a late attempt.
var verdicts = map[string]activities.Outcome{"synced": synced, "failed": failed, "deleted": deleted}

// An attempt with a dead claim is followed by another one, and may still come back. Whatever its outcome then,
// and however the other one stands, it finds nothing to write to.
func TestALateResultOfAnOlderAttemptChangesNothing(t *testing.T) {
	t.Parallel()
	for late, lateOutcome := range verdicts {
		for _, newer := range []string{"running", "synced", "failed", "deleted", "degraded"} {
			t.Run(late+" after "+newer, func(t *testing.T) {
				t.Parallel()
				var before *deltatype.ResourceRow
				h := newHarness(t, nil)
				o := object("a", "1")
				o.MaxAttempts = 3
				if newer == "degraded" {
					o.MaxAttempts = 2
				}
				ref := h.inform(o)
				h.handler.work = func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
					if row.Attempt == 2 {
						if newer == "degraded" {
							return failed
						}
						return verdicts[newer]
					}
					h.killClaim(ref)
					if newer == "running" {
						h.claim(ref)
					} else {
						h.attempt(ref)
					}
					before = h.row(ref)
					return lateOutcome
				}

				step := h.attempt(ref)
				after := h.row(ref)
				require.Equal(t, before, after)
				require.Equal(t, 2, after.Attempt)
				require.Equal(t, after.State, step.State, "the late one goes on from what the row is")
				if newer == "running" {
					require.Equal(t, deltatype.ResourceStatePending, after.State)
				}
			})
		}
	}
}

// What is informed while Work runs is a newer generation. The result counts for the older one, which was worked.
func TestAResultCountsForTheGenerationThatWasWorked(t *testing.T) {
	t.Parallel()
	for name, outcome := range verdicts {
		for _, maxAttempts := range []int16{1, 10} {
			t.Run(fmt.Sprintf("%s of %d", name, maxAttempts), func(t *testing.T) {
				t.Parallel()
				var before *deltatype.ResourceRow
				h := newHarness(t, nil)
				first, second := object("a", "1"), object("a", "2")
				first.MaxAttempts = maxAttempts
				ref := h.inform(first)
				h.handler.work = func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
					require.JSONEq(t, string(first.EncodedObject), string(row.EncodedObject))
					h.inform(second)
					before = h.row(ref)
					return outcome
				}
				step := h.attempt(ref)
				after := h.row(ref)

				require.Equal(t, activities.Step{Next: activities.NextAttempt, Generation: 2, State: deltatype.ResourceStateScheduled}, step,
					"the newer generation is worked at once")
				require.Equal(t, deltatype.ResourceStateScheduled, after.State)
				require.Zero(t, after.Attempt)
				if outcome.Verdict == activities.VerdictFailed {
					require.Zero(t, after.SyncedGeneration)
				} else {
					require.EqualValues(t, 1, after.SyncedGeneration)
					require.NotNil(t, after.SyncedAt)
				}
				if outcome.Verdict != activities.VerdictSynced {
					require.Equal(t, []string{outcome.Error}, errorsOf(after))
				}
				if outcome.Verdict == activities.VerdictSynced {
					before.SyncCount++
				}
				before.SyncedGeneration, before.SyncedAt, before.Errors = after.SyncedGeneration, after.SyncedAt, after.Errors
				require.NotNil(t, before.ClaimedUntil)
				before.ClaimedUntil = nil
				require.True(t, after.DispatchAt.After(*before.DispatchAt), "it is leased to the workflow that goes on")
				before.DispatchAt = after.DispatchAt
				require.Equal(t, before, after, "nothing else of the newer generation is touched")

				h.handler.work = does(synced)
				require.Equal(t, deltatype.ResourceStateSynced, h.attempt(ref).State)
				require.EqualValues(t, 2, h.row(ref).SyncedGeneration)
			})
		}
	}
}

func TestAnOlderSyncNeverOverwritesANewerOne(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]activities.Outcome{"synced": synced, "deleted": deleted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var before *deltatype.ResourceRow
			h := newHarness(t, nil)
			ref := h.inform(object("a", "1"))
			h.handler.work = func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
				if row.Generation > 1 {
					return synced
				}
				h.inform(object("a", "2"))
				h.killClaim(ref)
				h.attempt(ref) // generation 2 is synced
				h.inform(object("a", "3"))
				before = h.row(ref)
				return late
			}
			h.attempt(ref)
			require.EqualValues(t, 2, before.SyncedGeneration)
			require.Equal(t, before, h.row(ref))
		})
	}
}

func TestTheOutcomeIsWrittenAlthoughTheContextHasEnded(t *testing.T) {
	t.Parallel()
	for name, outcome := range verdicts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			h := newHarness(t, func(ctx context.Context, _ *deltatype.ResourceRow) activities.Outcome {
				cancel()
				<-ctx.Done()
				return outcome
			})
			ref := h.inform(object("a", "1"))
			step, err := h.Attempt(ctx, ref)
			require.NoError(t, err)
			row := h.row(ref)
			require.Equal(t, row.State, step.State)
			require.Equal(t, name, string(row.State))
			if outcome.Verdict == activities.VerdictFailed {
				require.Equal(t, []string{"stopped: boom"}, errorsOf(row))
			}
		})
	}
}

// The answer to the write of an outcome is lost on the way, so the write is repeated: to no further effect.
func TestAnOutcomeWrittenTwiceIsThereOnce(t *testing.T) {
	t.Parallel()
	for name, outcome := range verdicts {
		for _, moved := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, moved on: %t", name, moved), func(t *testing.T) {
				t.Parallel()
				var l losing
				h := newHarness(t, nil)
				users := h.Pool
				h.Pool = otherPool(t, h, l.configure)
				ref := h.inform(object("a", "1"))
				h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
					if moved {
						_, err := db.InformRetrying(t.Context(), users, []deltatype.ObjectInformParams{object("a", "2")},
							db.InformOptions{DefaultMaxAttempts: 10})
						require.NoError(t, err)
					}
					l.armed.Store(true)
					return outcome
				}
				step := h.attempt(ref)
				require.EqualValues(t, 1, l.lost.Load(), "the answer was not lost: the test shows nothing")
				require.EqualValues(t, 1, h.handler.worked.Load())

				row := h.row(ref)
				require.Equal(t, row.State, step.State)
				if moved {
					require.Equal(t, deltatype.ResourceStateScheduled, row.State)
				} else {
					require.Equal(t, name, string(row.State))
				}
				if outcome.Verdict == activities.VerdictSynced {
					require.Empty(t, row.Errors)
				} else {
					require.Equal(t, []string{outcome.Error}, errorsOf(row))
				}
			})
		}
	}
}

// Of one attempt there is one outcome: any other finds nothing to write to when there is one.
func TestAnAttemptThatIsClosedTakesNoOtherOutcome(t *testing.T) {
	t.Parallel()
	for name, outcome := range verdicts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, does(outcome))
			ref := h.inform(object("a", "1"))
			h.attempt(ref)
			before := h.row(ref)
			claim := h.claimOf(ref)
			for _, state := range []string{"synced", "failed", "degraded", "deleted", "scheduled"} {
				require.Empty(t, h.writeOutcome(before, claim, state), state)
			}
			require.Equal(t, before, h.row(ref))
		})
	}
}

func TestAConnectionLostBetweenWorkAndItsOutcomeLosesNothing(t *testing.T) {
	t.Parallel()
	const name = "delta-lost"
	h := newHarness(t, nil)
	server := h.Pool
	h.Pool = otherPool(t, h, func(c *poolConfig) { c.ConnConfig.RuntimeParams["application_name"] = h.env.Schema + name })
	h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		var ended int
		err := server.QueryRow(t.Context(),
			"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1", h.env.Schema+name).Scan(&ended)
		require.NoError(t, err)
		require.Positive(t, ended)
		return synced
	}
	ref := h.inform(object("a", "1"))
	step := h.attempt(ref)
	require.Equal(t, deltatype.ResourceStateSynced, step.State)
	require.Equal(t, activities.NextRetention, step.Next)
	row := h.row(ref)
	require.EqualValues(t, 1, row.SyncedGeneration)
	require.Empty(t, row.Errors)
	require.EqualValues(t, 1, h.handler.worked.Load(), "Work ran again")
}

func TestARowThatIsGoneWhenWorkEndsEndsItsLifecycle(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		_, err := h.Pool.Exec(t.Context(), "DELETE FROM delta_resource")
		require.NoError(t, err)
		return synced
	}
	require.Equal(t, activities.Step{Next: activities.NextNone}, h.attempt(h.inform(object("a", "1"))))
}

// The numbers of a row that was removed and inserted again begin at 1: they are not those of the attempt that still runs.
func TestAResultIsNotThatOfARowMadeAnew(t *testing.T) {
	t.Parallel()
	for name, outcome := range verdicts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var before *deltatype.ResourceRow
			h := newHarness(t, nil)
			ref := h.inform(object("a", "1"))
			h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
				_, err := h.Pool.Exec(t.Context(), "DELETE FROM delta_resource")
				require.NoError(t, err)
				h.inform(object("a", "2"))
				h.claim(ref)
				before = h.row(ref)
				return outcome
			}
			h.attempt(ref)
			require.Equal(t, before, h.row(ref))
		})
	}
}

// Attempts with dead claims count, even though their Work goes on.
func TestEachRunOfWorkIsAnAttemptOfItsOwn(t *testing.T) {
	t.Parallel()
	var attempts []int
	h := newHarness(t, nil)
	ref := h.inform(object("a", "1"))
	h.handler.work = func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
		attempts = append(attempts, row.Attempt)
		if row.Attempt < 4 {
			h.killClaim(ref)
			h.attempt(ref)
		}
		return synced
	}
	began := h.now()
	h.attempt(ref)
	require.Equal(t, []int{1, 2, 3, 4}, attempts)
	row := h.row(ref)
	require.Equal(t, 4, row.Attempt)
	require.Equal(t, deltatype.ResourceStateSynced, row.State)
	require.WithinRange(t, *row.SyncedAt, began, h.now())
}
