package db_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestManyWhoInformTheSameNewObjectAllGetTheOneRow(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	const many = 16
	for round := range 5 {
		id := fmt.Sprintf("new-%d", round)
		results := make([]*deltatype.ObjectInformResult, many)
		start := make(chan struct{})
		var group errgroup.Group
		for i := range many {
			group.Go(func() error {
				<-start
				got, err := db.Inform(context.Background(), env.Pool, []deltatype.ObjectInformParams{object(id, "1")}, plain)
				if err != nil {
					return err
				}
				results[i] = got[0]
				return nil
			})
		}
		close(start)
		require.NoError(t, group.Wait())

		row := read(t, env.Pool, id)
		require.EqualValues(t, 1, row.Generation)
		scheduled := 0
		for _, r := range results {
			require.Equal(t, row.ID, r.Resource.ID)
			require.Equal(t, row.Hash, r.Resource.Hash)
			require.EqualValues(t, 1, r.Resource.Generation)
			require.Equal(t, !r.AlreadyExists, r.Scheduled)
			if r.Scheduled {
				scheduled++
			}
		}
		require.Equal(t, 1, scheduled, "one of them made the row")
	}
	var rows int
	require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource").Scan(&rows))
	require.Equal(t, 5, rows)
}

// Postgres promises no order in which one statement locks its rows, it follows from the plan: so the statement has to see
// to it. Without that each deadlock costs a second, and in a user's transaction the transaction.
func TestOverlappingSetsInOppositeOrdersWaitWhateverThePlan(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	const writers, rounds, size = 6, 30, 60
	// The rows lie in the table in the opposite order of their keys, so that two plans meet them in opposite orders.
	for i := range size {
		informSet(t, env.Pool, object(fmt.Sprintf("%03d", size-i), ""), plain)
	}
	plans := []*pgxpool.Pool{
		poolWith(t, env, "enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan"),
		poolWith(t, env, "enable_nestloop", "enable_mergejoin", "enable_indexscan", "enable_bitmapscan"),
	}
	var group errgroup.Group
	start := make(chan struct{})
	for w := range writers {
		group.Go(func() error {
			<-start
			for round := range rounds {
				var set []deltatype.ObjectInformParams
				for i := range size {
					set = append(set, object(fmt.Sprintf("%03d", i+round), fmt.Sprintf("%d by %d", round, w)))
				}
				if w%2 == 1 {
					slices.Reverse(set)
				}
				// Inform, and not InformRetrying, which would hide it.
				results, err := db.Inform(context.Background(), plans[w%len(plans)], set, plain)
				if err != nil {
					return err
				}
				for i, r := range results {
					if r.Resource.ObjectID != set[i].ResourceID {
						return fmt.Errorf("result %d is of %s, not of %s", i, r.Resource.ObjectID, set[i].ResourceID)
					}
				}
			}
			return nil
		})
	}
	close(start)
	require.NoError(t, group.Wait())
}

// poolWith returns a pool that plans its statements without some methods.
func poolWith(t *testing.T, env *deltatest.Env, off ...string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(env.DatabaseURL)
	require.NoError(t, err)
	config.ConnConfig.RuntimeParams["jit"] = "off" // it would come with the cost of a plan that is not wanted
	for _, method := range off {
		config.ConnConfig.RuntimeParams[method] = "off"
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// faulty is a connection with first queries that fail or return nothing.
type faulty struct {
	db.DBTX
	mu     sync.Mutex
	calls  int
	faults []error
	empty  bool
}

func (f *faulty) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.empty {
		return f.DBTX.Query(ctx, "SELECT WHERE FALSE")
	}
	if len(f.faults) > 0 {
		err := f.faults[0]
		f.faults = f.faults[1:]
		return nil, err
	}
	return f.DBTX.Query(ctx, sql, args...)
}

func TestOnlyDeadlocksAndSerializationFailuresAreTriedAgain(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	set := []deltatype.ObjectInformParams{object("a", "1")}
	deadlock, serialization := &pgconn.PgError{Code: "40P01"}, &pgconn.PgError{Code: "40001"}

	conn := &faulty{DBTX: env.Pool, faults: []error{deadlock, serialization}}
	results, err := db.InformRetrying(t.Context(), conn, set, plain)
	require.NoError(t, err)
	require.True(t, results[0].Scheduled)
	require.Equal(t, 3, conn.calls)

	for _, other := range []error{&pgconn.PgError{Code: "23505"}, &pgconn.PgError{Code: "42P01"}, errors.New("broken pipe")} {
		conn = &faulty{DBTX: env.Pool, faults: []error{other}}
		_, err = db.InformRetrying(t.Context(), conn, set, plain)
		require.ErrorIs(t, err, other)
		require.Equal(t, 1, conn.calls)
	}

	// In a caller's transaction nothing can be tried again.
	conn = &faulty{DBTX: env.Pool, faults: []error{deadlock}}
	_, err = db.Inform(t.Context(), conn, set, plain)
	require.ErrorIs(t, err, deadlock)
	require.Equal(t, 1, conn.calls)
}

func TestTryingAgainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	deadlock := &pgconn.PgError{Code: "40P01"}
	conn := &faulty{faults: slices.Repeat([]error{deadlock}, 20)}
	_, err := db.InformRetrying(ctx, conn, []deltatype.ObjectInformParams{object("a", "1")}, plain)
	require.ErrorIs(t, err, deadlock)
	require.Less(t, conn.calls, 10)
}

func TestRowsThatKeepChangingEndInAnErrorThatNamesThem(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	conn := &faulty{DBTX: env.Pool, empty: true}
	_, err := db.Inform(t.Context(), conn, []deltatype.ObjectInformParams{object("b", "1"), object("a", "1")}, plain)
	require.ErrorIs(t, err, db.ErrInformContended)
	require.ErrorContains(t, err, "thing/a and 1 more")
	require.Equal(t, 20, conn.calls, "ten rounds of a write and a read")
}
