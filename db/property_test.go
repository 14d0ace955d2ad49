package db_test

import (
	"context"
	"encoding/json"
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
	seed := newSeed(t)
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
		checkAnswers(t, read(t, env.Pool, id), all)
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

// checkAnswers reports whether the answers for one object can have come one after the other.
func checkAnswers(t *testing.T, row *deltatype.ResourceRow, all []written) {
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
			require.NotEqual(t, contentOf(started[g-1]), contentOf(started[g]), "%s: generation %d changes nothing", row.ObjectID, g)
		}
	}
	require.Len(t, started, int(row.Generation), "%s: a generation after the last", row.ObjectID)

	// The row has the state of the last of them.
	require.Equal(t, contentOf(started[row.Generation]), contentOf(row), "%s: the last change is lost", row.ObjectID)

	// No revision is written over a newer one, and the newest is known, also where it changed nothing.
	newest, last := int64(0), int64(0)
	isForced := false
	for _, w := range all {
		isForced = isForced || w.sent.Force
		if w.result.Refused == nil {
			newest = max(newest, revisionOf(w.sent.Revision))
		}
	}
	for g := int64(1); g <= row.Generation && !isForced; g++ {
		require.LessOrEqual(t, last, revisionOf(started[g].Revision), "%s: generation %d is of an older revision than that before", row.ObjectID, g)
		last = revisionOf(started[g].Revision)
	}
	if !isForced {
		require.Equal(t, newest, revisionOf(row.Revision), "%s: the newest revision is lost", row.ObjectID)
	}
	for g := int64(2); g <= row.Generation && all[0].sent.Compare != nil; g++ {
		require.GreaterOrEqual(t, numberOf(t, started[g].EncodedObject), numberOf(t, started[g-1].EncodedObject), "%s: generation %d is older", row.ObjectID, g)
	}

	// An object that was not written was answered with a generation of the same content.
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
		if w.result.Stale && w.sent.Compare != nil {
			require.Less(t, numberOf(t, w.sent.EncodedObject), numberOf(t, r.EncodedObject), "%s: it was not stale", row.ObjectID)
			continue
		}
		require.False(t, w.sent.Force && w.result.Stale, "%s: what is forced is not stale", row.ObjectID)
		if w.result.Stale {
			require.Less(t, revisionOf(w.sent.Revision), revisionOf(r.Revision), "%s: it was not stale", row.ObjectID)
			continue
		}
		require.LessOrEqual(t, revisionOf(w.sent.Revision), revisionOf(r.Revision), "%s: it was not noted", row.ObjectID)
		require.Equal(t, contentOf(started[r.Generation]), contentOf(r), "%s: an answer that never was", row.ObjectID)
		require.Equal(t, w.sent.Hash, r.Hash, "%s: a change was not written", row.ObjectID)
		if w.sent.Namespace != "" {
			require.Equal(t, w.sent.Namespace, r.Namespace)
		}
		if w.sent.MaxAttempts != 0 {
			require.EqualValues(t, w.sent.MaxAttempts, r.MaxAttempts)
		}
	}
}

// contentOf returns the content of a generation.
func contentOf(r *deltatype.ResourceRow) string {
	return fmt.Sprintf("%x %s %d", r.Hash, r.Namespace, r.MaxAttempts)
}

// numberOf returns the number by which an object compares itself.
func numberOf(t *testing.T, encoded []byte) int {
	t.Helper()
	var o struct {
		Content int `json:"content,string"`
	}
	require.NoError(t, json.Unmarshal(encoded, &o))
	return o.Content
}

func revisionOf(r *int64) int64 {
	if r == nil {
		return 0
	}
	return *r
}

// randomSet draws from few objects with few contents, so that writers meet and often have nothing to change.
func randomSet(random *rand.Rand) []deltatype.ObjectInformParams {
	var set []deltatype.ObjectInformParams
	versioned := map[int]bool{}
	for range 1 + random.IntN(6) {
		n := random.IntN(16)
		o := object(fmt.Sprintf("o%d", n), fmt.Sprintf("%d", random.IntN(3)))
		if n >= 8 { // those have versions, and are in a set once, where the last one would count only if it is the newest
			if versioned[n] {
				continue
			}
			versioned[n] = true
		}
		switch {
		case n >= 14:
			o = comparedObject(o.ResourceID, random.IntN(10), nil)
		case n >= 8:
			revision := 1 + random.Int64N(100)
			o.Revision, o.Force = &revision, n >= 12 && random.IntN(3) == 0
		}
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
	if len(set) == 0 {
		return randomSet(random)
	}
	return set
}

// newSeed is a new one for each run, or that of DELTA_TEST_SEED; the test's log has it.
func newSeed(t *testing.T) uint64 {
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
