package delta_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// mirror is a kind whose informer always lists everything. It has no schedule, so that only the test runs it.
type mirror struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Note    string `json:"note"`
}

func (m mirror) ID() string   { return m.Name }
func (m mirror) Kind() string { return "mirror" }
func (m mirror) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 10, InformInterval: -1, CompleteListing: true, MaxDeleted: 3, MaxDeletedShare: 0.2}
}

// Compare ignores the note.
func (m mirror) Compare(other delta.Object) (int, bool) {
	o, ok := other.(mirror)
	return m.Version - o.Version, ok
}

// upstream is the system outside, controlled by the test.
type upstream[T any] struct {
	mu   sync.Mutex
	all  []T
	fail error
	seen []delta.InformOptions
}

func (u *upstream[T]) set(all ...T) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = all
}

// failWith makes listings fail with an error; nil ends that.
func (u *upstream[T]) failWith(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fail = err
}

func (u *upstream[T]) inform(ctx context.Context, o *delta.InformOptions) (<-chan T, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, *o)
	if u.fail != nil {
		return nil, u.fail
	}
	return sendAll(ctx, u.all...), nil
}

func newMirrors(n int) (all []mirror) {
	for i := range n {
		all = append(all, mirror{Name: fmt.Sprintf("m%03d", i), Version: 1})
	}
	return all
}

func (h *harness) countStates(kind string) map[deltatype.ResourceState]int {
	h.t.Helper()
	counts, err := h.client(&delta.Config{}).Count(context.Background(), delta.Filter{Kinds: []string{kind}})
	require.NoError(h.t, err)
	states := map[deltatype.ResourceState]int{}
	for _, c := range counts {
		states[c.State] = int(c.Count)
	}
	return states
}

func TestACompleteListingDeletesWithinBounds(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[mirror]{all: newMirrors(20)}
	c := h.start(h.config(with(&controller[mirror]{inform: outside.inform})))
	pass := func() *delta.InformRun {
		run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
		require.NoError(t, err)
		return run
	}
	pass()
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 20}, h.countStates("mirror"))

	// Three are gone, as many as MaxDeleted always allows.
	outside.set(newMirrors(17)...)
	require.Equal(t, 3, pass().Deleted)
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 17, "deleted": 3}, h.countStates("mirror"))
	require.NotNil(t, h.row("mirror", "m019").DueAt, "its row is removed after the retention")

	// Half is gone, so the deletion is withheld. Listed objects are informed anyway.
	outside.set(append(newMirrors(8), mirror{Name: "new", Version: 1})...)
	run := pass()
	require.Zero(t, run.Deleted)
	require.EqualValues(t, 9, run.Withheld)
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 18, "deleted": 3}, h.countStates("mirror"))

	// A pass that breaks off deletes nothing, nor does a narrowed one.
	outside.set(newMirrors(16)...)
	outside.fail = errors.New("upstream is down")
	_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror"}, &delta.InformOptions{Limit: 16})
	require.ErrorContains(t, err, "upstream is down")
	outside.fail = nil
	run, err = c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror"}, &delta.InformOptions{Limit: 16})
	require.NoError(t, err)
	require.Zero(t, run.Deleted)
	require.Equal(t, 2, pass().Deleted)

	// A deleted resource that is listed again is live again.
	outside.set(newMirrors(17)...)
	require.Equal(t, 1, pass().Scheduled)
	h.eventually("mirror", "m016", inState(deltatype.ResourceStateSynced))
	for _, o := range outside.seen {
		require.Nil(t, o.After, "a complete listing has no cursor")
	}
	var notes int
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_listing WHERE listed_at < now() - interval '1 week'").Scan(&notes))
	require.Zero(t, notes)
}

func TestCompareDecidesWhetherAnObjectHasChanged(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[mirror]{all: newMirrors(3)}
	var calls atomic.Int64
	c := h.start(h.config(with(&controller[mirror]{inform: outside.inform, work: func(context.Context, *delta.Resource[mirror]) error {
		calls.Add(1)
		return nil
	}})))
	params := delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}
	_, err := c.RunInform(t.Context(), params, nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, calls.Load())

	outside.set(mirror{Name: "m000", Version: 1, Note: "another"}, mirror{Name: "m001", Version: 2}, mirror{Name: "m002", Version: 1})
	run, err := c.RunInform(t.Context(), params, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Scheduled)
	require.EqualValues(t, 4, calls.Load())
	require.EqualValues(t, 1, h.row("mirror", "m000").Generation)

	params.ProcessExisting = true
	run, err = c.RunInform(t.Context(), params, nil)
	require.NoError(t, err)
	require.Equal(t, 3, run.Scheduled)
	require.EqualValues(t, 7, calls.Load(), "ProcessExisting also syncs what is the same")
	require.Equal(t, deltatype.PriorityBackfill, h.row("mirror", "m000").Priority)
}

func TestARunInTheForegroundFailsIfSomeDegrade(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[mirror]{all: newMirrors(30)}
	c := h.start(h.config(with(&controller[mirror]{inform: outside.inform, work: func(_ context.Context, r *delta.Resource[mirror]) error {
		time.Sleep(5 * time.Millisecond)
		if strings.HasSuffix(r.ObjectID, "7") {
			return delta.ResourceDegrade(errors.New("hopeless"))
		}
		return nil
	}})))
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
	require.ErrorContains(t, err, "3 of 30 resources degraded: m007, m017, m027")
	require.NotEmpty(t, run.WorkflowID)
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 27, "degraded": 3}, h.countStates("mirror"))

	require.NoError(t, c.ScheduleInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror"}, nil), "it does not wait")
	require.ErrorContains(t, c.ScheduleInform(t.Context(), delta.ScheduleInformParams{}, nil), "ResourceKind")
}

func TestOptionsReachTheInformer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[listed]{}
	c := h.start(h.config(with(&controller[listed]{inform: outside.inform})))
	after := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	given := delta.InformOptions{Labels: map[string]string{"team": "blue"}, Limit: 7, OrderBy: "created_at DESC", After: &after}
	_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "listed"}, &given)
	require.NoError(t, err)
	outside.mu.Lock()
	defer outside.mu.Unlock()
	require.Contains(t, outside.seen, given)
}

// No object is missed over random schedules of creations, clock skews, late appearances, failures and restarts.
func TestTheCursorMissesNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, one := range map[string]struct {
		dated  bool
		shards []string
	}{"dated": {true, nil}, "undated": {false, nil}, "shards": {true, []string{"eu", "us", "asia pacific"}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			newOutside(t, rand.New(rand.NewPCG(seed, 1)), one.dated, one.shards).run()
		})
	}
}

// cursedOverlap is how much earlier than its cursor a pass begins. It bounds the sum of skew and lateness.
const cursedOverlap = 400 * time.Millisecond

// outside creates objects by a skewed clock, and shows them with a delay.
type outside struct {
	h      *harness
	random *rand.Rand
	dated  bool
	// shards are the shards of listings; nil for complete listings.
	shards []string

	mu      sync.Mutex
	objects map[string]outsider
	failing bool
}

type outsider struct {
	created, visible time.Time
	shard            string
}

func newOutside(t *testing.T, random *rand.Rand, dated bool, shards []string) *outside {
	t.Helper()
	return &outside{h: newHarness(t), random: random, dated: dated, shards: shards, objects: map[string]outsider{}}
}

func (o *outside) inform(ctx context.Context, options *delta.InformOptions) (<-chan cursed, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failing {
		o.failing = false
		return nil, errors.New("upstream broke off")
	}
	var all []cursed
	for name, object := range o.objects {
		if object.shard != options.Shard || time.Now().Before(object.visible) || (options.After != nil && !object.created.After(*options.After)) {
			continue
		}
		c := cursed{Name: name, Region: object.shard}
		if o.dated {
			c.Made = object.created
		}
		all = append(all, c)
	}
	return sendAll(ctx, all...), nil
}

func (o *outside) create(round int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// The clock of creations jumps back by less than the overlap, because no time cursor can tolerate more, and ahead by hours. For jumps of the
	// database's clock see TestTheCursorMissesNothingWhenClocksJumpByHours.
	skew := time.Duration(o.random.Int64N(int64(cursedOverlap/4))) - cursedOverlap/8
	if o.random.IntN(4) == 0 {
		skew = time.Duration(o.random.Int64N(int64(48 * time.Hour)))
	}
	for i := range o.random.IntN(6) {
		now := time.Now()
		late := time.Duration(o.random.Int64N(int64(cursedOverlap / 2)))
		o.objects[fmt.Sprintf("o-%d-%d", round, i)] = outsider{now.Add(skew), now.Add(late), o.anyShard()}
	}
	if o.dated && round == 3 {
		// A clock that is a year ahead.
		o.objects["future"] = outsider{time.Now().Add(24 * 365 * time.Hour), time.Now(), o.anyShard()}
	}
	o.failing = round%8 == 5
}

func (o *outside) anyShard() string {
	if o.shards == nil {
		return ""
	}
	return o.shards[o.random.IntN(len(o.shards))]
}

// cursedIn lists shards.
type cursedIn struct {
	controller[cursed]
	shards []string
}

func (c *cursedIn) Shards(context.Context) ([]string, error) { return c.shards, nil }

func (o *outside) run() {
	t, config := o.h.t, o.h.config(with(&controller[cursed]{inform: o.inform}))
	if o.shards != nil {
		config = o.h.config(addTo(&cursedIn{controller[cursed]{inform: o.inform}, o.shards}))
	}
	c := o.h.start(config)
	pass := func() {
		_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "cursed"}, nil)
		require.NoError(t, err)
	}
	for round := range 20 {
		o.create(round)
		pass()
		if o.random.IntN(5) == 0 {
			require.NoError(t, c.Stop(context.Background()))
			c = o.h.start(config)
		}
		time.Sleep(time.Duration(o.random.Int64N(int64(100 * time.Millisecond))))
	}
	time.Sleep(cursedOverlap / 2)
	pass()
	for name := range o.objects {
		require.NotNil(t, o.h.row("cursed", name), "%s was missed", name)
	}
}

// cursed is a kind without a schedule and with a small overlap.
type cursed struct {
	Name, Region string
	Made         time.Time
}

func (c cursed) ID() string           { return c.Name }
func (c cursed) Kind() string         { return "cursed" }
func (c cursed) CreatedAt() time.Time { return c.Made }
func (c cursed) Shard() string        { return c.Region }
func (c cursed) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 8, InformInterval: 24 * time.Hour, InformOverlap: cursedOverlap}
}

// An object that a pass cannot have listed is not gone: here Work creates the object outside while an earlier pass is still running.
func TestAPassDoesNotDeleteResourcesSyncedMeanwhile(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	made, working, listing, finish := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	works, lists := sync.OnceFunc(func() { close(working) }), sync.OnceFunc(func() { close(listing) }) // each may be called again, because activities may
	c := h.start(h.config(with(&controller[mirror]{
		inform: func(ctx context.Context, o *delta.InformOptions) (<-chan mirror, error) {
			out := make(chan mirror)
			go func() {
				defer close(out)
				if o.OrderBy == "" {
					return // the next one
				}
				lists()
				<-finish
			}()
			return out, nil
		},
		work: func(context.Context, *delta.Resource[mirror]) error {
			works()
			<-made
			return nil
		},
	})))
	_, err := c.Inform(t.Context(), mirror{Name: "m", Version: 1}, nil)
	require.NoError(t, err)
	<-working
	ended := make(chan *delta.InformRun, 1)
	go func() {
		run, err := c.RunInform(context.Background(), delta.ScheduleInformParams{ResourceKind: "mirror"}, &delta.InformOptions{OrderBy: "name"})
		assert.NoError(t, err)
		ended <- run
	}()
	<-listing
	close(made)
	h.eventually("mirror", "m", synced(1))
	close(finish)
	require.Zero(t, (<-ended).Deleted)
	require.Equal(t, deltatype.ResourceStateSynced, h.row("mirror", "m").State)

	// The next pass can tell.
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror"}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Deleted)
}
