package db_test

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// frequent is a statement, and what there is for it to do.
type frequent struct {
	// before are assignments to few of the rows.
	before string
	do     func(ctx context.Context, conn db.DBTX, ids []int64) (int, error)
	// does is how many rows it is about, and most how many it may read.
	does, most int
}

// frequentStatements are all of them, by the names of their queries.
func frequentStatements(few int) map[string]frequent {
	all := map[string]frequent{}
	for _, some := range []map[string]frequent{dispatchStatements(few), settledStatements(few), informStatements(few), listingStatements(few), readStatements(few), encodingStatements(few)} {
		maps.Copy(all, some)
	}
	return all
}

// dispatchStatements lease, claim, and write outcomes.
func dispatchStatements(few int) map[string]frequent {
	q := db.New()
	claim := uuid.NewString()
	return map[string]frequent{
		"LeaseDue": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() - interval '1 s'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.LeaseDue(ctx, conn, leaseParams("batch/1"))
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
		"NextDispatch": {
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				_, err := q.NextDispatch(ctx, conn, db.NextDispatchParams{Kind: "thing", Looked: time.Minute})
				return 0, err
			},
			does: 0, most: 10,
		},
		"TakeSlots": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() + interval '1 minute', limit_key = 'key'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				if err := limitKeys(ctx, conn, 10); err != nil {
					return 0, err
				}
				rows, err := q.TakeSlots(ctx, conn, db.TakeSlotsParams{Kind: "thing", Ids: ids, Begins: true, Lease: time.Minute})
				return len(rows), err
			},
			does: few - 10, most: 6 * few,
		},
		"QueueDue": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() - interval '1 s', limit_key = 'key'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if err := limitKeys(ctx, conn, 10); err != nil {
					return 0, err
				}
				rows, err := q.QueueDue(ctx, conn, db.QueueDueParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
				return len(rows), err
			},
			does: few - 10, most: 6 * few,
		},
		"PutOffSnoozed": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() - interval '1 s', namespace = 'asleep'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				_, err := conn.Exec(ctx, "INSERT INTO delta_namespace (name, snoozed_until) VALUES ('asleep', now() + interval '1 hour')")
				if err != nil {
					return 0, err
				}
				n, err := q.PutOffSnoozed(ctx, conn, db.PutOffSnoozedParams{Kind: "thing", Priorities: allPriorities, Batch: 1000})
				return int(n), err
			},
			does: few, most: 4 * few,
		},
		"WakeKeys": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = NULL, queued_at = now(), limit_key = 'key'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if err := limitKeys(ctx, conn, 10); err != nil {
					return 0, err
				}
				woken, err := q.WakeKeys(ctx, conn, db.WakeKeysParams{Kind: "thing"})
				return int(woken), err
			},
			does: 10, most: 8 * 10,
		},
		"AwaitParents": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() + interval '1 minute', awaited_parents = '{other/000001,other/nobody}'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				rows, err := q.AwaitParents(ctx, conn, db.AwaitParentsParams{Kind: "thing", Ids: ids})
				return len(rows), err
			},
			does: few, most: 12 * few, // each parent is read when the row is chosen, and when it is written
		},
		"WakeChildrenOf": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = NULL, awaited_parents = '{other/000001}'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				woken, err := q.WakeChildrenOf(ctx, conn, db.WakeChildrenOfParams{Kind: "thing", Parents: []string{"other/000001", "other/000002"}, Page: 20})
				return int(woken), err
			},
			does: 20, most: 4 * few,
		},
		"AwaitedParents": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = NULL, awaited_parents = ARRAY['other/' || CASE WHEN object_id > '002000' THEN '000001' ELSE '000002' END]",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.AwaitedParents(ctx, conn, db.AwaitedParentsParams{Kind: "thing", Page: 100})
				return len(rows), err
			},
			does: 2, most: 10,
		},
		"TouchableChildren": {
			before: "parents = '{other/000001,other/000003}', generation_at = now() - interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				now := time.Now().Add(time.Hour)
				rows, err := q.TouchableChildren(ctx, conn, db.TouchableChildrenParams{
					Kind: "thing", Parents: []string{"other/000001", "other/000002"}, ChangedAts: []time.Time{now, now}, Page: 1000,
				})
				return len(rows), err
			},
			does: few, most: 2 * few,
		},
		"TouchChildren": {
			before: "parents = '{other/000001}', generation_at = now() - interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				rows, err := q.TouchChildren(ctx, conn, db.TouchChildrenParams{Ids: ids, ChangedAts: slices.Repeat([]time.Time{time.Now().Add(time.Hour)}, len(ids)), Priority: 4})
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
		"ParentsAbove": {
			before: "parents = ARRAY['thing/' || lpad((object_id::integer / 200 * 100)::text, 6, '0'), 'other/000001']",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.ParentsAbove(ctx, conn, db.ParentsAboveParams{Resources: []string{"thing/004000", "thing/nobody"}, Deepest: 32, Most: 1000})
				return len(rows), err
			},
			does: 6, most: 40, // 40, 20, 10, 5, 2, 1
		},
		"AwaitedAbove": {
			before: "awaited_parents = ARRAY['thing/' || lpad((object_id::integer / 200 * 100)::text, 6, '0'), 'other/000001']",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.AwaitedAbove(ctx, conn, db.AwaitedAboveParams{Resources: []string{"thing/004000", "thing/nobody"}, Deepest: 32, Most: 1000})
				return len(rows), err
			},
			does: 9, most: 60, // these, what is not there, and the other kind's
		},
		"ClaimResources": {
			before: "state = 'scheduled', due_at = now(), claim = gen_random_uuid(), claimed_until = now() - interval '1 s'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				rows, err := q.ClaimResources(ctx, conn, claimParams(claim, "", ids))
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
		"OpenClaims": {
			before: "state = 'pending', claim = gen_random_uuid(), claimed_until = now() + interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				rows, err := q.OpenClaims(ctx, conn, db.OpenClaimsParams{Ids: ids, WholeKind: true})
				return len(rows), err
			},
			does: few, most: 2 * few,
		},
		"LostClaims": {
			before: "state = 'pending', claim = gen_random_uuid(), claimed_until = now() + interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				claims := make([]string, len(ids))
				for i := range claims {
					claims[i] = claim
				}
				rows, err := q.LostClaims(ctx, conn, db.LostClaimsParams{Ids: ids, Claims: claims})
				return len(rows), err
			},
			does: few, most: 2 * few,
		},
		"CloseClaims": {
			before: "state = 'failed', claim = '" + claim + "', claimed_until = now()",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				rows, err := q.CloseClaims(ctx, conn, db.CloseClaimsParams{Ids: ids, Claim: claim})
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
		"WriteOutcomes": {
			before: "state = 'pending', attempt = 1, due_at = NULL, claim = '" + claim + "', claimed_until = now()",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				var claimed []db.ClaimResourcesRow
				for _, id := range ids {
					claimed = append(claimed, db.ClaimResourcesRow{Resource: db.Resource{ID: id, Generation: 1}})
				}
				rows, err := q.WriteOutcomes(ctx, conn, outcomeParams(claim, deltatype.ResourceStateSynced, claimed))
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
		"StandingOutcomes": {
			before: "state = 'pending', attempt = 1, due_at = NULL, claim = '" + claim + "', claimed_until = now()",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				generations := make([]int64, len(ids))
				for i := range generations {
					generations[i] = 1
				}
				rows, err := q.StandingOutcomes(ctx, conn, db.StandingOutcomesParams{Ids: ids, Generations: generations, Claim: claim})
				return len(rows), err
			},
			does: few, most: 2 * few,
		},
		"ReleaseLeases": {
			before: "state = 'scheduled', dispatch_at = '2100-01-01'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				p := db.ReleaseLeasesParams{Ids: ids, MaxErrors: 5}
				for range ids {
					p.LeasedUntil = append(p.LeasedUntil, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))
					p.Afters, p.Errors = append(p.Afters, time.Second), append(p.Errors, `{"attempt": 0, "error": "no"}`)
				}
				return few, q.ReleaseLeases(ctx, conn, p)
			},
			does: few, most: 4 * few,
		},
		"WithholdMembers": {
			before: "state = 'scheduled', due_at = now(), workflow_id = 'batch/1'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				if _, err := conn.Exec(ctx, "INSERT INTO delta_controller (name, inform_interval, snoozed_until) VALUES ('thing', '1 hour', now() + interval '1 hour')"); err != nil {
					return 0, err
				}
				withheld, err := q.WithholdMembers(ctx, conn, db.WithholdMembersParams{Ids: ids, Kind: "thing", WorkflowID: "batch/1"})
				return len(withheld), err
			},
			does: few, most: 3 * few,
		},
	}
}

// planEachTime undoes what the test has set for statements that are planned each time.
func planEachTime(ctx context.Context, conn db.DBTX) error {
	_, err := conn.Exec(ctx, "SET LOCAL plan_cache_mode = auto")
	return err
}

// limitKeys limits the keys of the tests' kind, of which one is to be looked at.
func limitKeys(ctx context.Context, conn db.DBTX, concurrency int) error {
	_, err := conn.Exec(ctx, "INSERT INTO delta_controller (name, inform_interval, key_concurrency) VALUES ('thing', '0', $1)", concurrency)
	if err == nil {
		_, err = conn.Exec(ctx, "INSERT INTO delta_key (kind, limit_key, wake_at) VALUES ('thing', 'key', now())")
	}
	return err
}
