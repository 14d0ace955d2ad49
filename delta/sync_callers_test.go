package delta_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestManyCallersOfSyncKeepTheHistorySmall(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		c := g.startWorker(func(context.Context, job) error { return nil })
		const callers = 50
		together := func(plan func(int) string) {
			var all sync.WaitGroup
			for i := range callers {
				all.Go(func() {
					row, err := c.Sync(t.Context(), g.object(account{Name: "hot", Plan: plan(i)}), nil)
					if err != nil || row.SyncedGeneration == 0 {
						t.Errorf("%+v: %v", row, err)
					}
				})
			}
			all.Wait()
		}
		together(func(int) string { return "same" })
		row := g.row(g.kind, "hot")
		require.EqualValues(t, 1, row.SyncCount, "the same object is synced once")
		require.Less(t, len(g.history(row.WorkflowID)), 60)

		for range 100 {
			_, err := c.Sync(t.Context(), g.object(account{Name: "hot", Plan: "same"}), nil)
			require.NoError(t, err)
		}
		require.Less(t, len(g.history(row.WorkflowID)), 60, "synced resources are not woken")
		require.EqualValues(t, 1, g.row(g.kind, "hot").SyncCount)

		together(func(i int) string { return fmt.Sprint(i) })
		row = g.awaitRow("hot", func(r *deltatype.ResourceRow) bool {
			return r.State == deltatype.ResourceStateSynced && r.SyncedGeneration == r.Generation
		})
		require.Less(t, len(g.history(row.WorkflowID)), 12*callers)
		const inTurn = 30
		for i := range inTurn {
			row, err := c.Sync(t.Context(), g.object(account{Name: "hot", Plan: fmt.Sprint("in turn ", i)}), nil)
			require.NoError(t, err)
			require.Equal(t, row.Generation, row.SyncedGeneration)
		}
		require.Less(t, len(g.history(g.row(g.kind, "hot").WorkflowID)), 12*(callers+inTurn))
	})
}

// No client works these resources: changes of the row end Sync.
func TestSyncEndsWhenItsResourceIsPausedOrItsContextEnds(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(&delta.Config{})
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	type answer struct {
		row *deltatype.ResourceRow
		err error
	}
	start := func(ctx context.Context, name string) <-chan answer {
		answered := make(chan answer, 1)
		go func() {
			row, err := c.Sync(ctx, account{Name: name}, nil)
			answered <- answer{row, err}
		}()
		until(t, func() bool { return c.Awaiting() == 1 || len(answered) > 0 }) // the row exists before the inform is answered
		return answered
	}
	answered := start(t.Context(), "paused")
	_, err := c.Pause(t.Context(), "account", "paused")
	require.NoError(t, err)
	last := got(t, answered)
	require.ErrorIs(t, last.err, delta.ErrNotSynced)
	require.ErrorContains(t, last.err, "scheduled, paused")
	require.True(t, last.row.Paused)

	ctx, cancel := context.WithCancelCause(t.Context())
	answered = start(ctx, "given-up")
	select {
	case early := <-answered:
		require.Fail(t, "no client has worked it", "%+v", early)
	default:
	}
	cancel(context.DeadlineExceeded)
	last = got(t, answered)
	require.ErrorIs(t, last.err, context.DeadlineExceeded, "the cause")
	require.ErrorIs(t, last.err, context.Canceled)
	require.ErrorContains(t, last.err, "sync account/given-up: it is informed")
	require.NotErrorIs(t, last.err, delta.ErrNotSynced)
	require.Equal(t, "given-up", last.row.ObjectID)

	answered = start(t.Context(), "of-paused-kind")
	require.NoError(t, c.PauseKind(t.Context(), "account"))
	require.ErrorIs(t, got(t, answered).err, delta.ErrNotSynced)
}

// cancelAt ends a context when a query begins.
type cancelAt struct {
	query  string
	cancel context.CancelFunc
}

func (c cancelAt) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, c.query) {
		c.cancel()
	}
	return ctx
}

func (cancelAt) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// If the caller's context ends between the outcome and the last read, Sync returns the informed row, and so its id.
func TestSyncThatIsCutOffAtItsLastReadReturnsTheRow(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ctx, cancel := context.WithCancel(t.Context())
	settings := h.Pool.Config()
	settings.ConnConfig.Tracer = cancelAt{"-- name: GetResource :one", cancel}
	pool, err := pgxpool.NewWithConfig(t.Context(), settings)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	c, err := delta.NewClient(pool, h.config())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Stop(context.Background()) })

	type answer struct {
		row *deltatype.ResourceRow
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		row, err := c.Sync(ctx, account{Name: "ann"}, nil)
		answered <- answer{row, err}
	}()
	h.eventually("account", "ann", inState(deltatype.ResourceStateScheduled))
	require.NoError(t, ctx.Err())
	_, err = h.client(h.config()).Pause(t.Context(), "account", "ann")
	require.NoError(t, err)
	last := got(t, answered)
	require.ErrorIs(t, last.err, context.Canceled)
	require.ErrorContains(t, last.err, "sync account/ann: it has settled")
	require.NotErrorIs(t, last.err, delta.ErrNotSynced)
	require.NotNil(t, last.row)
	require.Equal(t, "ann", last.row.ObjectID)
}
