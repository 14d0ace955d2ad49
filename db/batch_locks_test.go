package db_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// The sets of a batch, and informs of the same objects, lock rows in one order where the table is probed for each member, as it
// is once it is larger than some sets: so they wait for each other.
func TestTheSetsOfABatchAndInformsWaitForEachOther(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	const size, writers = 300, 3
	const informs, syncs = 100, 5 * size // as many as meet in some seconds, however long that takes
	for i := range size {
		inform(t, env.Pool, object(fmt.Sprintf("%03d", size-i), ""), plain)
	}
	probing := poolWith(t, env, "enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan")
	patience, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(patience)
	var informed, synced atomic.Int64
	meet := func() bool { return ctx.Err() == nil && (informed.Load() < informs || synced.Load() < syncs) }
	for w := range writers {
		group.Go(func() error {
			for round := 0; meet(); round++ {
				var set []deltatype.ObjectInformParams
				for i := range size {
					set = append(set, object(fmt.Sprintf("%03d", i+1), fmt.Sprintf("%d by %d", round, w)))
				}
				if _, err := db.Inform(context.Background(), env.Pool, set, plain); err != nil {
					return fmt.Errorf("inform: %w", err)
				}
				informed.Add(1)
			}
			return nil
		})
	}
	for i := range 2 {
		group.Go(func() error {
			for round := 0; meet(); round++ {
				n, err := batchOnce(probing, fmt.Sprintf("batch-%d-%d", i, round))
				if err != nil {
					return fmt.Errorf("batch: %w", err)
				}
				synced.Add(int64(n))
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.GreaterOrEqual(t, informed.Load(), int64(informs))
	require.GreaterOrEqual(t, synced.Load(), int64(syncs))
}

// batchOnce leases what is due, claims it, and writes it as synced.
func batchOnce(pool *pgxpool.Pool, id string) (synced int, err error) {
	ctx, q := context.Background(), db.New()
	due, err := q.LeaseDueInBatch(ctx, pool, db.LeaseDueInBatchParams{
		Kind: "thing", Batch: 1000, Lease: time.Minute, WorkflowIDPrefix: "own/", BatchID: id, Largest: 1 << 20,
	})
	if err != nil || len(due) == 0 {
		return 0, err
	}
	slices.SortFunc(due, func(a, b db.LeaseDueInBatchRow) int { return cmp.Compare(a.ObjectID, b.ObjectID) })
	claim := db.ClaimAttemptsParams{Kind: "thing", WorkflowID: id, Soon: time.Second, Net: time.Minute, MaxErrors: 5}
	for _, row := range due {
		claim.Ids, claim.Generations = append(claim.Ids, row.ID), append(claim.Generations, row.Generation)
	}
	claimed, err := q.ClaimAttempts(ctx, pool, claim)
	if err != nil || len(claimed) == 0 {
		return 0, err
	}
	slices.SortFunc(claimed, func(a, b db.Resource) int { return cmp.Compare(a.ObjectID, b.ObjectID) })
	var done db.CompleteSyncedManyParams
	for _, row := range claimed {
		done.Ids, done.Generations = append(done.Ids, row.ID), append(done.Generations, row.Generation)
		done.Attempts, done.Namespaces = append(done.Attempts, row.Attempt), append(done.Namespaces, row.Namespace)
	}
	written, err := q.CompleteSyncedMany(ctx, pool, done)
	return len(written), err
}

// A batch that keeps its members while Work goes on, or lets go of them, is not the end of a transaction that informs them.
func TestWhatABatchHoldsIsInformedWithoutADeadlock(t *testing.T) {
	t.Parallel()
	for name, attend := range map[string]func(context.Context, *pgxpool.Pool, []int64) error{
		"kept": func(ctx context.Context, pool *pgxpool.Pool, ids []int64) error {
			return db.New().KeepHeld(ctx, pool, db.KeepHeldParams{Net: time.Minute, Ids: ids, WorkflowID: "batch"})
		},
		"let go": func(ctx context.Context, pool *pgxpool.Pool, ids []int64) error {
			_, err := db.New().ReleaseHeld(ctx, pool, db.ReleaseHeldParams{Ids: ids, WorkflowID: "batch"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := deltatest.New(t)
			const size, rounds = 300, 60
			var ids []int64
			for i := range size {
				inform(t, env.Pool, object(fmt.Sprintf("%03d", size-i), ""), plain)
			}
			require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT array_agg(id) FROM delta_resource").Scan(&ids))
			patience, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
			defer cancel()
			group, ctx := errgroup.WithContext(patience)
			var informed, attended atomic.Int64
			meet := func() bool { return ctx.Err() == nil && (informed.Load() < rounds || attended.Load() < rounds) }
			group.Go(func() error {
				for round := 0; meet(); round++ {
					var set []deltatype.ObjectInformParams
					for i := range size {
						set = append(set, object(fmt.Sprintf("%03d", i+1), fmt.Sprint(round)))
					}
					if _, err := db.Inform(context.Background(), env.Pool, set, plain); err != nil {
						return fmt.Errorf("inform: %w", err)
					}
					informed.Add(1)
				}
				return nil
			})
			group.Go(func() error {
				for meet() {
					_, err := env.Pool.Exec(context.Background(), `UPDATE delta_resource r SET workflow_id = 'batch', held_until = now() + '1 h'
						FROM (SELECT id FROM delta_resource ORDER BY object_id FOR NO KEY UPDATE) held WHERE r.id = held.id`)
					if err != nil {
						return fmt.Errorf("hold: %w", err)
					}
					rand.Shuffle(size, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] }) // batches have them in a map
					if err := attend(context.Background(), env.Pool, ids); err != nil {
						return err
					}
					attended.Add(1)
				}
				return nil
			})
			require.NoError(t, group.Wait())
			require.GreaterOrEqual(t, informed.Load(), int64(rounds))
			require.GreaterOrEqual(t, attended.Load(), int64(rounds))
		})
	}
}
