package db_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
)

// settledStatements end retentions and carry out commands.
func settledStatements(few int) map[string]frequent {
	q := db.New()
	return map[string]frequent{
		"EndRetention": {
			before: "due_at = now() - interval '1 s', claim = gen_random_uuid(), claimed_until = now() - interval '1 s'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				row, err := q.EndRetention(ctx, conn, db.EndRetentionParams{Ids: ids, WholeKind: true, DefaultSyncedRetention: time.Hour})
				return int(row.Removed), err
			},
			does: few, most: 8 * few,
		},
		"SettledMembers": {
			before: "workflow_id = 'batch/1'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				rows, err := q.SettledMembers(ctx, conn, db.SettledMembersParams{Ids: ids, WorkflowID: "batch/1"})
				return len(rows), err
			},
			does: few, most: 2 * few,
		},
		"RescheduleSettled": {
			before: "state = 'synced'", // two days ago, and rows are kept for one
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				kinds, err := q.RescheduleSettled(ctx, conn, db.RescheduleSettledParams{Ids: ids, Namespace: "default", Earliest: 0.05})
				return len(kinds), err
			},
			does: few, most: 3 * few,
		},
		"WakeUnlisted": {
			before: waitsUnlisted + ", shard = CASE WHEN object_id <= '000500' THEN 'eu' END",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if err := listsAll(ctx, conn); err != nil {
					return 0, err
				}
				eu := "eu"
				woken, err := q.WakeUnlisted(ctx, db.Planned(conn, 1000), db.WakeUnlistedParams{Kind: "thing", Shard: &eu, AfterShard: eu, Page: 1000, DefaultDeletedRetention: time.Hour})
				if woken.Looked != 5 || woken.LastShard != eu {
					err = errors.Join(err, fmt.Errorf("it looks at %+v", woken))
				}
				return int(woken.Woken), err
			},
			does: 5, most: 6 * 5,
		},
		"WakeUnlisted, the last page": {
			before: waitsUnlisted,
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				if err := listsAll(ctx, conn); err != nil {
					return 0, err
				}
				after := slices.Sorted(slices.Values(ids))[few-10]
				woken, err := q.WakeUnlisted(ctx, db.Planned(conn, 1000), db.WakeUnlistedParams{Kind: "thing", AfterID: after, Page: 1000, DefaultDeletedRetention: time.Hour})
				return int(woken.Woken), err
			},
			does: 9, most: 6 * 9,
		},
		"ShardsAwaitingListing": {
			before: waitsUnlisted + ", shard = CASE WHEN object_id <= '000500' THEN 'eu' WHEN object_id <= '002000' THEN 'us' END",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				shards, err := q.ShardsAwaitingListing(ctx, db.Planned(conn, 1000), "thing")
				return len(shards), err
			},
			does: 3, most: 4 * 3,
		},
		"RetryResources": {
			before: "state = 'degraded'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				rows, err := q.RetryResources(ctx, conn, db.RetryResourcesParams{Ids: ids, States: []string{"degraded"}})
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
		"DueForDispatch": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.DueForDispatch(ctx, conn, db.DueForDispatchParams{Kind: "thing", Longest: 15 * time.Minute})
				return len(rows), err
			},
			does: few, most: 2 * few,
		},
		"DispatchNow": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				return few, q.DispatchNow(ctx, conn, ids)
			},
			does: few, most: 4 * few,
		},
		"MatchingResources, CountMatchingResources": {
			before: `state = 'degraded', errors = ARRAY['{"error": "100% wrong"}'::jsonb]`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if err := planEachTime(ctx, conn); err != nil {
					return 0, err
				}
				ids, err := q.MatchingResources(ctx, db.Planned(conn, 1000), db.MatchingResourcesParams{
					Kinds: none, ObjectIds: none, Namespaces: none, Shards: none, States: []string{"degraded"}, Tags: none, Labels: []byte("{}"), Error: "wrong", Batch: 200,
				})
				if err != nil {
					return 0, err
				}
				n, err := q.CountMatchingResources(ctx, db.Planned(conn, 1000), db.CountMatchingResourcesParams{
					Kinds: []string{"thing"}, ObjectIds: none, Namespaces: none, Shards: none, States: []string{"degraded"}, Tags: none, Labels: []byte("{}"), Most: 10_000,
				})
				if int(n) != len(ids) {
					err = errors.Join(err, fmt.Errorf("counted are %d, and there are %d", n, len(ids)))
				}
				return len(ids), err
			},
			does: few, most: 2 * 2 * few,
		},
		"MatchingLate, CountMatchingLate": {
			before: "state = 'scheduled', due_at = now() - interval '1 hour', dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if err := planEachTime(ctx, conn); err != nil {
					return 0, err
				}
				p := db.MatchingLateParams{
					Kinds: []string{"thing"}, ObjectIds: none, Namespaces: none, Shards: none, States: none, Tags: none, Labels: []byte("{}"), Batch: 10_000,
					Grace: time.Minute, Longest: 15 * time.Minute,
				}
				ids, err := q.MatchingLate(ctx, db.Planned(conn, 1000), p)
				if err != nil {
					return 0, err
				}
				p.Ids = ids
				again, err := q.MatchingLate(ctx, db.Planned(conn, 1000), p)
				if err != nil {
					return 0, err
				}
				n, err := q.CountMatchingLate(ctx, db.Planned(conn, 1000), db.CountMatchingLateParams{
					Kinds: none, ObjectIds: none, Namespaces: none, Shards: none, States: []string{"scheduled"}, Tags: none, Labels: []byte("{}"), Most: 10_000,
					Grace: time.Minute, Longest: 15 * time.Minute,
				})
				if int(n) != len(ids) || len(again) != len(ids) {
					err = errors.Join(err, fmt.Errorf("counted are %d, there are %d, and again %d", n, len(ids), len(again)))
				}
				return len(ids), err
			},
			does: few, most: 3 * 4 * few,
		},
	}
}

// waitsUnlisted are assignments to rows that were deleted explicitly, whose retention has passed, and which wait for a complete listing.
const waitsUnlisted = "state = 'deleted', cause = 'command', due_at = NULL, dispatch_at = NULL"

// listsAll has the tests' kind have complete listings, of which one has just begun.
func listsAll(ctx context.Context, conn db.DBTX) error {
	_, err := conn.Exec(ctx, "INSERT INTO delta_controller (name, inform_interval, lists_all) VALUES ('thing', '0', TRUE)")
	if err == nil {
		_, err = conn.Exec(ctx, "INSERT INTO delta_shard (kind, shard, last_full_listing) VALUES ('thing', '', now()), ('thing', 'eu', now())")
	}
	return err
}
