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

// A provider lies in its listings and its webhooks, its listings break off, and clients die. When the lies end, what is live is synced in its
// newest version, what is gone was finalized, what a command deleted stays so, and nothing else was deleted.
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
	// Rows of what was deleted are removed soon: only that a listing has not left it out keeps what a command has deleted.
	t.Run("by time, with a short retention", func(t *testing.T) {
		t.Parallel()
		d := newDeceit(t, seed+2, func(l lied) liedTimed { return liedTimed{l} }, func(o liedTimed) lied { return o.lied })
		d.most = int64(liedMaxDeletedShare * float64(len(d.outside.accounts)*liedRecords))
		d.isTimed, d.inside.forgets = true, true
		d.run(long, func() func(*delta.Controllers) { return addTo(d.controller()) })
	})
	t.Run("shards", func(t *testing.T) {
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
	// hooks are webhooks on their way, late those that come once more when the lies are over.
	hooks, late []func(*delta.Client)
	// dropped are records that a command has deleted: no explicit inform may bring them back, so nothing does.
	dropped map[string]bool
	// most is how many resources a listing deletes at most without an approval: more than it are beyond MaxDeleted and MaxDeletedShare, however
	// many rows there are. approves tells that a person approves what is withheld although it may be a lie.
	most     int64
	approves bool
	// isTimed has listings go on from a time, and rows of what was deleted be removed soon.
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

// expireLeases has a short run not wait for the leases that clients took which were stopped: those take a minute to pass. A long run waits for them.
func (d *deceit[T]) expireLeases() {
	if _, isLong := soak.Given(d.t); isLong {
		return
	}
	_, err := d.Pool.Exec(d.t.Context(), `UPDATE delta_resource SET dispatch_at = now() WHERE kind = $1
		AND (state IN ('scheduled', 'expired', 'failed', 'pending') OR (state = 'deleted' AND finalized IS FALSE))`, d.kind)
	require.NoError(d.t, err)
}

// stopHard ends a client without waiting for what it does.
func stopHard(c *delta.Client) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Stop(ended)
}

// lie changes records, and has the provider lie of them, while persons give orders and clients die.
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
			runs.Go(func() { _, _ = c.RunInform(ctx, params, nil) }) // it may fail, as the listing does
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

// change changes a record, and has a webhook tell of it. A record that comes to be is told by one at least: what Work has found gone stays
// deleted until it is informed explicitly. That of a record that is gone may be lost.
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
	require.NoError(d.t, ignoreStateError(err)) // it is not there, or deleted already
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

// decide has a person decide of what is withheld. In half of the runs nothing is approved, so that the bounds can be checked. What is left of a
// shard that is not named is not approved: then it would be deleted although no listing has left it out.
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

// requireBounds looks at the passes that are kept: before anything was approved, none has deleted more than it may.
func (d *deceit[T]) requireBounds() {
	if d.counts["approvals"] > 0 {
		return
	}
	passes, err := d.clients[0].InformPasses(context.Background(), d.kind, "", 1000)
	require.NoError(d.t, err)
	for _, p := range passes {
		require.LessOrEqual(d.t, p.Deleted, d.most, "a pass deleted suspiciously much, and nobody approved it: %+v", p)
	}
}

// decideAll lists everything until nothing is withheld: what an honest listing leaves out is gone.
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

// bringBack sees that what a command deleted has stayed so, whatever was listed since, and has some of it synced again.
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

// mayComeBack reports whether the row of what a command has deleted may be gone: then a listing that names the record again makes a new resource.
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

// requireTruth waits until each record is as it should be.
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
