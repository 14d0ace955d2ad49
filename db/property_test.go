package db_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// written is one result that counts: its transaction committed.
type written struct {
	sent   deltatype.ObjectInformParams
	result *deltatype.ObjectInformResult
}

// TestGenerationsCountRealChangesWhateverIsInformedAtOnce has several writers inform random objects, alone and in sets,
// with and without a transaction, some of which roll back. Then the story that the answers tell must be one that could
// have happened one after the other: see check.
func TestGenerationsCountRealChangesWhateverIsInformedAtOnce(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	seed := seed(t)
	const writers, rounds = 8, 40

	var mu sync.Mutex
	byID := map[string][]written{}
	record := func(set []deltatype.ObjectInformParams, results []*deltatype.ObjectInformResult) {
		mu.Lock()
		defer mu.Unlock()
		last := map[string]int{}
		for i, p := range set {
			last[p.ResourceID] = i
		}
		for id, i := range last {
			byID[id] = append(byID[id], written{set[i], results[i]})
		}
	}

	var group errgroup.Group
	for w := range writers {
		random := rand.New(rand.NewPCG(seed, uint64(w)))
		group.Go(func() error {
			for range rounds {
				set := randomSet(random)
				if random.IntN(3) > 0 {
					results, err := db.InformRetrying(context.Background(), env.Pool, set, plain)
					if err != nil {
						return err
					}
					record(set, results)
					continue
				}
				results, committed, err := informInTx(env, set, random.IntN(2) == 0)
				if err != nil {
					return err
				}
				if committed {
					record(set, results)
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())

	var rows int
	require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource").Scan(&rows))
	require.Len(t, byID, rows, "a row for each object that was committed, and no other")
	for id, all := range byID {
		check(t, read(t, env.Pool, id), all)
	}
}

// informInTx informs in a transaction. A deadlock ends it, as Postgres may: then nothing of it counts.
func informInTx(env *deltatest.Env, set []deltatype.ObjectInformParams, commit bool) (
	results []*deltatype.ObjectInformResult, committed bool, err error,
) {
	ctx := context.Background()
	tx, err := env.Pool.Begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after a commit it does nothing
	results, err = db.Inform(ctx, tx, set, plain)
	if err != nil || !commit {
		if isDeadlock(err) {
			err = nil
		}
		return nil, false, err
	}
	return results, true, tx.Commit(ctx)
}

// check tells whether the answers for one object can have come about one after the other.
func check(t *testing.T, row *deltatype.ResourceRow, all []written) {
	t.Helper()
	// Each generation was started by one inform, which said so.
	started := map[int64]*deltatype.ResourceRow{}
	for _, w := range all {
		if !w.result.Scheduled {
			continue
		}
		r := w.result.Resource
		require.NotContains(t, started, r.Generation, "%s: two informs say that they started generation %d", row.ObjectID, r.Generation)
		started[r.Generation] = r
		require.Equal(t, r.Generation > 1, w.result.AlreadyExists, "%s: only the first generation is a new row", row.ObjectID)
		require.Equal(t, w.sent.Hash, r.Hash)
	}
	for g := int64(1); g <= row.Generation; g++ {
		require.Contains(t, started, g, "%s: nobody started generation %d of %d", row.ObjectID, g, row.Generation)
		if g > 1 {
			require.NotEqual(t, content(started[g-1]), content(started[g]), "%s: generation %d changes nothing", row.ObjectID, g)
		}
	}
	require.Len(t, started, int(row.Generation), "%s: a generation after the last", row.ObjectID)

	// The row is what the last of them made it.
	require.Equal(t, content(started[row.Generation]), content(row), "%s: the last change is lost", row.ObjectID)

	// One that was left alone was answered with a generation that is what it asked for.
	for _, w := range all {
		if w.result.Scheduled {
			continue
		}
		r := w.result.Resource
		require.True(t, w.result.AlreadyExists)
		if w.result.Refused != nil {
			require.False(t, w.sent.MoveNamespace)
			require.NotEqual(t, w.sent.Namespace, r.Namespace, "%s: refused for no reason", row.ObjectID)
			continue
		}
		require.Equal(t, content(started[r.Generation]), content(r), "%s: an answer that never was", row.ObjectID)
		require.Equal(t, w.sent.Hash, r.Hash, "%s: a change was not written", row.ObjectID)
		if w.sent.Namespace != "" {
			require.Equal(t, w.sent.Namespace, r.Namespace)
		}
		if w.sent.MaxAttempts != 0 {
			require.EqualValues(t, w.sent.MaxAttempts, r.MaxAttempts)
		}
	}
}

// content is what a generation is about.
func content(r *deltatype.ResourceRow) string {
	return fmt.Sprintf("%x %s %d %q", r.Hash, r.Namespace, r.MaxAttempts, r.Tags)
}

// randomSet draws from few objects with few contents, so that writers meet and often have nothing to change.
func randomSet(random *rand.Rand) []deltatype.ObjectInformParams {
	var set []deltatype.ObjectInformParams
	for range 1 + random.IntN(6) {
		o := object(fmt.Sprintf("o%d", random.IntN(8)), fmt.Sprintf("%d", random.IntN(3)))
		if random.IntN(4) == 0 {
			o.Namespace, o.MoveNamespace = []string{"red", "blue"}[random.IntN(2)], random.IntN(2) == 0
		}
		if random.IntN(4) == 0 {
			o.MaxAttempts = int16(1 + random.IntN(2))
		}
		if random.IntN(4) == 0 {
			o.Tags = [][]string{{}, {"tag"}, {"tag", "gat"}}[random.IntN(3)]
		}
		set = append(set, o)
	}
	return set
}

// seed is a new one for each run, or that of DELTA_TEST_SEED; the test's log has it.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano())
	if given := os.Getenv("DELTA_TEST_SEED"); given != "" {
		var err error
		s, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("DELTA_TEST_SEED=%d", s)
	return s
}
