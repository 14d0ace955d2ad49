package delta_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

const (
	mixedActors    = 3
	mixedProcesses = 3
	// mixedResources is how many there are of each kind.
	mixedResources = 60
	// mixedRound is how long the load lasts before all resources are checked.
	mixedRound = 2 * time.Minute
)

// Three client processes on one database and one Temporal, under informs, listings, deletions, touches, parents, snoozes, expiries and priorities, are
// killed and stopped again and again: after each round all resources are as their oracle says, and no two calls of Work ran at once for an object.
// `make soak SOAKS=TestSoakOfThreeProcesses SOAK=1h` runs it for an hour.
func TestSoakOfThreeProcessesUnderMixedLoad(t *testing.T) {
	soak.Only(t) // each round ends with the wait for leases and claims of killed processes, a minute
	long, _ := soak.Given(t)
	t.Parallel()
	seed := soakSeed(t)
	t.Logf("DELTA_TEST_SEED=%d", seed)
	m := &mixed{harness: newHarness(t)}
	m.exec(mixedTables)
	m.client = m.harness.client(&delta.Config{})
	for i := range m.processes {
		m.processes[i] = m.spawnChild("mixed", "started")
	}
	for i := range mixedActors {
		a := &mixedActor{mixed: m, random: rand.New(rand.NewPCG(seed, uint64(i))), fates: map[string]*fate{}, world: map[string]string{}}
		for n := i; n < mixedResources; n += mixedActors {
			a.names = append(a.names, fmt.Sprintf("r%03d", n))
		}
		m.actors = append(m.actors, a)
	}
	random := rand.New(rand.NewPCG(seed, 100))
	end := time.Now().Add(long)
	for round := 1; ; round++ {
		m.exec("UPDATE delta_namespace SET resource_expiry = CASE name WHEN 'expires' THEN $1 ELSE interval '0' END", mixedExpiry)
		over := time.Now().Add(min(mixedRound, time.Until(end)))
		var all sync.WaitGroup
		for _, a := range m.actors {
			all.Go(func() { a.act(over) })
		}
		killed, stopped := m.disturb(random, over)
		all.Wait()
		if t.Failed() {
			return
		}
		ended := time.Now()
		m.awaitExpiries()
		m.exec("UPDATE delta_namespace SET resource_expiry = '0', synced_retention = '-1 hour'")
		m.requireFates()
		t.Logf("round %d: %d acts, %d deeds, %d processes killed, %d stopped; as the oracle says after %s", round, m.acts.Load(),
			m.countRows("SELECT count(*) FROM mixed_deed"), killed, stopped, time.Since(ended).Round(time.Millisecond))
		if t.Failed() || time.Now().After(end) {
			return
		}
	}
}

// mixed is the load, and what is known about it.
type mixed struct {
	*harness
	client    *delta.Client // it only informs and commands
	processes [mixedProcesses]*child
	actors    []*mixedActor
	acts      atomic.Int64
	plans     atomicCounter
}

// fate is the end that a resource must come to.
type fate struct {
	plan    string
	deleted bool
}

// mixedActor acts on some resources, and only it does.
type mixedActor struct {
	*mixed
	random *rand.Rand
	names  []string
	fates  map[string]*fate  // of bases and leaves, by kind and name
	world  map[string]string // what is listed: plans by name
}

// act performs one act after another. Everything begins with all bases, because a leaf waits for its own.
func (a *mixedActor) act(over time.Time) {
	ctx := context.Background()
	for _, name := range a.names {
		a.must(a.inform(ctx, mixedBase{account{Name: name}}))
	}
	for time.Now().Before(over) && !a.t.Failed() {
		a.acts.Add(1)
		a.must(a.actOn(ctx, a.random.IntN(20), a.names[a.random.IntN(len(a.names))]))
		time.Sleep(time.Duration(a.random.IntN(80)) * time.Millisecond)
	}
}

func (a *mixedActor) must(err error) {
	if err != nil {
		a.t.Errorf("an act failed: %v", err)
	}
}

func (a *mixedActor) actOn(ctx context.Context, dice int, name string) error {
	base, leaf := mixedBase{account{Name: name}}, mixedLeaf{account{Name: name}}
	switch {
	case dice < 5:
		return a.inform(ctx, base)
	case dice < 9:
		return a.inform(ctx, leaf)
	case dice < 10:
		return a.informMany(ctx)
	case dice < 12:
		_, err := a.client.Delete(ctx, leaf.Kind(), name)
		if err == nil {
			a.fateOf(leaf).deleted = true
		}
		return ignoreStateError(err)
	case dice < 13:
		_, err := a.client.Touch(ctx, base.Kind(), name)
		return ignoreStateError(err)
	case dice < 14:
		_, err := a.client.Touch(ctx, leaf.Kind(), name)
		return ignoreStateError(err)
	case dice < 15:
		_, err := a.client.Invalidate(ctx, leaf)
		return ignoreStateError(err)
	case dice < 18:
		a.world[name] = a.plans.next("")
		_, err := a.Pool.Exec(ctx, "INSERT INTO mixed_world VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET plan = excluded.plan", name, a.world[name])
		return err
	default:
		delete(a.world, name)
		_, err := a.Pool.Exec(ctx, "DELETE FROM mixed_world WHERE name = $1", name)
		return err
	}
}

func (a *mixedActor) fateOf(o delta.Object) *fate {
	key := o.(interface{ Kind() string }).Kind() + "/" + o.ID()
	if a.fates[key] == nil {
		a.fates[key] = &fate{deleted: true}
	}
	return a.fates[key]
}

// withPlan returns an object with a new plan, and notes it.
func (a *mixedActor) withPlan(o delta.Object) delta.Object {
	f := a.fateOf(o)
	*f = fate{plan: a.plans.next("")}
	switch o := o.(type) {
	case mixedBase:
		o.Plan = f.plan
		return o
	case mixedLeaf:
		o.Plan = f.plan
		return o
	}
	return nil
}

// options are those of a base or leaf. Bases with an even number expire.
func (a *mixedActor) options(o delta.Object) *delta.InformOpts {
	opts := &delta.InformOpts{MaxAttempts: 1000, Priority: int16(1 + a.random.IntN(4))}
	if _, isBase := o.(mixedBase); isBase && isExpiring(o.ID()) {
		opts.Namespace = "expires"
	}
	return opts
}

func isExpiring(name string) bool { return strings.ContainsAny(name[len(name)-1:], "02468") }

func (a *mixedActor) inform(ctx context.Context, o delta.Object) error {
	_, err := a.client.Inform(ctx, a.withPlan(o), a.options(o))
	return err
}

// informMany informs some leaves together.
func (a *mixedActor) informMany(ctx context.Context) error {
	var objects []delta.Object
	for _, name := range a.names[:1+a.random.IntN(len(a.names))] {
		objects = append(objects, a.withPlan(mixedLeaf{account{Name: name}}))
	}
	_, err := a.client.InformMany(ctx, objects, &delta.InformOpts{MaxAttempts: 1000})
	return err
}

// disturb kills or stops one process after another, and starts another one in its place, sometimes a little later. All run when it returns.
func (m *mixed) disturb(random *rand.Rand, over time.Time) (killed, stopped int) {
	for time.Now().Before(over) && !m.t.Failed() {
		time.Sleep(min(time.Duration(500+random.IntN(8000))*time.Millisecond, time.Until(over)/2))
		n := random.IntN(len(m.processes))
		if random.IntN(2) == 0 {
			m.processes[n].kill()
			killed++
		} else {
			m.processes[n].stop()
			stopped++
		}
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		m.processes[n] = m.spawnChild("mixed", "started")
	}
	return killed, stopped
}

// awaitExpiries waits until each base that expires has been synced by its expiry. When it begins, one call of Work may run, and another one be due.
func (m *mixed) awaitExpiries() {
	const counts = "SELECT object_id, sync_count FROM delta_resource WHERE kind = 'mixed-base' AND namespace = 'expires'"
	before := m.readCounts(counts)
	var left []string
	until(m.t, func() bool {
		now := m.readCounts(counts)
		left = nil
		for name, n := range before {
			if now[name] < n+3 {
				left = append(left, name)
			}
		}
		return len(left) == 0
	}, "these did not expire: %s", shown[[]string]{&left})
}

func (m *mixed) readCounts(query string) map[string]int {
	m.t.Helper()
	counts := map[string]int{}
	rows, err := m.Pool.Query(m.t.Context(), query)
	require.NoError(m.t, err)
	var name string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error { counts[name] = n; return nil })
	require.NoError(m.t, err)
	return counts
}

// requireFates waits until nothing is due and each resource is as its oracle says, and checks what Work has done and in what order.
func (m *mixed) requireFates() {
	m.t.Helper()
	m.awaitRest()
	var left []string
	until(m.t, func() bool { // the listing that runs may have begun before the last change
		left = m.findDifferences()
		return len(left) == 0
	}, "not as the oracle says: %s", shown[[]string]{&left})
	require.Zero(m.t, m.countRows("SELECT count(*) FROM mixed_overlap"), "calls of Work that ran beside another one for the object")
	require.Zero(m.t, m.countRows(`SELECT count(*) FROM mixed_deed l WHERE l.kind = 'mixed-leaf'
		AND NOT EXISTS (SELECT FROM mixed_deed b WHERE b.kind = 'mixed-base' AND b.name = l.name AND b.n < l.n)`), "leaves that were worked before their base")
	require.Zero(m.t, m.countRows(`SELECT count(*) FROM mixed_deed a JOIN mixed_deed b
		ON a.kind = b.kind AND a.name = b.name AND a.n < b.n AND (a.row_id, a.generation) > (b.row_id, b.generation)`), "generations that were worked after newer ones")
}

// mixedState is a row and the latest deed of its Work.
type mixedState struct {
	State                      deltatype.ResourceState
	Plan, Done                 string
	Generation, Synced, DoneOf int64
	// TouchedAfter reports whether the latest deed follows the first one of the latest plan of the base.
	TouchedAfter bool
}

// readStates returns all rows, by kind and name.
func (m *mixed) readStates() map[string]mixedState {
	m.t.Helper()
	rows, err := m.Pool.Query(m.t.Context(), `SELECT r.kind || '/' || r.object_id, r.state, r.object ->> 'plan', coalesce(d.plan, ''), r.generation,
			r.synced_generation, coalesce(d.generation, 0), d.n > (SELECT min(c.n) FROM mixed_deed c
				JOIN delta_resource b ON b.kind = 'mixed-base' AND b.object_id = c.name AND b.object ->> 'plan' = c.plan
				WHERE c.kind = 'mixed-base' AND c.name = r.object_id) IS NOT FALSE
		FROM delta_resource r
		LEFT JOIN LATERAL (SELECT * FROM mixed_deed d WHERE d.kind = r.kind AND d.name = r.object_id ORDER BY d.n DESC LIMIT 1) d ON TRUE`)
	require.NoError(m.t, err)
	states := map[string]mixedState{}
	var key string
	var s mixedState
	_, err = pgx.ForEachRow(rows, []any{&key, &s.State, &s.Plan, &s.Done, &s.Generation, &s.Synced, &s.DoneOf, &s.TouchedAfter},
		func() error { states[key] = s; return nil })
	require.NoError(m.t, err)
	return states
}

// findDifferences compares all resources with the oracle.
func (m *mixed) findDifferences() (all []string) {
	m.t.Helper()
	states := m.readStates()
	compare := func(key, plan string, isDeleted, isTouched bool) {
		got, isThere := states[key]
		wanted := mixedState{deltatype.ResourceStateSynced, plan, plan, got.Generation, got.Generation, got.Generation, got.TouchedAfter || isTouched}
		switch {
		case isDeleted && (!isThere || got.State == deltatype.ResourceStateDeleted):
		case isDeleted:
			all = append(all, fmt.Sprintf("%s should be deleted: %+v", key, got))
		case got != wanted:
			all = append(all, fmt.Sprintf("%s: %+v, want %+v", key, got, wanted))
		}
	}
	for _, a := range m.actors {
		for key, f := range a.fates {
			compare(key, f.plan, f.deleted, strings.HasPrefix(key, mixedLeaf{}.Kind()))
		}
		for _, name := range a.names {
			plan, isListed := a.world[name]
			compare(mixedListed{}.Kind()+"/"+name, plan, !isListed, false)
		}
	}
	return all
}
