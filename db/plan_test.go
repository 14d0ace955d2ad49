package db_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// What Postgres takes for dearer than jit_above_cost, 100,000 unless set otherwise, it compiles at each call: that takes longer
// than to run it. A table that is large and was never analyzed looks dearest.
func TestTheLargestStatementIsNotWorthCompiling(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), `ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE);
		INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts)
		SELECT 'thing', i::text, '{}', '\x00', 'default', 10 FROM generate_series(1, 100000) i`)
	require.NoError(t, err)
	var set []deltatype.ObjectInformParams
	for i := range db.InformPage {
		set = append(set, object(fmt.Sprint(i*97), "changed"))
	}
	explained := &costOf{DBTX: env.Pool}
	_, err = db.Inform(t.Context(), explained, set, plain)
	require.ErrorIs(t, err, errExplained)
	require.Positive(t, explained.cost)
	require.Less(t, explained.cost, 50_000.0)
	t.Logf("%d objects cost %.0f", db.InformPage, explained.cost)
}

var errExplained = errors.New("explained, not run")

// costOf is a connection that has the first statement explained and does not run it.
type costOf struct {
	db.DBTX
	cost float64
}

func (c *costOf) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	var plan []byte
	if err := c.QueryRow(ctx, "EXPLAIN (FORMAT JSON) "+sql, args...).Scan(&plan); err != nil {
		return nil, err
	}
	var explained []struct {
		Plan struct {
			Cost float64 `json:"Total Cost"`
		}
	}
	if err := json.Unmarshal(plan, &explained); err != nil {
		return nil, err
	}
	c.cost = explained[0].Plan.Cost
	return nil, errExplained
}

// What the engine asks for again and again reads what it is about, and not the whole table: whether Postgres
// knows the table or not, and whether it plans a statement with its arguments or once for all of them.
func TestStatementsReadWhatTheyAreAboutAndNotTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	// Of the tests' kind, rest are synced and due in a day, and few are of interest; as many again are of another kind.
	const rest, few = 20_000, 40
	fill := fmt.Sprintf(`
		INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, priority, created_at, synced_at, due_at, dispatch_at)
		SELECT k, lpad(i::text, 6, '0'), '{}', '\x00', 'default', 10, 'synced', 1 + i %% 5, now() - interval '3 days', now() - interval '2 days',
			now() + interval '1 day', now() + interval '1 day'
		FROM unnest('{thing,other}'::text[]) k, generate_series(1, %d) i`, rest)
	beliefs := map[string]string{
		"analyzed":       fill + "; ANALYZE delta_resource, delta_claim, delta_listing",
		"never analyzed": fill,
		"believed empty": fill + "; DELETE FROM delta_resource; VACUUM (ANALYZE, TRUNCATE FALSE) delta_resource; " + fill,
	}
	for belief, made := range beliefs {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(belief+", "+mode, func(t *testing.T) {
				t.Parallel()
				env := deltatest.New(t)
				exec := func(sql string, args ...any) {
					_, err := env.Pool.Exec(t.Context(), sql, args...)
					require.NoError(t, err)
				}
				exec(`ALTER TABLE delta_resource SET (autovacuum_enabled = FALSE); ALTER TABLE delta_claim SET (autovacuum_enabled = FALSE);
					ALTER TABLE delta_listing SET (autovacuum_enabled = FALSE)`)
				for statement := range strings.SplitSeq(made, ";") { // VACUUM wants to be alone
					exec(statement)
				}
				for name, s := range frequentStatements(few) {
					t.Run(name, func(t *testing.T) {
						read := readBy(t, env.Pool, mode, few, s)
						if belief != "believed empty" {
							require.Zero(t, read.sequential, "%s reads the whole table", t.Name())
						}
						require.LessOrEqual(t, read.sequential, 3*2*rest)
						require.Zero(t, read.claims, "it reads all claims")
						most := s.most
						if belief == "believed empty" {
							// Until the table is analyzed it is read as a whole, a few times, and not once for each row.
							most += 3 * 2 * rest
						}
						require.LessOrEqual(t, read.fetched, most, "%s reads more rows than it is about", t.Name())
					})
				}
			})
		}
	}
}

// frequent is a statement, and what there is for it to do.
type frequent struct {
	// before are assignments to few of the rows.
	before string
	do     func(ctx context.Context, conn db.DBTX, ids []int64) (int, error)
	// does is how many rows it is about, and most how many it may read.
	does, most int
}

func frequentStatements(few int) map[string]frequent {
	q := db.New()
	claim, pass := uuid.NewString(), uuid.NewString()
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
		"RaisePriorities": {
			before: "state = 'failed', priority = 5",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				p := db.RaisePrioritiesParams{Ids: ids}
				for range ids {
					p.Priorities = append(p.Priorities, 1)
				}
				rows, err := q.RaisePriorities(ctx, conn, p)
				return len(rows), err
			},
			does: few, most: 4 * few,
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
		"RescheduleSettled": {
			before: "state = 'synced'", // two days ago, and rows are kept for one
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				kinds, err := q.RescheduleSettled(ctx, conn, db.RescheduleSettledParams{Ids: ids, Namespace: "default", Earliest: 0.05})
				return len(kinds), err
			},
			does: few, most: 3 * few,
		},
		"DispatchNow": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				return few, q.DispatchNow(ctx, conn, ids)
			},
			does: few, most: 4 * few,
		},
		"ListResources, ListResourcesDescending of degraded ones": {
			before: "state = 'degraded'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return listed(ctx, conn, []string{"degraded", "failed"}, "")
			},
			does: few, most: 2 * 2 * few,
		},
		"ListResources, ListResourcesDescending with an error": {
			before: `state = 'failed', errors = ARRAY['{"error": "100% wrong"}'::jsonb]`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return listed(ctx, conn, nil, "0% w")
			},
			does: few, most: 2 * 2 * few,
		},
		"ListFew by error": {
			before: `state = 'failed', errors = ARRAY['{"error": "100% wrong"}'::jsonb]`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return listedFew(ctx, conn, "error", false)
			},
			does: few, most: 3 * few,
		},
		"ListFew of late ones": {
			before: "state = 'scheduled', due_at = now() - interval '1 hour', dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return listedFew(ctx, conn, "due", true)
			},
			does: few, most: 6 * few,
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
		"CountLate": {
			before: "state = 'scheduled', due_at = now() - interval '1 hour', dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.CountLate(ctx, conn, db.CountLateParams{Grace: time.Minute, Longest: 15 * time.Minute, Most: 1000})
				if err != nil || len(rows) != 1 {
					return 0, err
				}
				return int(rows[0].Count), err
			},
			does: few, most: 3 * few,
		},
		"ExplainResource": {
			before: "state = 'failed'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				found, err := q.ExplainResource(ctx, conn, db.ExplainResourceParams{Kind: "thing", ObjectID: "000500", Several: 3})
				if found.Resource.ObjectID != "000500" {
					err = errors.Join(err, fmt.Errorf("it is %q", found.Resource.ObjectID))
				}
				return 1, err
			},
			does: 1, most: few,
		},
		"PreviousObject": {
			before: "state = 'synced'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				_, err := conn.Exec(ctx, `SELECT delta_append_change('updated', delta_order_xid(null), 1, 'thing', lpad(g::text, 6, '0'), 'default', 1, 1, '{"a": 1}', '{}', null, null)
					FROM generate_series(1, 1000) g`)
				if err != nil {
					return 0, err
				}
				found, err := q.PreviousObject(ctx, conn, db.PreviousObjectParams{Kind: "thing", ObjectID: "000500"})
				if found.Object != `{"a": 1}` {
					err = errors.Join(err, fmt.Errorf("it is %q", found.Object))
				}
				return 1, err
			},
			does: 1, most: 3,
		},
		"RelatedResources": {
			before: `state = 'pending', parents = '{thing/000500,other/000001}', limit_key = 'key', slot_key = 'key', workflow_id = 'batch/1',
				dispatch_at = now() + interval '1 minute'`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.RelatedResources(ctx, conn, db.RelatedResourcesParams{
					Kind: "thing", ObjectID: "000500", Resource: "thing/000500", Most: 20, Longest: 15 * time.Minute, BatchPrefix: "batch/",
				})
				return len(rows), err
			},
			does: 2 + 3*20, most: 5 * few, // two parents; children, holders of its key, and members of its batch
		},
		"CountClaimed": {
			before: "state = 'pending', claim = gen_random_uuid(), claimed_until = now() + interval '1 minute', dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if err := limitKeys(ctx, conn, 1); err != nil {
					return 0, err
				}
				counted, err := q.CountClaimed(ctx, conn, db.CountClaimedParams{Kind: "thing", Namespace: "default", Longest: 15 * time.Minute})
				return int(counted.OfKind), err
			},
			does: few, most: 3 * few,
		},
		"FirstUnsettled": {
			before: "state = 'failed'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				_, err := conn.Exec(ctx, `INSERT INTO delta_listing (pass, object_id) SELECT $1, object_id FROM delta_resource
					WHERE kind = 'thing'`, pass)
				if err != nil {
					return 0, err
				}
				if _, err := q.FirstUnsettled(ctx, conn, db.FirstUnsettledParams{Kind: "thing", Pass: pass}); err != nil {
					return 0, err
				}
				// Where it left off, there is no need to read what comes before, nor after.
				last, err := q.FirstUnsettled(ctx, conn, db.FirstUnsettledParams{Kind: "thing", Pass: pass, FromObjectID: "000500"})
				if last.ObjectID != "000500" {
					err = errors.Join(err, fmt.Errorf("the first is %q", last.ObjectID))
				}
				return 1, err
			},
			does: 1, most: 3 * few,
		},
		"UnsettledOfPage": {
			before: "state = 'failed'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				_, err := conn.Exec(ctx, `INSERT INTO delta_listing (pass, object_id) SELECT $1, object_id FROM delta_resource
					WHERE kind = 'thing'`, pass)
				if err != nil {
					return 0, err
				}
				page, err := q.UnsettledOfPage(ctx, conn, db.UnsettledOfPageParams{Kind: "thing", Pass: pass, AfterObjectID: "003900", Page: 200})
				if page.Listed != 200 || page.LastObjectID != "004100" {
					err = errors.Join(err, fmt.Errorf("the page has %d, up to %q", page.Listed, page.LastObjectID))
				}
				return int(page.Unsettled), err
			},
			does: 1, most: 2 * 200,
		},
		"DeleteMissing": {
			before: "state = 'synced'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.DeleteMissing(ctx, conn, db.DeleteMissingParams{
					Kind: "thing", Pass: pass, Began: farAhead, AfterObjectID: "010000", ToObjectID: fmt.Sprintf("%06d", 10000+few), DefaultRetention: time.Hour,
				})
				return len(rows), err
			},
			does: few, most: 4 * few,
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
		"PageEnd, CountMissing, NameMissing": {
			before: "state = 'synced'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return countMissing(ctx, conn, "", pass, "010000", few)
			},
			does: few, most: 3 * few,
		},
		"PageEnd, CountMissing, NameMissing of a shard": {
			before: "shard = 'eu', state = (CASE WHEN object_id > '003500' THEN 'synced' ELSE 'deleted' END)::delta_resource_state",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if _, err := conn.Exec(ctx, "SET LOCAL plan_cache_mode = auto"); err != nil { // they are planned each time
					return 0, err
				}
				return countMissing(ctx, conn, "eu", pass, "", few)
			},
			does: 5, most: few + 2*5, // a page is read from the shard on, whatever comes after
		},
		"NameShards": {
			before: `shard = CASE WHEN object_id <= '001500' THEN 'eu' WHEN object_id <= '003500' THEN 'forgotten' ELSE 'left' END,
				state = (CASE WHEN object_id > '003500' THEN 'synced' ELSE 'deleted' END)::delta_resource_state`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if _, err := conn.Exec(ctx, "INSERT INTO delta_shard (kind, shard) VALUES ('thing', 'eu')"); err != nil {
					return 0, err
				}
				rows, err := q.NameShards(ctx, conn, db.NameShardsParams{Kind: "thing", Shards: []string{"us"}})
				return len(rows), err // eu and us, which it knows, and left
			},
			does: 3, most: 2,
		},
		"ForgetShard": {
			before: "shard = 'eu', state = 'deleted'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if _, err := conn.Exec(ctx, "INSERT INTO delta_shard (kind, shard, gone_at) VALUES ('thing', 'eu', now())"); err != nil {
					return 0, err
				}
				n, err := q.ForgetShard(ctx, conn, db.ForgetShardParams{Kind: "thing", Shard: "eu"})
				return int(n), err
			},
			does: 1, most: 1,
		},
	}
}

// none is a part of a filter that asks for nothing.
var none = []string{}

// planEachTime undoes what the test has set for statements that are planned each time.
func planEachTime(ctx context.Context, conn db.DBTX) error {
	_, err := conn.Exec(ctx, "SET LOCAL plan_cache_mode = auto")
	return err
}

// listed lists what is in some states and has an error, from both ends.
func listed(ctx context.Context, conn db.DBTX, states []string, text string) (int, error) {
	if err := planEachTime(ctx, conn); err != nil {
		return 0, err
	}
	states = append([]string{}, states...)
	forwards, err := db.New().ListResources(ctx, db.Planned(conn, 1000), db.ListResourcesParams{
		Kinds: []string{"thing"}, ObjectIds: none, Namespaces: none, Shards: none, States: states, Tags: none, Labels: []byte("{}"), Error: text, Batch: 50,
	})
	if err != nil {
		return 0, err
	}
	backwards, err := db.New().ListResourcesDescending(ctx, db.Planned(conn, 1000), db.ListResourcesDescendingParams{
		BeforeID: math.MaxInt64,
		Kinds:    none, ObjectIds: none, Namespaces: none, Shards: none, States: states, Tags: none, Labels: []byte("{}"), Error: text, Batch: 50,
	})
	if len(backwards) != len(forwards) {
		err = errors.Join(err, fmt.Errorf("from one end there are %d, from the other %d", len(forwards), len(backwards)))
	}
	return len(forwards), err
}

// listedFew lists failing or late rows in an order.
func listedFew(ctx context.Context, conn db.DBTX, sort string, late bool) (int, error) {
	if err := planEachTime(ctx, conn); err != nil {
		return 0, err
	}
	rows, err := db.New().ListFew(ctx, db.Planned(conn, 1000), db.ListFewParams{
		Sort: sort, Late: late, First: true, Batch: 50, Grace: time.Minute, Longest: 15 * time.Minute,
		Kinds: none, ObjectIds: none, Namespaces: none, Shards: none, States: none, Tags: none, Labels: []byte("{}"),
	})
	return len(rows), err
}

// countMissing finds a page, counts what a pass has left out of it, and names that.
func countMissing(ctx context.Context, conn db.DBTX, shard, pass, after string, page int) (int, error) {
	q, planned := db.New(), db.Planned(conn, 1000)
	to, err := q.PageEnd(ctx, planned, db.PageEndParams{Kind: "thing", Shard: shard, AfterObjectID: after, Page: int32(page)})
	if err != nil {
		return 0, err
	}
	counted, err := q.CountMissing(ctx, planned, db.CountMissingParams{Kind: "thing", Shard: shard, Pass: pass, Began: farAhead, AfterObjectID: after, ToObjectID: to})
	if err != nil {
		return 0, err
	}
	names, err := q.NameMissing(ctx, planned, db.NameMissingParams{
		Kind: "thing", Shard: shard, Pass: pass, Began: farAhead, AfterObjectID: after, ToObjectID: to, Most: int32(page),
	})
	if counted.Total != counted.Missing || int64(len(names)) != counted.Missing {
		err = errors.Join(err, fmt.Errorf("counted are %+v, named %d", counted, len(names)))
	}
	return int(counted.Missing), err
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

// limitKeys limits the keys of the tests' kind, of which one is to be looked at.
func limitKeys(ctx context.Context, conn db.DBTX, concurrency int) error {
	_, err := conn.Exec(ctx, "INSERT INTO delta_controller (name, inform_interval, key_concurrency) VALUES ('thing', '0', $1)", concurrency)
	if err == nil {
		_, err = conn.Exec(ctx, "INSERT INTO delta_key (kind, limit_key, wake_at) VALUES ('thing', 'key', now())")
	}
	return err
}

// rowsRead is what a statement has read of delta_resource: rows by reading all of it, and rows by index; of delta_claim by reading all; and of other tables
// either way.
type rowsRead struct{ sequential, fetched, claims, others int }

// readBy runs a statement in a transaction, which is rolled back, and tells what it has read.
func readBy(t *testing.T, pool *pgxpool.Pool, mode string, few int, s frequent) (read rowsRead) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
	_, err = tx.Exec(t.Context(), "SET LOCAL plan_cache_mode = "+mode)
	require.NoError(t, err)
	before := s.before
	if before == "" {
		before = "kind = kind"
	}
	var ids []int64
	err = tx.QueryRow(t.Context(), fmt.Sprintf(`WITH few AS (UPDATE delta_resource SET %s WHERE kind = 'thing'
		AND object_id = ANY (ARRAY(SELECT lpad((i * 100)::text, 6, '0') FROM generate_series(1, %d) i)) RETURNING id)
		SELECT array_agg(id ORDER BY md5(id::text)) FROM few`, before, few)).Scan(&ids)
	require.NoError(t, err)
	require.Len(t, ids, few)
	_, err = tx.Exec(t.Context(), "INSERT INTO delta_claim SELECT gen_random_uuid(), now() + interval '1 hour' FROM generate_series(1, 5000)")
	require.NoError(t, err)

	counted := &countedReads{Tx: tx}
	n, err := s.do(t.Context(), counted, ids)
	require.NoError(t, err)
	require.NoError(t, counted.err)
	require.Equal(t, s.does, n)
	return counted.read
}

// countedReads counts what queries have read; what tests do with Exec is not counted, unless it is one of Delta's statements.
type countedReads struct {
	pgx.Tx
	// of are further tables whose reads are counted.
	of   []string
	read rowsRead
	err  error
}

const readStatistics = `SELECT sum(seq_tup_read) FILTER (WHERE relname = 'delta_resource')::bigint, sum(idx_tup_fetch) FILTER (WHERE relname = 'delta_resource')::bigint,
	sum(seq_tup_read) FILTER (WHERE relname = 'delta_claim')::bigint,
	coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FILTER (WHERE relname = ANY ($1)), 0)::bigint
	FROM pg_stat_xact_user_tables WHERE relid = ANY (ARRAY['delta_resource'::regclass, 'delta_claim'::regclass]) OR relid = ANY ($1::regclass[]::oid[])`

func (c *countedReads) statistics(ctx context.Context) (read rowsRead) {
	err := c.Tx.QueryRow(ctx, readStatistics, append([]string{}, c.of...)).Scan(&read.sequential, &read.fetched, &read.claims, &read.others)
	if err != nil && c.err == nil {
		c.err = err
	}
	return read
}

func (c *countedReads) count(ctx context.Context, before rowsRead) {
	after := c.statistics(ctx)
	c.read.sequential += after.sequential - before.sequential
	c.read.fetched += after.fetched - before.fetched
	c.read.claims += after.claims - before.claims
	c.read.others += after.others - before.others
}

func (c *countedReads) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	before := c.statistics(ctx)
	rows, err := c.Tx.Query(ctx, sql, args...)
	return &countedRows{Rows: rows, done: func() { c.count(ctx, before) }}, err
}

func (c *countedReads) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	before := c.statistics(ctx)
	return countedRow{row: c.Tx.QueryRow(ctx, sql, args...), done: func() { c.count(ctx, before) }}
}

func (c *countedReads) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	before := c.statistics(ctx)
	tag, err := c.Tx.Exec(ctx, sql, args...)
	if sql[:2] == "--" { // one of sqlc's
		c.count(ctx, before)
	}
	return tag, err
}

type countedRow struct {
	row  pgx.Row
	done func()
}

func (r countedRow) Scan(to ...any) error {
	err := r.row.Scan(to...)
	r.done()
	return err
}

type countedRows struct {
	pgx.Rows
	done func()
}

func (r *countedRows) Close() {
	r.Rows.Close()
	if r.done != nil {
		r.done()
		r.done = nil
	}
}
