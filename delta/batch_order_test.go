package delta_test

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// writes is a tracer that notes the members that sets of results are written for.
type writes struct {
	mu  sync.Mutex
	ids [][]int64
}

func (w *writes) TraceQueryStart(ctx context.Context, _ *pgx.Conn, query pgx.TraceQueryStartData) context.Context {
	if !strings.Contains(query.SQL, "name: Complete") {
		return ctx
	}
	for _, arg := range query.Args {
		if ids, ok := arg.([]int64); ok {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ids = append(w.ids, ids)
			return ctx
		}
	}
	return ctx
}

func (w *writes) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Results are written in the order of object ids, in which informs lock rows too: otherwise the two deadlock, which costs a
// second, and in a transaction of the user's the transaction.
func TestResultsAreWrittenInTheOrderOfInforms(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	traced := &writes{}
	settings, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(t, err)
	settings.ConnConfig.Tracer = traced
	pool, err := pgxpool.NewWithConfig(t.Context(), settings)
	require.NoError(t, err)
	defer pool.Close()
	c, err := delta.NewClient(pool, h.config(with(&controller[herd]{work: func(_ context.Context, r *delta.Resource[herd]) error {
		time.Sleep(rand.N(3 * time.Millisecond)) // they end in another order than they were claimed in
		switch r.ID % 3 {
		case 0:
			return errors.New("no")
		case 1:
			return delta.ResourceDelete(nil)
		}
		return nil
	}})))
	require.NoError(t, err)
	shuffled := names("ok", 90)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, name := range shuffled { // so that the ids of rows are in another order than those of objects
		_, err := c.Inform(t.Context(), herd{account{Name: name}}, nil)
		require.NoError(t, err)
	}
	batch := h.leaseBatch("herd", time.Hour)
	require.Equal(t, 90, batch.IDs.Len())
	_, err = c.ActivitiesOf(batch.Installation, "herd").AttemptBatch(t.Context(), batch)
	require.NoError(t, err)

	objectIDs := map[int64]string{}
	for _, name := range shuffled {
		row := h.row("herd", name)
		require.NotEqual(t, deltatype.ResourceStateScheduled, row.State)
		objectIDs[row.ID] = name
	}
	traced.mu.Lock()
	defer traced.mu.Unlock()
	written := 0
	for _, ids := range traced.ids {
		written += len(ids)
		require.True(t, slices.IsSortedFunc(ids, func(a, b int64) int { return cmp.Compare(objectIDs[a], objectIDs[b]) }))
	}
	require.Equal(t, 90, written)
}
