package activities_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// batchOf leases resources to a batch.
func (h *harness) batchOf(refs ...activities.Ref) activities.Batch {
	h.t.Helper()
	batch := activities.Batch{Installation: h.Installation, Kind: kind, WorkflowID: "batch"}
	var ids []int64
	for _, ref := range refs {
		h.set(ref, "workflow_id = 'batch'")
		ids = append(ids, h.row(ref).ID)
	}
	batch.IDs = activities.PackNumbers(ids)
	return batch
}

// attemptIn makes an attempt of a resource in a workflow of its own, or in a batch.
func (h *harness) attemptIn(batched bool, ref activities.Ref) {
	h.t.Helper()
	if !batched {
		h.attempt(ref)
		return
	}
	_, err := h.AttemptBatch(context.Background(), h.batchOf(ref))
	require.NoError(h.t, err)
}

// singleAndBatch runs a test with a workflow for the resource alone, and with a batch.
func singleAndBatch(t *testing.T, test func(t *testing.T, batched bool)) {
	for _, batched := range []bool{false, true} {
		t.Run(fmt.Sprintf("batched: %t", batched), func(t *testing.T) {
			t.Parallel()
			test(t, batched)
		})
	}
}

// renewClaim makes a claim last longer in delta_claim only, as when Work takes long.
func (h *harness) renewClaim(ref activities.Ref) {
	h.t.Helper()
	h.set(ref, "claimed_until = now()")
	err := db.New().RenewClaims(context.Background(), h.env.Pool, db.RenewClaimsParams{Claims: []string{h.claimOf(ref)}, ClaimFor: time.Hour})
	require.NoError(h.t, err)
}

// The claim took effect, and the connection broke before its answer came. It is repeated as the same attempt, not as one of a
// lost worker.
func TestAClaimWhoseAnswerIsLostIsTheSameAttempt(t *testing.T) {
	t.Parallel()
	singleAndBatch(t, func(t *testing.T, batched bool) {
		var l losing
		var given *deltatype.ResourceRow
		h := newHarness(t, func(_ context.Context, row *deltatype.ResourceRow) activities.Outcome {
			given = row
			return synced
		})
		o := object("a", "1")
		o.MaxAttempts = 1
		ref := h.inform(o)
		h.Pool = otherPool(t, h, l.configure)
		l.armed.Store(true)
		h.attemptIn(batched, ref)
		require.EqualValues(t, 1, l.lost.Load(), "the answer was not lost: the test shows nothing")
		require.EqualValues(t, 1, h.handler.worked.Load())
		require.Equal(t, 1, given.Attempt)
		row := h.row(ref)
		require.Equal(t, deltatype.ResourceStateSynced, row.State)
		require.Equal(t, 1, row.Attempt)
		require.Empty(t, row.Errors)
	})
}

// What is claimed only so that its loss can be written is still that when the answer to the claim is lost.
func TestAClaimOfAnExhaustedResourceWhoseAnswerIsLostCallsNoWork(t *testing.T) {
	t.Parallel()
	singleAndBatch(t, func(t *testing.T, batched bool) {
		var l losing
		h := newHarness(t, nil)
		o := object("a", "1")
		o.MaxAttempts = 1
		ref := h.inform(o)
		h.loseAttempt(ref)
		h.Pool = otherPool(t, h, l.configure)
		l.armed.Store(true)
		h.attemptIn(batched, ref)
		require.EqualValues(t, 1, l.lost.Load(), "the answer was not lost: the test shows nothing")
		row := h.row(ref)
		require.Equal(t, deltatype.ResourceStateDegraded, row.State)
		require.Equal(t, 1, row.Attempt)
		require.Len(t, row.Errors, 1)
		require.Contains(t, row.Errors[0].Error, "lost during the last attempt")
	})
}

// Only time, and the outcome, end a claim: another execution waits, whether the row says that the claim is alive or delta_claim does.
func TestALivingClaimIsNeverTakenOverAndADeadOneIs(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]func(h *harness, ref activities.Ref){
		"as claimed": func(*harness, activities.Ref) {},
		"renewed":    (*harness).renewClaim,
	} {
		for _, generation := range []int64{1, 2} {
			t.Run(fmt.Sprintf("%s, generation %d", name, generation), func(t *testing.T) {
				t.Parallel()
				singleAndBatch(t, func(t *testing.T, batched bool) {
					h := newHarness(t, does(synced))
					ref := h.inform(object("a", "1"))
					batch := h.batchOf(ref)
					claim := h.claim(ref)
					if generation == 2 {
						h.inform(object("a", "2")) // while Work runs
					}
					h.set(ref, "workflow_id = 'batch'")
					keep(h, ref)
					before := h.row(ref)
					if batched {
						step, err := h.AttemptBatch(t.Context(), batch)
						require.NoError(t, err)
						require.Equal(t, 1, step.Claimed)
						require.Zero(t, step.Resting)
						require.Positive(t, step.Wait)
					} else {
						step := h.attempt(ref)
						require.Equal(t, activities.NextAttempt, step.Next)
						require.Greater(t, step.Wait, time.Second, "it waits for the end of the claim")
					}
					require.Zero(t, h.handler.worked.Load())
					require.Equal(t, before, h.row(ref))
					require.Equal(t, claim, h.claimOf(ref))

					h.killClaim(ref)
					h.attemptIn(batched, ref)
					row := h.row(ref)
					require.EqualValues(t, 1, h.handler.worked.Load())
					require.Equal(t, deltatype.ResourceStateSynced, row.State)
					if generation == 1 {
						require.Equal(t, 2, row.Attempt, "the dead one counts")
						require.Len(t, row.Errors, 1)
					} else {
						require.Equal(t, 1, row.Attempt, "it was of another generation")
					}
				})
			})
		}
	}
}

// The id that a dispatcher has seen may be another resource's since a failover.
func TestAnAttemptThatClaimsAnotherResourceGivesItBack(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(synced))
	ref, other := h.inform(object("a", "1")), h.inform(object("b", "1"))
	ref.ID = h.row(other).ID
	require.Equal(t, deltatype.ResourceStateSynced, h.attempt(ref).State)
	row := h.row(other)
	require.Equal(t, deltatype.ResourceStateScheduled, row.State)
	require.Zero(t, row.Attempt)
	require.Nil(t, row.ClaimedUntil)
	require.False(t, row.DueAt.After(h.now()))
	require.Equal(t, deltatype.ResourceStateSynced, h.attempt(other).State)
	require.Empty(t, h.row(other).Errors)
}

// Of a batch, too.
func TestAnOutcomeIsFencedByItsClaim(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(h *harness, ref activities.Ref){
		"the claim was replaced": func(h *harness, ref activities.Ref) {
			h.killClaim(ref)
			h.claim(ref)
		},
		"the claim was closed": func(h *harness, ref activities.Ref) { h.set(ref, "claimed_until = NULL") },
		"the id is another object's": func(h *harness, ref activities.Ref) {
			_, err := h.env.Pool.Exec(context.Background(), `
				WITH gone AS (DELETE FROM delta_resource RETURNING *)
				INSERT INTO delta_resource (id, kind, object_id, namespace, hash, object, max_attempts, state, attempt, due_at, dispatch_at)
				OVERRIDING SYSTEM VALUE
				SELECT id, kind, 'b', namespace, hash, object, max_attempts, state, attempt, due_at, dispatch_at FROM gone`)
			require.NoError(h.t, err)
			h.claim(activities.Ref{Kind: kind, ObjectID: "b"})
		},
	} {
		for verdict, outcome := range verdicts {
			t.Run(name+", "+verdict, func(t *testing.T) {
				t.Parallel()
				singleAndBatch(t, func(t *testing.T, batched bool) {
					h := newHarness(t, nil)
					var before []db.Resource
					ref := h.inform(object("a", "1"))
					h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
						replace(h, ref)
						before = h.allRows()
						return outcome
					}
					h.attemptIn(batched, ref)
					require.Len(t, before, 1)
					require.Equal(t, before, h.allRows())
				})
			})
		}
	}
}

// allRows returns the resources as they are stored.
func (h *harness) allRows() []db.Resource {
	h.t.Helper()
	none := []string{}
	rows, err := db.New().ListResources(context.Background(), h.env.Pool, db.ListResourcesParams{
		Kinds: none, ObjectIds: none, Namespaces: none, Shards: none, States: none, Tags: none, Labels: []byte("{}"), Batch: 100,
	})
	require.NoError(h.t, err)
	return rows
}

// What metrics and hooks are told goes by the row: nothing has degraded where a newer generation, or nothing, is left to sync.
func TestALastAttemptThatIsSupersededDegradesNothing(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]struct {
		during    func(h *harness, ref activities.Ref)
		degraded  []bool
		unwritten []string
	}{
		"alone":    {func(*harness, activities.Ref) {}, []bool{true}, nil},
		"informed": {func(h *harness, _ activities.Ref) { h.inform(object("a", "2")) }, []bool{false}, nil},
		"withdrawn": {func(h *harness, ref activities.Ref) {
			h.set(ref, "claimed_until = NULL, claim = NULL, state = 'deleted'")
		}, nil, []string{"no"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			singleAndBatch(t, func(t *testing.T, batched bool) {
				h := newHarness(t, nil)
				ref := h.inform(object("a", "1"))
				h.set(ref, "max_attempts = 1")
				h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
					act.during(h, ref)
					return activities.Outcome{Verdict: activities.VerdictFailed, Error: "no"}
				}
				var degraded []bool
				var unwritten []string
				h.Observed = func(o activities.Observation) {
					if o.IsUnwritten {
						unwritten = append(unwritten, o.Error)
						return
					}
					degraded = append(degraded, o.IsDegraded)
				}
				h.attemptIn(batched, ref)
				require.Equal(t, act.degraded, degraded)
				require.Equal(t, act.unwritten, unwritten)
			})
		})
	}
}

// As after an answer that was lost.
func TestAnOutcomeThatIsWrittenAgainHasNoSecondEffect(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	for _, state := range []string{"synced", "failed", "degraded", "deleted", "scheduled"} {
		for _, movedOn := range []bool{false, true} {
			for _, kept := range []bool{false, true} {
				name := fmt.Sprintf("%s, moved on: %t, kept: %t", state, movedOn, kept)
				ref := h.inform(object(name, "1"))
				claim := h.claim(ref)
				worked := h.row(ref)
				if movedOn {
					h.inform(object(name, "2"))
				}
				params := outcomeOf(worked, claim, state)
				params.Kept[0] = kept
				rows, err := db.New().WriteOutcomes(t.Context(), h.Pool, params)
				require.NoError(t, err)
				require.Len(t, rows, 1, name)
				first := h.row(ref)
				require.Equal(t, kept, first.ClaimedUntil != nil, name)
				for range 2 {
					_, err := db.New().WriteOutcomes(t.Context(), h.Pool, params)
					require.NoError(t, err)
					again := h.row(ref)
					if movedOn && kept {
						again.DispatchAt = first.DispatchAt // it is due: a dispatcher looks at it at once, once more
					}
					require.Equal(t, first, again, name)
				}
				standing, err := db.New().StandingOutcomes(t.Context(), h.Pool, db.StandingOutcomesParams{
					Ids: params.Ids, Generations: params.Generations, Claim: claim,
				})
				require.NoError(t, err)
				require.Len(t, standing, 1, name)
				if !kept || !movedOn {
					require.False(t, standing[0].Open, "%s: it is written for ever", name)
				}
			}
		}
	}
}

// Nothing that Work writes to, or is fenced by, is removed while it runs.
func TestAResourceWhoseClaimIsAliveIsNotRemoved(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]func(h *harness, ref activities.Ref){
		"as claimed": func(*harness, activities.Ref) {},
		"renewed":    (*harness).renewClaim,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, nil)
			ref := h.inform(object("a", "1"))
			batch := h.batchOf(ref)
			h.claim(ref)
			_, err := activities.RunCommand(t.Context(), h.Pool, kind, "a", activities.CommandDelete, h.Retention)
			require.NoError(t, err)
			h.passRetention(ref)
			keep(h, ref)
			h.set(ref, "workflow_id = 'batch'")
			before := h.row(ref)
			step := h.endRetention(ref)
			require.Equal(t, activities.NextRetention, step.Next)
			require.Greater(t, step.Wait, time.Second, "it waits for the end of the claim")
			require.Equal(t, before, h.row(ref))
			resting, err := h.EndBatchRetention(t.Context(), batch)
			require.NoError(t, err)
			require.Equal(t, 1, resting.Resting)
			require.Positive(t, resting.Wait)
			require.Equal(t, before, h.row(ref))

			h.killClaim(ref)
			require.Equal(t, activities.Step{Next: activities.NextNone}, h.endRetention(ref))
			require.Nil(t, h.row(ref))
		})
	}
}
