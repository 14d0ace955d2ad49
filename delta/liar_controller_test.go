package delta_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	liedMaxDeleted      = 3
	liedMaxDeletedShare = 0.2
	// liedOverlap is the InformOverlap of the kind with a time cursor, and liedRetention its retention of deleted rows.
	liedOverlap   = 300 * time.Millisecond
	liedRetention = 200 * time.Millisecond
)

func liedSettings() delta.ObjectSettings {
	return delta.ObjectSettings{
		Parallelism: 8, InformInterval: time.Second, FullListingInterval: 2 * time.Second,
		MaxDeleted: liedMaxDeleted, MaxDeletedShare: liedMaxDeletedShare,
		RetryPolicy: delta.RetryPolicy{InitialInterval: 20 * time.Millisecond, MaximumInterval: 100 * time.Millisecond},
	}
}

// liedWhole has complete listings, liedTimed also listings by a time cursor, and liedSharded a shard for each account.
type (
	liedWhole   struct{ lied }
	liedTimed   struct{ lied }
	liedSharded struct{ lied }
)

func (liedTimed) Kind() string { return "lied_timed" }
func (liedTimed) Settings() delta.ObjectSettings {
	s := liedSettings()
	s.InformOverlap = liedOverlap
	return s
}

func (liedWhole) Kind() string                     { return "lied_whole" }
func (liedWhole) Settings() delta.ObjectSettings   { return liedSettings() }
func (liedSharded) Kind() string                   { return "lied_sharded" }
func (liedSharded) Settings() delta.ObjectSettings { return liedSettings() }
func (l liedSharded) Shard() string                { return l.Account }

// mirrored is the state that the controllers have built outside: the revision of each record.
type mirrored struct {
	mu  sync.Mutex
	all map[string]int64
	// newest is the newest revision of each record that Work got.
	newest map[string]int64
	// forgets is set if rows of deleted records are removed: then nothing knows their last worked version.
	forgets bool
	// wrong lists records that were finalized without a reason, or given to Work in an older version than before.
	wrong []string
}

func newMirrored() *mirrored { return &mirrored{all: map[string]int64{}, newest: map[string]int64{}} }

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
	if m.forgets {
		delete(m.newest, id)
	}
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

func (m *mirrored) faults() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.wrong...)
}

// lies is a controller of a liar's records.
type lies[T delta.Object] struct {
	delta.ListerDefaults[T]
	liar   *liar
	mirror *mirrored
	// isTimed is set if listings continue from a time.
	isTimed bool
	as      func(lied) T
	of      func(T) lied
}

// ResourceTimeout and InformTimeout end calls that hang. None hangs once the liar is honest.
func (c *lies[T]) ResourceTimeout(*delta.Resource[T]) time.Duration {
	if c.liar.isLying() {
		return 300 * time.Millisecond
	}
	return 0
}

func (c *lies[T]) InformTimeout(*delta.InformArgs[T]) time.Duration {
	if c.liar.isLying() {
		return time.Second
	}
	return 0
}

func (c *lies[T]) Work(ctx context.Context, r *delta.Resource[T]) error {
	switch c.liar.randomBelow(24) {
	case 0, 1:
		return errors.New("503")
	case 2, 3:
		return delta.ResourceSnooze(10 * time.Millisecond)
	case 4:
		if c.liar.isLying() {
			<-ctx.Done()
			return ctx.Err()
		}
	}
	if there, _ := c.liar.get(r.ObjectID); !there.alive {
		return delta.ResourceDelete(errors.New("404"))
	}
	c.liar.noteWorked(r.ObjectID)
	c.mirror.set(r.ObjectID, c.of(r.Object).Rev)
	return nil
}

func (c *lies[T]) Finalize(_ context.Context, r *delta.Resource[T]) error {
	if c.liar.randomBelow(6) == 0 {
		return errors.New("503")
	}
	c.mirror.remove(r.ObjectID, r.Cause != deltatype.CauseUnlisted || c.liar.mayBeGone(r.ObjectID))
	return nil
}

func (c *lies[T]) List(ctx context.Context, opts *delta.InformOptions) iter.Seq2[T, error] {
	return listFrom(ctx, c.liar, c.isTimed, opts, c.as)
}

type shardedLies struct{ lies[liedSharded] }

func (c *shardedLies) Shards(context.Context) ([]string, error) { return c.liar.shards() }
