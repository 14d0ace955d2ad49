package delta_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func liedSettings() delta.ObjectSettings {
	return delta.ObjectSettings{
		Parallelism: 8, InformInterval: time.Second, FullListingInterval: 2 * time.Second, MaxDeleted: 3, MaxDeletedShare: 0.2,
		RetryPolicy: delta.RetryPolicy{InitialInterval: 20 * time.Millisecond, MaximumInterval: 100 * time.Millisecond},
	}
}

// liedWhole is listed as a whole, liedSharded account by account.
type (
	liedWhole   struct{ lied }
	liedSharded struct{ lied }
)

func (liedWhole) Kind() string                     { return "lied_whole" }
func (liedWhole) Settings() delta.ObjectSettings   { return liedSettings() }
func (liedSharded) Kind() string                   { return "lied_sharded" }
func (liedSharded) Settings() delta.ObjectSettings { return liedSettings() }
func (l liedSharded) Shard() string                { return l.Account }

// mirrored is what the controllers have made of what they were given: the revision of each record.
type mirrored struct {
	mu  sync.Mutex
	all map[string]int64
	// newest is the newest revision of each record that Work was given.
	newest map[string]int64
	// wrong says which records were finalized without a reason, or given to Work in an older version than before.
	wrong []string
}

func (m *mirrored) set(id string, revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[id] = revision
	if revision < m.newest[id] {
		m.wrong = append(m.wrong, fmt.Sprintf("%s: revision %d after %d", id, revision, m.newest[id]))
	}
	m.newest[id] = max(m.newest[id], revision)
}

func (m *mirrored) remove(id string, isRight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, id)
	if !isRight {
		m.wrong = append(m.wrong, id+": finalized although no whole listing has left it out")
	}
}

func (m *mirrored) get(id string) (revision int64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	revision, ok = m.all[id]
	return revision, ok
}

// lies is a controller of what a liar tells.
type lies[T delta.Object] struct {
	delta.WorkerDefaults[T]
	delta.ListerDefaults[T]
	liar   *liar
	mirror *mirrored
	as     func(lied) T
	of     func(T) lied
}

func (c *lies[T]) Work(_ context.Context, r *delta.Resource[T]) error {
	switch rand.IntN(12) {
	case 0:
		return errors.New("503")
	case 1:
		return delta.ResourceSnooze(10 * time.Millisecond)
	}
	if there, _ := c.liar.get(r.ObjectID); !there.alive {
		return delta.ResourceDelete(errors.New("404"))
	}
	c.liar.worked(r.ObjectID)
	c.mirror.set(r.ObjectID, c.of(r.Object).Rev)
	return nil
}

func (c *lies[T]) Finalize(_ context.Context, r *delta.Resource[T]) error {
	if rand.IntN(6) == 0 {
		return errors.New("503")
	}
	c.mirror.remove(r.ObjectID, r.Cause != deltatype.CauseUnlisted || c.liar.mayBeGone(r.ObjectID))
	return nil
}

func (c *lies[T]) List(ctx context.Context, opts *delta.InformOptions) iter.Seq2[T, error] {
	return listing(ctx, c.liar, opts, c.as)
}

type shardedLies struct{ lies[liedSharded] }

func (c *shardedLies) Shards(context.Context) ([]string, error) { return c.liar.shards() }

// A provider lies in its listings and its webhooks, its listings break off, and clients die. When the lies end, what is live is synced in its
// newest version, what is gone was finalized, and nothing else was deleted.
func TestSoakOfAProviderThatLies(t *testing.T) {
	t.Parallel()
	t.Run("whole", func(t *testing.T) {
		t.Parallel()
		as := func(l lied) liedWhole { return liedWhole{l} }
		soakLies(t, as, func(l *liar, m *mirrored) func(*delta.Controllers) {
			return add(&lies[liedWhole]{liar: l, mirror: m, as: as, of: func(o liedWhole) lied { return o.lied }})
		})
	})
	t.Run("shards", func(t *testing.T) {
		t.Parallel()
		as := func(l lied) liedSharded { return liedSharded{l} }
		soakLies(t, as, func(l *liar, m *mirrored) func(*delta.Controllers) {
			return add(&shardedLies{lies[liedSharded]{liar: l, mirror: m, as: as, of: func(o liedSharded) lied { return o.lied }}})
		})
	})
}

func soakLies[T delta.Object](t *testing.T, as func(lied) T, controller func(*liar, *mirrored) func(*delta.Controllers)) {
	end := time.Now().Add(soak.Time(t, 10*time.Second))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := newHarness(t)
	outside, inside := newLiar(seed), &mirrored{all: map[string]int64{}, newest: map[string]int64{}}
	kind := as(lied{}).Kind()
	start := func() *delta.Client {
		c := h.client(h.config(controller(outside, inside)))
		require.NoError(t, c.Start(context.Background()))
		return c
	}
	clients := []*delta.Client{start(), start()}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	stop := func(c *delta.Client) { _ = c.Stop(ended) }
	t.Cleanup(func() {
		for _, c := range clients {
			stop(c)
		}
	})

	// What webhooks have still to say, in any order, and some of it twice. A record that comes to be is told by one at least: what Work has
	// found gone stays deleted until it is informed explicitly. That of a record that is gone may be lost.
	var hooks, late []func(*delta.Client)
	deliver := func(c *delta.Client, most int) {
		for ; len(hooks) > 0 && most > 0; most-- {
			at := rand.IntN(len(hooks))
			hooks[at](c)
			if rand.IntN(4) > 0 {
				hooks[at] = hooks[len(hooks)-1]
				hooks = hooks[:len(hooks)-1]
			}
		}
	}
	for i := 0; time.Now().Before(end); i++ {
		told, alive := outside.change()
		if !alive && rand.IntN(2) == 0 {
			continue
		}
		hooks = append(hooks, func(c *delta.Client) {
			var err error
			if alive {
				_, err = c.Inform(context.Background(), as(told), nil)
			} else if _, err = c.Touch(context.Background(), kind, told.Key); errors.Is(err, delta.ErrNotFound) || errors.As(err, new(*delta.StateError)) {
				err = nil // it is not there, or deleted already
			}
			require.NoError(t, err)
		})
		if rand.IntN(5) == 0 {
			late = append(late, hooks[len(hooks)-1]) // once more, when all is over
		}
		c := clients[i%2]
		if rand.IntN(3) == 0 {
			deliver(c, 4)
		}
		if rand.IntN(60) == 0 {
			stop(c)
			clients[i%2] = start()
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
	}
	outside.tellTheTruth()
	c := clients[0]
	deliver(c, len(hooks)/2)
	decideAll(t, c, kind)
	for hooks = append(hooks, late...); len(hooks) > 0; {
		deliver(c, 100)
	}
	checkLies(t, h, kind, outside, inside)
}

// decideAll lists everything until nothing is withheld: what an honest listing leaves out is gone.
func decideAll(t *testing.T, c *delta.Client, kind string) {
	t.Helper()
	for {
		_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: kind, FullListing: true}, nil)
		require.NoError(t, err)
		withheld, err := c.Withheld(t.Context())
		require.NoError(t, err)
		if len(withheld) == 0 {
			return
		}
		for _, w := range withheld {
			_, err := c.ApproveWithheld(t.Context(), w.Kind, w.Shard, w.Missing)
			if !errors.Is(err, delta.ErrNotWithheld) {
				require.NoError(t, err)
			}
		}
	}
}

// checkLies waits until all is as it should be.
func checkLies(t *testing.T, h *harness, kind string, outside *liar, inside *mirrored) {
	t.Helper()
	known := map[string]bool{}
	live := 0
	for _, r := range outside.now() {
		known[r.Key] = true
		if r.alive {
			live++
			h.eventually(kind, r.Key, func(row *deltatype.ResourceRow) bool {
				revision, ok := inside.get(r.Key)
				return row != nil && row.State == deltatype.ResourceStateSynced && *row.Revision == r.Rev && ok && revision == r.Rev
			})
			continue
		}
		h.eventually(kind, r.Key, func(row *deltatype.ResourceRow) bool {
			_, ok := inside.get(r.Key)
			return !ok && (row == nil || (row.State == deltatype.ResourceStateDeleted && row.Finalized != nil && *row.Finalized))
		})
	}
	require.Empty(t, inside.wrong)
	rows, err := h.Pool.Query(t.Context(), "SELECT object_id FROM delta_resource WHERE kind = $1", kind)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		require.NoError(t, rows.Scan(&id))
		require.True(t, known[id], id)
	}
	require.NoError(t, rows.Err())
	t.Logf("%d records, %d of them live", len(known), live)
}
