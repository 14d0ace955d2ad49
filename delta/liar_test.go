package delta_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// A provider lies in its listings and webhooks, its listings break off, and clients die. When the lies end, live records are synced in their newest
// version, removed ones were finalized, commanded deletions stay, and nothing else was deleted.
func TestSoakOfAProviderThatLies(t *testing.T) {
	long := soak.Time(t, 10*time.Second)
	t.Parallel()
	seed := soakSeed(t)
	t.Run("whole", func(t *testing.T) {
		t.Parallel()
		d := newDeceit(t, seed, func(l lied) liedWhole { return liedWhole{l} }, func(o liedWhole) lied { return o.lied })
		d.most = int64(liedMaxDeletedShare * float64(len(d.outside.accounts)*liedRecords))
		d.run(long, func() func(*delta.Controllers) { return addTo(d.controller()) })
	})
	// Rows of deleted records are removed soon. Only the lack of a listing that omits the record keeps the row of a commanded deletion.
	t.Run("by time, with a short retention", func(t *testing.T) {
		soak.Rare(t)
		t.Parallel()
		d := newDeceit(t, seed+2, func(l lied) liedTimed { return liedTimed{l} }, func(o liedTimed) lied { return o.lied })
		d.most = int64(liedMaxDeletedShare * float64(len(d.outside.accounts)*liedRecords))
		d.isTimed, d.inside.forgets = true, true
		d.run(long, func() func(*delta.Controllers) { return addTo(d.controller()) })
	})
	t.Run("shards", func(t *testing.T) {
		soak.Rare(t)
		t.Parallel()
		d := newDeceit(t, seed+1, func(l lied) liedSharded { return liedSharded{l} }, func(o liedSharded) lied { return o.lied })
		d.most = int64(liedMaxDeletedShare * liedRecords)
		d.run(long, func() func(*delta.Controllers) { return addTo(&shardedLies{*d.controller()}) })
	})
}

// deceit is a run of the test for one kind.
type deceit[T delta.Object] struct {
	*harness
	random  *rand.Rand
	kind    string
	as      func(lied) T
	of      func(T) lied
	outside *liar
	inside  *mirrored
	clients []*delta.Client
	start   func() *delta.Client
	// hooks are undelivered webhooks, late those that come once more when the lies are over.
	hooks, late []func(*delta.Client)
	// dropped are records that a command has deleted. They are never informed explicitly, so nothing may bring them back.
	dropped map[string]bool
	// most bounds how many resources a listing deletes without an approval: more would be beyond MaxDeleted and MaxDeletedShare, however many rows
	// there are. approves reports whether a person approves withheld deletions although they may be lies.
	most     int64
	approves bool
	// isTimed is set if listings continue from a time, and rows of deleted records are removed soon.
	isTimed bool
	counts  map[string]int
}

func newDeceit[T delta.Object](t *testing.T, seed uint64, as func(lied) T, of func(T) lied) *deceit[T] {
	t.Helper()
	t.Logf("DELTA_TEST_SEED=%d (one more for shards, two by time)", seed)
	d := &deceit[T]{
		harness: newHarness(t), random: rand.New(rand.NewPCG(seed, 1)), kind: as(lied{}).Kind(), as: as, of: of,
		outside: newLiar(seed), inside: newMirrored(), dropped: map[string]bool{}, counts: map[string]int{},
	}
	d.approves = d.oneIn(2)
	return d
}

func (d *deceit[T]) controller() *lies[T] {
	return &lies[T]{liar: d.outside, mirror: d.inside, isTimed: d.isTimed, as: d.as, of: d.of}
}

func (d *deceit[T]) oneIn(in int) bool { return d.random.IntN(in) == 0 }

func (d *deceit[T]) run(long time.Duration, controllers func() func(*delta.Controllers)) {
	d.start = func() *delta.Client {
		config := d.config(controllers())
		if d.isTimed {
			config.DeletedResourceRetentionPeriod = liedRetention
		}
		c := d.client(config)
		require.NoError(d.t, c.Start(context.Background()))
		return c
	}
	d.clients = []*delta.Client{d.start(), d.start()}
	defer func() {
		for _, c := range d.clients {
			stopHard(c)
		}
	}()
	d.lie(time.Now().Add(long))
	d.outside.tellTheTruth()
	c := d.clients[0]
	d.deliver(c, len(d.hooks)/2)
	d.requireBounds()
	d.decideAll(c)
	for d.hooks = append(d.hooks, d.late...); len(d.hooks) > 0; {
		d.deliver(c, 100)
	}
	d.expireLeases()
	d.bringBack(c)
	d.expireLeases()
	d.requireTruth()
}

// expireLeases ends the leases of stopped clients, which take a minute to expire, in a short run. A long run waits for them.
func (d *deceit[T]) expireLeases() {
	if _, isLong := soak.Given(d.t); isLong {
		return
	}
	_, err := d.Pool.Exec(d.t.Context(), `UPDATE delta_resource SET dispatch_at = now() WHERE kind = $1
		AND (state IN ('scheduled', 'expired', 'failed', 'pending') OR (state = 'deleted' AND finalized IS FALSE))`, d.kind)
	require.NoError(d.t, err)
}

// stopHard stops a client without waiting for its calls.
func stopHard(c *delta.Client) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Stop(ended)
}

// lie changes records while the provider lies, persons give commands and clients die.
func (d *deceit[T]) lie(until time.Time) {
	ctx, cancel := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	defer runs.Wait()
	defer cancel()
	for i := 0; time.Now().Before(until); i++ {
		d.change()
		c := d.clients[i%2]
		if d.oneIn(3) {
			d.deliver(c, 4)
		}
		if d.oneIn(15) {
			d.deleteOne(c)
		}
		if d.oneIn(30) {
			d.decide(c)
		}
		if d.oneIn(40) {
			params := delta.ScheduleInformParams{ResourceKind: d.kind, FullListing: d.oneIn(2), ProcessExisting: d.oneIn(2)}
			runs.Go(func() { _, _ = c.RunInform(ctx, params, nil) }) // may fail if the listing does
		}
		if d.oneIn(60) {
			d.counts["stops"]++
			stopHard(c)
			d.clients[i%2] = d.start()
		}
		if d.oneIn(100) {
			d.requireBounds()
		}
		time.Sleep(time.Duration(d.random.IntN(60)) * time.Millisecond)
	}
}

// change changes a record, and queues webhooks for it. A new record has at least one webhook, because a record that Work found gone stays deleted
// until an explicit inform. The webhook of a removed record may be lost.
func (d *deceit[T]) change() {
	told, alive := d.outside.change()
	if !alive && d.oneIn(2) {
		return
	}
	hook := func(c *delta.Client) { d.touch(c, told.Key) }
	if alive {
		hook = func(c *delta.Client) { d.inform(c, told) }
	}
	d.hooks = append(d.hooks, hook)
	if d.oneIn(5) {
		d.late = append(d.late, hook)
	}
}

// deliver delivers webhooks in any order, and some of them twice.
func (d *deceit[T]) deliver(c *delta.Client, most int) {
	for ; len(d.hooks) > 0 && most > 0; most-- {
		at := d.random.IntN(len(d.hooks))
		d.hooks[at](c)
		if !d.oneIn(4) {
			d.hooks[at] = d.hooks[len(d.hooks)-1]
			d.hooks = d.hooks[:len(d.hooks)-1]
		}
	}
}

func (d *deceit[T]) inform(c *delta.Client, told lied) {
	if d.dropped[told.Key] {
		return
	}
	_, err := c.Inform(context.Background(), d.as(told), nil)
	require.NoError(d.t, err)
}

func (d *deceit[T]) touch(c *delta.Client, id string) {
	_, err := c.Touch(context.Background(), d.kind, id)
	require.NoError(d.t, ignoreStateError(err)) // it does not exist, or is deleted already
}

// deleteOne deletes a resource by a command, whether its record is live or not.
func (d *deceit[T]) deleteOne(c *delta.Client) {
	all := d.outside.allRecords()
	id := all[d.random.IntN(len(all))].Key
	_, err := c.Delete(context.Background(), d.kind, id)
	require.NoError(d.t, ignoreStateError(err))
	if err == nil {
		d.outside.noteDeleted(id)
		d.dropped[id] = true
		d.counts["drops"]++
	}
}

// decide decides about withheld deletions. In half of the runs nothing is approved, so that the bounds can be checked. Leftovers of an omitted shard
// are never approved: they would be deleted although no listing has omitted them.
func (d *deceit[T]) decide(c *delta.Client) {
	withheld, err := c.Withheld(context.Background())
	require.NoError(d.t, err)
	for _, w := range withheld {
		if d.approves && w.Shard == "" && d.oneIn(2) {
			d.counts["approvals"]++
			_, err = c.ApproveWithheld(context.Background(), w.Kind, w.Shard, w.Missing)
		} else {
			d.counts["dismissals"]++
			_, err = c.DismissWithheld(context.Background(), w.Kind, w.Shard, w.Missing)
		}
		if !errors.Is(err, delta.ErrNotWithheld) {
			require.NoError(d.t, err)
		}
	}
}

// requireBounds checks the stored passes: before any approval, none has deleted more than the bounds allow.
func (d *deceit[T]) requireBounds() {
	if d.counts["approvals"] > 0 {
		return
	}
	passes, err := d.clients[0].InformPasses(context.Background(), d.kind, "", 1000)
	require.NoError(d.t, err)
	for _, p := range passes {
		require.LessOrEqual(d.t, p.Deleted, d.most, "a pass deleted more than the bounds without an approval: %+v", p)
	}
}

// decideAll lists everything until nothing is withheld: records that an honest listing omits are gone.
func (d *deceit[T]) decideAll(c *delta.Client) {
	for {
		_, err := c.RunInform(d.t.Context(), delta.ScheduleInformParams{ResourceKind: d.kind, FullListing: true}, nil)
		require.NoError(d.t, err)
		withheld, err := c.Withheld(d.t.Context())
		require.NoError(d.t, err)
		if len(withheld) == 0 {
			return
		}
		for _, w := range withheld {
			_, err := c.ApproveWithheld(d.t.Context(), w.Kind, w.Shard, w.Missing)
			if !errors.Is(err, delta.ErrNotWithheld) {
				require.NoError(d.t, err)
			}
		}
	}
}

// bringBack checks that commanded deletions have stayed, whatever was listed since, and syncs some of them again.
func (d *deceit[T]) bringBack(c *delta.Client) {
	for _, r := range d.outside.allRecords() {
		if !d.dropped[r.Key] || d.mayComeBack(r.Key) {
			continue
		}
		d.requireDropped(r.Key)
		switch d.random.IntN(3) {
		case 0:
			delete(d.dropped, r.Key)
			_, err := c.Revive(d.t.Context(), d.kind, r.Key)
			require.NoError(d.t, err)
		case 1:
			delete(d.dropped, r.Key)
			d.inform(c, r.lied)
		}
	}
}

// mayComeBack reports whether the row of a commanded deletion may be removed: then a listing with the record makes a new resource.
func (d *deceit[T]) mayComeBack(id string) bool { return d.isTimed && d.outside.mayComeBack(id) }

func (d *deceit[T]) requireDropped(id string) {
	row := d.eventually(d.kind, id, func(row *deltatype.ResourceRow) bool { return row != nil && isFinalized(row) })
	require.Equal(d.t, deltatype.CauseCommand, row.Cause, id)
	_, ok := d.inside.get(id)
	require.False(d.t, ok, "%s was worked after a command had deleted it", id)
}

func isFinalized(row *deltatype.ResourceRow) bool {
	return row.State == deltatype.ResourceStateDeleted && row.Finalized != nil && *row.Finalized
}

// isNewest reports whether a record is synced in its newest version.
func (d *deceit[T]) isNewest(r truth, row *deltatype.ResourceRow) bool {
	revision, ok := d.inside.get(r.Key)
	return row != nil && row.State == deltatype.ResourceStateSynced && *row.Revision == r.Rev && ok && revision == r.Rev
}

// isGone reports whether a record was finalized.
func (d *deceit[T]) isGone(r truth, row *deltatype.ResourceRow) bool {
	_, ok := d.inside.get(r.Key)
	return !ok && (row == nil || isFinalized(row))
}

// requireTruth waits until each record is in its expected state.
func (d *deceit[T]) requireTruth() {
	known, live := map[string]bool{}, 0
	for _, r := range d.outside.allRecords() {
		known[r.Key] = true
		switch {
		case d.dropped[r.Key] && d.mayComeBack(r.Key):
			d.counts["left out after a drop"]++
			d.eventually(d.kind, r.Key, func(row *deltatype.ResourceRow) bool { return d.isGone(r, row) || (r.alive && d.isNewest(r, row)) })
		case d.dropped[r.Key]:
			d.requireDropped(r.Key)
		case r.alive:
			live++
			d.eventually(d.kind, r.Key, func(row *deltatype.ResourceRow) bool { return d.isNewest(r, row) })
		default:
			d.eventually(d.kind, r.Key, func(row *deltatype.ResourceRow) bool { return d.isGone(r, row) })
		}
	}
	require.Empty(d.t, d.inside.faults())
	rows, err := d.Pool.Query(d.t.Context(), "SELECT object_id FROM delta_resource WHERE kind = $1", d.kind)
	require.NoError(d.t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		require.NoError(d.t, rows.Scan(&id))
		require.True(d.t, known[id], id)
	}
	require.NoError(d.t, rows.Err())
	d.t.Logf("%d records, %d of them live, %d deleted by command; %v", len(known), live, len(d.dropped), d.counts)
}
