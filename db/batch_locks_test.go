package db_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

var allPriorities = []int16{1, 2, 3, 4, 5}

const nobody = "00000000-0000-0000-0000-000000000000"

// leaseParams lease what is due of the tests' kind, to a batch if it is named.
func leaseParams(batch string) db.LeaseDueParams {
	return db.LeaseDueParams{
		Kind: "thing", Batch: 1000, Lease: time.Minute, Longest: 15 * time.Minute, Grace: time.Minute, BatchPrefix: "batch/", BatchID: batch,
		Largest: 1 << 20, MostLost: 2, Priorities: allPriorities, PassedBy: []string{},
	}
}

// claimParams claim rows, as an execution of a workflow does: of a batch, or of a resource's own if it has no name.
func claimParams(claim, workflow string, ids []int64) db.ClaimResourcesParams {
	return db.ClaimResourcesParams{
		Claim: claim, ClaimFor: time.Minute, WorkflowID: workflow, WholeKind: workflow == "", Lost: "lost", MaxErrors: 5, MostLost: 2,
		Kind: "thing", Ids: ids,
	}
}

// outcomeParams write one outcome for all rows that a claim was given.
func outcomeParams(claim string, state deltatype.ResourceState, rows []db.ClaimResourcesRow) db.WriteOutcomesParams {
	p := db.WriteOutcomesParams{
		Claim: claim, MaxErrors: 5, Lease: time.Minute, DefaultSyncedRetention: time.Hour, DefaultDegradedRetention: time.Hour,
		DefaultDeletedRetention: time.Hour,
	}
	for _, r := range rows {
		p.Ids, p.Generations, p.States = append(p.Ids, r.Resource.ID), append(p.Generations, r.Resource.Generation), append(p.States, string(state))
		p.Delays, p.Graces = append(p.Delays, 0), append(p.Graces, time.Minute)
		p.Counted, p.Snoozed, p.Kept = append(p.Counted, true), append(p.Snoozed, false), append(p.Kept, false)
		p.Errors = append(p.Errors, "")
	}
	return p
}

// Sets of all sorts meet on the same rows, which each has in an order of its own. Those that wait for rows wait in one order, the others
// skip what is locked: so none of them ends in a deadlock, whatever the plan. When it is quiet again every row can be synced.
func TestSetsThatMeetOnTheSameRowsNeverDeadlock(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	const size = 200
	rounds := soak.Count(t, 12, 500)
	for i := range size {
		informSet(t, env.Pool, object(fmt.Sprintf("%03d", size-i), ""), plain)
	}
	var all []int64
	require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT array_agg(id) FROM delta_resource").Scan(&all))
	pools := []*pgxpool.Pool{
		poolWith(t, env, "enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan"),
		poolWith(t, env, "enable_nestloop", "enable_mergejoin", "enable_indexscan"),
		env.Pool,
	}
	seed := newSeed(t)
	var synced atomic.Int64
	states := []string{"scheduled", "pending", "failed", "expired", "synced", "degraded"}
	type shuffled = func() []int64
	// Some of these return what is of no interest here.
	ended := func(_ any, err error) error { return err }
	sets := map[string]func(context.Context, *rand.Rand, *pgxpool.Pool, shuffled) error{
		"inform": func(ctx context.Context, random *rand.Rand, pool *pgxpool.Pool, _ shuffled) error {
			var set []deltatype.ObjectInformParams
			for range size / 2 {
				o := object(fmt.Sprintf("%03d", 1+random.IntN(size)), fmt.Sprint(random.IntN(3)))
				o.Priority = int16(1 + random.IntN(5))
				set = append(set, o)
			}
			options := plain
			options.Revive = random.IntN(2) == 0
			// Not InformRetrying, which would hide it. In a transaction of the user's, rows that were removed or inserted at that very moment are
			// asked for once more, while those before are locked: that may end in a deadlock, as anything there may.
			return ended(db.Inform(ctx, pool, set, options))
		},
		"batch": func(ctx context.Context, random *rand.Rand, pool *pgxpool.Pool, ids shuffled) error {
			n, err := batchOnce(ctx, pool, fmt.Sprintf("batch/%d", random.Int64()), ids)
			synced.Add(int64(n))
			return err
		},
		"single": func(ctx context.Context, _ *rand.Rand, pool *pgxpool.Pool, ids shuffled) error {
			n, err := workOnce(ctx, pool, "", ids())
			synced.Add(int64(n))
			return err
		},
		"leases": func(ctx context.Context, _ *rand.Rand, pool *pgxpool.Pool, ids shuffled) error {
			due, err := db.New().LeaseDue(ctx, pool, leaseParams(""))
			if err != nil {
				return err
			}
			release, named := db.ReleaseLeasesParams{MaxErrors: 5}, db.NameWorkflowsParams{Ids: ids()}
			for _, row := range due {
				release.Ids, release.LeasedUntil = append(release.Ids, row.ID), append(release.LeasedUntil, *row.DispatchAt)
				release.Afters, release.Errors = append(release.Afters, 0), append(release.Errors, `{"attempt": 0, "error": "e"}`)
			}
			for range named.Ids {
				named.WorkflowIds = append(named.WorkflowIds, "own")
			}
			return errors.Join(db.New().NameWorkflows(ctx, pool, named), db.New().ReleaseLeases(ctx, pool, release))
		},
		"commands": func(ctx context.Context, random *rand.Rand, pool *pgxpool.Pool, ids shuffled) error {
			q := db.New()
			switch random.IntN(4) {
			case 0:
				return ended(q.RetryResources(ctx, pool, db.RetryResourcesParams{Ids: ids(), States: states}))
			case 1:
				return ended(q.InvalidateResources(ctx, pool, ids()))
			case 2:
				return ended(q.SyncResources(ctx, pool, ids()))
			default:
				return ended(q.DeleteResources(ctx, pool, db.DeleteResourcesParams{Ids: ids()[:size/4], States: states}))
			}
		},
		"retention": func(ctx context.Context, random *rand.Rand, pool *pgxpool.Pool, ids shuffled) error {
			q := db.New()
			if random.IntN(2) == 0 {
				return ended(q.DeleteMissing(ctx, pool, db.DeleteMissingParams{
					Kind: "thing", Pass: nobody, Began: farAhead, ToObjectID: "z", DefaultRetention: time.Hour,
				}))
			}
			return ended(q.EndRetention(ctx, pool, db.EndRetentionParams{Ids: ids(), WholeKind: true, DefaultExpiry: time.Hour}))
		},
	}
	patience, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(patience)
	start := make(chan struct{})
	n := uint64(0)
	for name, do := range sets {
		for range 2 {
			n++
			random := rand.New(rand.NewPCG(seed, n))
			group.Go(func() error {
				<-start
				for round := range rounds {
					err := do(ctx, random, pools[round%len(pools)], func() []int64 {
						ids := append([]int64(nil), all...)
						random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
						return ids
					})
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
				}
				return nil
			})
		}
	}
	close(start)
	require.NoError(t, group.Wait())

	// Some were removed, and inserted again with new ids.
	err := env.Pool.QueryRow(t.Context(), `WITH released AS (UPDATE delta_resource SET claimed_until = NULL RETURNING id)
		SELECT array_agg(id) FROM released`).Scan(&all)
	require.NoError(t, err)
	_, err = db.New().RetryResources(t.Context(), env.Pool, db.RetryResourcesParams{Ids: all, States: states})
	require.NoError(t, err)
	_, err = workOnce(t.Context(), env.Pool, "", all)
	require.NoError(t, err)
	var unsettled int
	err = env.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource WHERE state NOT IN ('synced', 'deleted')").Scan(&unsettled)
	require.NoError(t, err)
	require.Zero(t, unsettled)
	t.Logf("%d synced meanwhile", synced.Load())
}

// batchOnce leases what is due to a batch, which works it.
func batchOnce(ctx context.Context, pool *pgxpool.Pool, id string, ids func() []int64) (synced int, err error) {
	if _, err := db.New().LeaseDue(ctx, pool, leaseParams(id)); err != nil {
		return 0, err
	}
	return workOnce(ctx, pool, id, ids())
}

// workOnce claims rows, and writes them as synced.
func workOnce(ctx context.Context, pool *pgxpool.Pool, workflow string, ids []int64) (synced int, err error) {
	q, claim := db.New(), uuid.NewString()
	claimed, err := q.ClaimResources(ctx, pool, claimParams(claim, workflow, ids))
	if err != nil {
		return 0, err
	}
	if err := q.RenewClaims(ctx, pool, db.RenewClaimsParams{Claims: []string{claim}, ClaimFor: time.Minute}); err != nil {
		return 0, err
	}
	for len(claimed) > 0 {
		rand.Shuffle(len(claimed), func(i, j int) { claimed[i], claimed[j] = claimed[j], claimed[i] })
		done := outcomeParams(claim, deltatype.ResourceStateSynced, claimed)
		written, err := q.WriteOutcomes(ctx, pool, done)
		if err != nil {
			return synced, err
		}
		synced += len(written)
		left, err := q.StandingOutcomes(ctx, pool, db.StandingOutcomesParams{Ids: done.Ids, Generations: done.Generations, Claim: claim})
		if err != nil {
			return synced, err
		}
		still := map[int64]bool{}
		for _, r := range left {
			still[r.ID] = r.Open
		}
		var locked []db.ClaimResourcesRow
		for _, r := range claimed {
			if still[r.Resource.ID] {
				locked = append(locked, r)
			}
		}
		claimed = locked
	}
	_, err = q.CloseClaims(ctx, pool, db.CloseClaimsParams{Ids: ids, Claim: claim})
	return synced, err
}
