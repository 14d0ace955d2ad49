package db_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// makeThings returns n objects of the same content.
func makeThings(n int, content string) (all []deltatype.ObjectInformParams) {
	for i := range n {
		all = append(all, object(fmt.Sprintf("%03d", i), content))
	}
	return all
}

// What the engine does for sets goes on while a user's transaction has locked one of the rows; that one is left for later.
func TestATransactionThatHoldsARowDelaysNoOther(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	q := db.New()
	claim, pass := uuid.NewString(), uuid.NewString()
	const others = 4 // rows beside the one that is locked
	repeated := func(n int, f func(int)) {
		for i := range n {
			f(i)
		}
	}
	for name, c := range map[string]struct {
		// before are assignments to all rows.
		before string
		// do returns which rows it took, or nil if the statement does not tell; then taken is a condition for those rows.
		do    func(ctx context.Context, conn db.DBTX, ids []int64) ([]int64, error)
		taken string
	}{
		"LeaseDue": {
			before: "dispatch_at = now() - interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (taken []int64, err error) {
				rows, err := q.LeaseDue(ctx, conn, leaseParams("batch/1"))
				for _, r := range rows {
					taken = append(taken, r.ID)
				}
				return taken, err
			},
		},
		"ClaimResources": {
			before: "due_at = now() - interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (taken []int64, err error) {
				rows, err := q.ClaimResources(ctx, conn, claimParams(claim, "", ids))
				for _, r := range rows {
					taken = append(taken, r.Resource.ID)
				}
				return taken, err
			},
		},
		"WriteOutcomes": {
			before: "state = 'pending', due_at = NULL, attempt = 1, claimed_until = now() + interval '1 hour', claim = '" + claim + "'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (taken []int64, err error) {
				var rows []db.ClaimResourcesRow
				for _, id := range ids {
					rows = append(rows, db.ClaimResourcesRow{Resource: db.Resource{ID: id, Generation: 1}})
				}
				params := outcomeParams(claim, deltatype.ResourceStateSynced, rows)
				written, err := q.WriteOutcomes(ctx, conn, params)
				for _, r := range written {
					taken = append(taken, r.ID)
				}
				if err != nil {
					return taken, err
				}
				left, err := q.StandingOutcomes(ctx, conn, db.StandingOutcomesParams{Ids: ids, Generations: params.Generations, Claim: claim})
				open := 0
				for _, r := range left {
					if r.Open {
						open++
					}
				}
				if err == nil && open != 1 {
					err = fmt.Errorf("%d outcomes are left to be written, not the one that is locked", open)
				}
				return taken, err
			},
		},
		"EndRetention, removed": {
			before: "state = 'deleted', synced_at = now() - interval '1 day', due_at = now() - interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) ([]int64, error) {
				ended, err := q.EndRetention(ctx, conn, db.EndRetentionParams{Ids: ids, WholeKind: true})
				if err == nil && ended.Removed != others {
					err = fmt.Errorf("%+v", ended)
				}
				return nil, err
			},
		},
		"EndRetention, expired": {
			before: "state = 'synced', synced_at = now() - interval '1 day', due_at = now() - interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) ([]int64, error) {
				_, err := q.EndRetention(ctx, conn, db.EndRetentionParams{Ids: ids, WholeKind: true, DefaultExpiry: time.Hour})
				return nil, err
			},
			taken: "state = 'expired' AND generation = 2",
		},
		"EndRetention, prolonged": {
			before: "state = 'synced', synced_at = now() - interval '1 day', due_at = now() - interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) ([]int64, error) {
				_, err := q.EndRetention(ctx, conn, db.EndRetentionParams{Ids: ids, WholeKind: true, DefaultSyncedRetention: 48 * time.Hour})
				return nil, err
			},
			taken: "due_at > now()",
		},
		"ReleaseLeases": {
			before: "dispatch_at = '2100-01-01'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) ([]int64, error) {
				p := db.ReleaseLeasesParams{Ids: ids, MaxErrors: 5}
				repeated(len(ids), func(int) {
					p.LeasedUntil, p.Afters = append(p.LeasedUntil, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)), append(p.Afters, time.Second)
					p.Errors = append(p.Errors, `{"attempt": 0, "error": "no"}`)
				})
				return nil, q.ReleaseLeases(ctx, conn, p)
			},
			taken: "dispatch_at < '2100-01-01' AND cardinality(errors) = 1",
		},
		"NameWorkflows": {
			before: "workflow_id = NULL",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) ([]int64, error) {
				p := db.NameWorkflowsParams{Ids: ids}
				repeated(len(ids), func(int) { p.WorkflowIds = append(p.WorkflowIds, "own") })
				return nil, q.NameWorkflows(ctx, conn, p)
			},
			taken: "workflow_id = 'own'",
		},
		"CloseClaims": {
			before: "state = 'failed', claimed_until = now() + interval '1 hour', claim = '" + claim + "'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) ([]int64, error) {
				return q.CloseClaims(ctx, conn, db.CloseClaimsParams{Ids: ids, Claim: claim})
			},
		},
		"ForgetDispatched": {
			before: "dispatch_at = now() + interval '1 hour'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (taken []int64, err error) {
				rows, err := q.ForgetDispatched(ctx, conn, db.ForgetDispatchedParams{Batch: 100})
				for _, r := range rows {
					taken = append(taken, r.ID)
				}
				return taken, err
			},
		},
		"an inform of another object": {
			before: "state = 'synced'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) ([]int64, error) {
				_, err := db.Inform(ctx, conn, makeThings(others+1, "changed")[:others], plain)
				return nil, err
			},
			taken: "generation = 2",
		},
		"an inform that changes nothing and is more urgent": {
			before: "priority = 5",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) ([]int64, error) {
				options := plain
				options.Revive = true
				results, err := db.Inform(ctx, conn, makeThings(others+1, "1"), options)
				for i, r := range results {
					if want := map[bool]int{true: 3, false: 5}[i < others]; r.Resource.Priority != want {
						return nil, fmt.Errorf("%s has priority %d, not %d", r.Resource.ObjectID, r.Resource.Priority, want)
					}
				}
				return nil, err
			},
			taken: "priority = 3",
		},
		"LostClaims": {
			before: "claimed_until = now() + interval '1 hour', claim = '" + pass + "'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (taken []int64, err error) {
				claims := make([]string, len(ids))
				repeated(len(ids), func(i int) { claims[i] = claim })
				rows, err := q.LostClaims(ctx, conn, db.LostClaimsParams{Ids: ids, Claims: claims})
				for _, r := range rows {
					taken = append(taken, r.ID)
				}
				return taken[:min(len(taken), others)], err // it reads that of the locked row, too
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := deltatest.New(t)
			_, err := db.Inform(t.Context(), env.Pool, makeThings(others+1, "1"), plain)
			require.NoError(t, err)
			var ids []int64
			err = env.Pool.QueryRow(t.Context(), "WITH changed AS (UPDATE delta_resource SET "+c.before+
				" RETURNING id, object_id) SELECT array_agg(id ORDER BY object_id) FROM changed").Scan(&ids)
			require.NoError(t, err)
			locked := ids[others]
			lockRow(t, env.Pool, locked)

			taken, err := c.do(t.Context(), withoutWaiting(t, env.Pool), ids)
			require.NoError(t, err)
			if c.taken != "" {
				// Read without a lock: what was taken is committed.
				err = env.Pool.QueryRow(t.Context(), "SELECT array_agg(id) FROM delta_resource WHERE "+c.taken).Scan(&taken)
				require.NoError(t, err)
			}
			if taken != nil {
				require.ElementsMatch(t, ids[:others], taken)
			}
		})
	}
}

// lockRow locks a row in another transaction until the test ends.
func lockRow(t *testing.T, pool *pgxpool.Pool, id int64) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	_, err = tx.Exec(t.Context(), "SELECT FROM delta_resource WHERE id = $1 FOR UPDATE", id)
	require.NoError(t, err)
}

// withoutWaiting returns a connection with statements that fail if they wait for a lock. Only time that is spent on
// waiting for one counts.
func withoutWaiting(t *testing.T, pool *pgxpool.Pool) db.DBTX {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	t.Cleanup(conn.Release)
	_, err = conn.Exec(t.Context(), "SET lock_timeout = '500 ms'")
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = conn.Exec(context.Background(), "RESET lock_timeout") })
	return conn
}
