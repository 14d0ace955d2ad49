package db_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// newLogged returns a database with a kind that logs its changes.
func newLogged(t *testing.T, options ...deltatest.Option) *pgxpool.Pool {
	t.Helper()
	pool := deltatest.New(t, options...).Pool
	_, err := db.New().UpsertController(t.Context(), pool, db.UpsertControllerParams{Name: "thing", LogsChanges: true})
	require.NoError(t, err)
	return pool
}

// changeWriter changes resources in transactions that begin, wait and end at random.
type changeWriter struct {
	pool   *pgxpool.Pool
	random *rand.Rand
	made   int
}

// runTransaction changes some resources, in the order of their ids, and commits or rolls back. It may get its transaction id long before.
func (w *changeWriter) runTransaction(ctx context.Context, most int) error {
	tx, err := w.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after a commit it does nothing
	if w.random.IntN(2) == 0 {
		if _, err := tx.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			return err
		}
	}
	w.pause()
	chosen := w.random.Perm(most)[:1+w.random.IntN(3)]
	slices.Sort(chosen)
	for _, i := range chosen {
		if err := w.changeSome(ctx, tx, fmt.Sprint(i)); err != nil {
			return err
		}
		w.pause()
	}
	if w.random.IntN(5) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

func (w *changeWriter) pause() { time.Sleep(time.Duration(w.random.IntN(8)) * time.Millisecond) }

// step changes one resource, in a subtransaction now and then.
func (w *changeWriter) changeSome(ctx context.Context, tx pgx.Tx, id string) error {
	if w.random.IntN(3) > 0 {
		return w.change(ctx, tx, id)
	}
	nested, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	if err := w.change(ctx, nested, id); err != nil {
		return err
	}
	return nested.Commit(ctx)
}

// change syncs, deletes or revives. What comes before an outcome is committed by itself, as it is for a transaction of a user's in Work.
func (w *changeWriter) change(ctx context.Context, tx pgx.Tx, id string) error {
	q := db.New()
	got, err := q.GetResource(ctx, tx, db.GetResourceParams{Kind: "thing", ObjectID: id})
	if err != nil {
		return err
	}
	ids := []int64{got.Resource.ID}
	switch w.random.IntN(6) {
	case 0:
		_, err = q.DeleteResources(ctx, tx, db.DeleteResourcesParams{Ids: ids, States: []string{"scheduled", "pending", "synced", "failed", "degraded", "expired"}})
		return err
	case 1:
		_, err = q.ReviveResources(ctx, tx, ids)
		return err
	case 2: // an inform that may revive, in the transaction
		return w.inform(ctx, tx, id)
	}
	if err := w.inform(ctx, w.pool, id); err != nil {
		return err
	}
	claim := uuid.NewString()
	rows, err := q.ClaimResources(ctx, w.pool, db.ClaimResourcesParams{
		Claim: claim, ClaimFor: time.Millisecond, WholeKind: true, Kind: "thing", Ids: ids, Lost: "lost", MaxErrors: 5, MostLost: 100,
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	w.pause()
	if err := q.LockResource(ctx, tx, ids[0]); err != nil {
		return err
	}
	worked := rows[0].Resource
	state, failure := "synced", ""
	if w.random.IntN(4) == 0 {
		state, failure = "degraded", `{"error": "it failed"}`
	}
	_, err = q.WriteOutcomes(ctx, tx, db.WriteOutcomesParams{
		Claim: claim, MaxErrors: 5, Logs: true, Ids: ids, Generations: []int64{worked.Generation}, States: []string{state}, Causes: []string{""},
		Delays: []time.Duration{0}, Counted: []bool{true}, Snoozed: []bool{false}, Graces: []time.Duration{time.Minute}, Kept: []bool{false},
		Errors: []string{failure}, Objects: []string{string(worked.Object)}, Carriers: []string{""},
	})
	return err
}

func (w *changeWriter) inform(ctx context.Context, conn db.DBTX, id string) error {
	w.made++
	_, err := db.New().InformResource(ctx, conn, func() db.InformResourceParams {
		p := informParam(id)
		o := object(id, fmt.Sprint(w.random.Uint64()))
		p.Object, p.Hash, p.Revive = o.EncodedObject, o.Hash, true
		return p
	}())
	return err
}

// readPages reads pages of the log from a position on until none has an entry.
func readPages(t *testing.T, conn db.DBTX, read []db.ReadChangesRow) []db.ReadChangesRow {
	t.Helper()
	for {
		params := db.ReadChangesParams{Kinds: []string{}, Members: 1, Most: 3}
		if n := len(read); n > 0 {
			params.AfterXid, params.AfterID = read[n-1].OrderXid, read[n-1].ID
		}
		rows, err := db.New().ReadChanges(context.Background(), conn, params)
		require.NoError(t, err)
		require.NotEmpty(t, rows)
		require.False(t, rows[0].Ahead || rows[0].Removed || rows[0].Restored)
		if rows[0].ID == 0 {
			return read
		}
		read = append(read, rows...)
	}
}

// A reader that reads while transactions begin, wait and end at random gets each entry that was committed, once, and those of a resource in their order.
func TestSoakReadersOfTheLogSkipNothing(t *testing.T) {
	took := soak.Time(t, 3*time.Second)
	t.Parallel()
	const writers, resources = 8, 6
	pool := newLogged(t, deltatest.WithMaxConns(2*writers+2))
	for i := range resources {
		informSet(t, pool, object(fmt.Sprint(i), ""), plain)
	}
	seed := newSeed(t)
	ctx, cancel := context.WithTimeout(t.Context(), took)
	defer cancel()
	var group errgroup.Group
	failed := make(chan error, 1000)
	for n := range writers {
		w := &changeWriter{pool: pool, random: rand.New(rand.NewPCG(seed, uint64(n)))}
		group.Go(func() error {
			for ctx.Err() == nil {
				if err := w.runTransaction(context.WithoutCancel(ctx), resources); err != nil && !isDeadlock(err) {
					failed <- err
					return err
				}
			}
			return nil
		})
	}
	var read []db.ReadChangesRow
	for ctx.Err() == nil {
		read = readPages(t, pool, read)
	}
	early := len(read)
	require.NoError(t, group.Wait())
	// Transactions of other tests on this server keep entries back until they end.
	var written []int64
	rows, err := pool.Query(t.Context(), "SELECT id FROM delta_change ORDER BY id")
	require.NoError(t, err)
	written, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		read = readPages(t, pool, read)
		return len(read) >= len(written)
	}, time.Minute, 10*time.Millisecond)

	var ids []int64
	latest := map[int64]db.ReadChangesRow{}
	backwards := 0
	for i, row := range read {
		ids = append(ids, row.ID)
		if i > 0 && row.ID < read[i-1].ID {
			backwards++
		}
		before, there := latest[row.ResourceID]
		if there {
			require.Greater(t, row.ID, before.ID)
			require.GreaterOrEqual(t, row.Generation, before.Generation, "%+v came after %+v", row, before)
			require.GreaterOrEqual(t, row.SyncCount, before.SyncCount)
		}
		latest[row.ResourceID] = row
	}
	slices.Sort(ids)
	require.Equal(t, written, ids, "each entry once")
	t.Logf("%d entries, %d of them out of the order of their ids, %d read while they were written", len(read), backwards, early)
}
