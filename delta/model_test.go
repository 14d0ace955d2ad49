package delta_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// stormEach, stormBatched and stormAuto are a kind in each mode, with the shortest claims that a busy machine allows. Some of their resources have
// others as parents.
type stormEach struct{ account }

func (stormEach) Kind() string                     { return "storm-each" }
func (o stormEach) Settings() delta.ObjectSettings { return stormSettings(1, o.Kind()) }
func (o stormEach) Parents() []delta.Ref           { return stormParents(o.Kind(), o.Name) }

type stormBatched struct{ account }

func (stormBatched) Kind() string                     { return "storm-batched" }
func (o stormBatched) Settings() delta.ObjectSettings { return stormSettings(5, o.Kind()) }
func (o stormBatched) Parents() []delta.Ref           { return stormParents(o.Kind(), o.Name) }

type stormAuto struct{ account }

func (stormAuto) Kind() string                     { return "storm-auto" }
func (o stormAuto) Settings() delta.ObjectSettings { return stormSettings(0, o.Kind()) }
func (o stormAuto) Parents() []delta.Ref           { return stormParents(o.Kind(), o.Name) }

func stormSettings(size int, kind string) delta.ObjectSettings {
	s := briefSettings(size)
	s.RetryPolicy = delta.RetryPolicy{InitialInterval: 50 * time.Millisecond, MaximumInterval: 500 * time.Millisecond}
	s.TouchedBy = []string{kind}
	return s
}

// stormParents returns the parents of a resource: r05 has r04, and r07 has r05, so that r07 waits for both.
func stormParents(kind, name string) []delta.Ref {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "r"))
	switch {
	case err != nil || n%2 == 0:
		return nil
	case n%4 == 1:
		return []delta.Ref{{Kind: kind, ObjectID: names("r", n)[n-1]}}
	default:
		return []delta.Ref{{Kind: kind, ObjectID: names("r", n)[n-2]}}
	}
}

const (
	stormUsers    = 3
	stormAttempts = 3
	// stormRound is how long a storm of a long soak lasts before the resources are checked.
	stormRound = 20 * time.Second
)

// Whatever happens to resources, processes, Postgres and Temporal, and in whatever order: only one call of Work runs for a resource at a time, each
// attempt leaves a trace, no older write follows a newer one, and after the storm each resource settles as its model says.
func TestSoakOfResources(t *testing.T) {
	long := soak.Time(t, 4*time.Second)
	t.Parallel()
	seed := soakSeed(t)
	for _, c := range []struct {
		resources int
		mode
	}{
		{24, modeFor(-1, func(a account) stormEach { return stormEach{a} }, func(o stormEach) account { return o.account })},
		{24, modeFor(-1, func(a account) stormBatched { return stormBatched{a} }, func(o stormBatched) account { return o.account })},
		// More than become singles at once.
		{40, modeFor(-1, func(a account) stormAuto { return stormAuto{a} }, func(o stormAuto) account { return o.account })},
	} {
		t.Run(c.kind, func(t *testing.T) {
			if c.kind != "storm-auto" { // which uses both modes
				soak.Rare(t)
			}
			t.Parallel()
			t.Logf("DELTA_TEST_SEED=%d", seed)
			c.harness = newHarness(t)
			newStorm(c.mode, seed, c.resources).rage(long)
		})
	}
}

// soakSeed returns the seed of a soak's faults: DELTA_TEST_SEED, or a new one. Log it: it reproduces the test's actions, but not the interleaving of
// processes and servers.
func soakSeed(t *testing.T) uint64 {
	t.Helper()
	given := os.Getenv("DELTA_TEST_SEED")
	if given == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(given, 10, 64)
	require.NoError(t, err)
	return seed
}

// storm has the faults and actions on resources, and their model.
type storm struct {
	mode
	seed uint64
	ids  []string
	*ledger
	users []*user

	processesMu sync.Mutex
	processes   [2]*process
	// faults are faults that last for a while; ended are processes that are stopping.
	faults, ended sync.WaitGroup
	acts          atomic.Int64
	plans         atomicCounter
}

func newStorm(g mode, seed uint64, resources int) *storm {
	s := &storm{mode: g, seed: seed, ids: names("r", resources), ledger: newLedger(g.t, seed)}
	for i := range stormUsers {
		u := &user{storm: s, random: rand.New(rand.NewPCG(seed, uint64(10+i))), plans: map[string][]string{}}
		u.informed, u.deleted, u.removed = map[string]bool{}, map[string]bool{}, map[string]bool{}
		for n := i; n < resources; n += stormUsers {
			u.ids = append(u.ids, s.ids[n])
		}
		u.client = g.client(g.config())
		s.users = append(s.users, u)
	}
	return s
}

// rage runs one storm after another, and checks after each that the model holds.
func (s *storm) rage(long time.Duration) {
	for i := range s.processes {
		s.processes[i] = s.startProcess()
	}
	defer func() {
		for _, p := range s.processes {
			s.stop(p)
		}
		s.ended.Wait()
		for _, u := range s.users {
			_ = u.client.Stop(s.t.Context())
		}
	}()
	weather := &weather{storm: s, random: rand.New(rand.NewPCG(s.seed, 2)), counts: map[string]int{}}
	end := time.Now().Add(long)
	for round := 1; ; round++ {
		s.calm.Store(false)
		s.exec("UPDATE delta_namespace SET resource_expiry = '700 ms', synced_retention = '0'")
		over := time.Now().Add(min(stormRound, time.Until(end)))
		var all sync.WaitGroup
		for _, u := range s.users {
			all.Go(func() { u.act(over) })
		}
		all.Go(func() { s.watchRows(over) })
		weather.change(over)
		all.Wait()
		s.faults.Wait()
		if s.t.Failed() {
			return
		}
		ended := time.Now()
		s.endFaults(round%2 == 1 || !s.long)
		s.requireModel()
		s.requireLast(fmt.Sprint("last of round ", round))
		s.t.Logf("round %d: %d acts, %d calls of Work, faults: %v; at rest after %s", round, s.acts.Load(), s.calls(), weather.counts,
			time.Since(ended).Round(time.Millisecond))
		if s.t.Failed() || time.Now().After(end) {
			return
		}
	}
}

// watchRows reads the rows continuously: forbidden states must not be visible even for a moment.
func (s *storm) watchRows(until time.Time) {
	for time.Now().Before(until) && !s.t.Failed() {
		for _, id := range s.ids {
			if row := s.row(s.kind, id); row != nil {
				s.checkRow(row)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// endFaults ends all faults, and waits until nothing is due. If helps is set, it skips leases, also of touches, and the graces for timers of
// terminated workflows.
func (s *storm) endFaults(helps bool) {
	s.calm.Store(true)
	for _, p := range s.processes {
		p.heal()
	}
	s.exec("UPDATE delta_namespace SET resource_expiry = '0', synced_retention = '-1 hour'")
	for _, u := range s.users {
		for _, id := range u.ids {
			_, err := u.client.Resume(s.t.Context(), s.kind, id)
			require.NoError(s.t, ignoreStateError(err))
		}
	}
	if helps {
		s.exec("UPDATE delta_resource SET dispatch_at = now() WHERE state IN ('scheduled', 'expired', 'failed', 'pending')")
		s.exec("UPDATE delta_touch SET look_at = now()")
	}
	s.awaitRest()
}

// requireModel compares each resource with its model, when all faults are over and nothing is due.
func (s *storm) requireModel() {
	for _, u := range s.users {
		for _, id := range u.ids {
			s.requireRow(u, id, s.row(s.kind, id))
		}
	}
}

func (s *storm) requireRow(u *user, id string, row *deltatype.ResourceRow) {
	t := s.t
	if row == nil {
		require.True(t, u.removed[id] || !u.informed[id], "%s is gone", id)
		return
	}
	last, done := s.latestOf(id)
	require.Contains(t, u.plans[id], planOf(t, row), "%s has another object than was informed", id)
	switch row.State {
	case deltatype.ResourceStateSynced:
		require.Equal(t, row.Generation, row.SyncedGeneration, id)
		require.Equal(t, deed{row.ID, row.Generation, planOf(t, row)}, done, "%s: the synced object is the latest deed of Work", id)
		require.Equal(t, done, last.deed, "%s: an older generation was worked after the newest was synced", id)
	case deltatype.ResourceStateDegraded:
		if last.row == row.ID && last.generation == row.Generation && last.verdict == degrades {
			return
		}
		require.Equal(t, stormAttempts, row.Attempt, "%s is degraded although it has attempts left: %+v", id, row)
		require.Equal(t, []int{1, 2, 3}, lastAttempts(row, stormAttempts), "%s: each failed attempt has an error: %+v", id, row)
	case deltatype.ResourceStateScheduled:
		require.NotEmpty(t, row.AwaitedParents, "%s is not settled: %+v", id, row)
		parent := s.row(row.AwaitedParents[0].Kind, row.AwaitedParents[0].ObjectID)
		require.True(t, parent == nil || parent.SyncCount == 0, "%s waits for %+v", id, parent)
		require.Zero(t, row.SyncCount, "%s was worked before its parent", id)
	case deltatype.ResourceStateDeleted:
		isWorks := last.row == row.ID && last.generation == row.Generation && last.verdict == deletes
		require.True(t, isWorks || u.deleted[id], "%s was deleted without a command", id)
	default:
		require.Fail(t, "it does not rest", "%s: %+v", id, row)
	}
}

// requireLast informs all resources once more, and waits until they are synced. A busy machine loses claims as short as theirs, and each costs an
// attempt, so MaxAttempts is high.
func (s *storm) requireLast(plan string) {
	for _, u := range s.users {
		for _, id := range u.ids {
			_, err := u.client.Inform(s.t.Context(), s.object(account{Name: id, Plan: plan}), &delta.InformOpts{MaxAttempts: 1000})
			require.NoError(s.t, err)
			u.notePlan(id, plan, nil)
		}
	}
	for _, id := range s.ids {
		s.awaitRow(id, func(r *deltatype.ResourceRow) bool {
			return r.State == deltatype.ResourceStateSynced && r.SyncedGeneration == r.Generation
		})
	}
	s.awaitRest() // children are touched after their parents
	for _, id := range s.ids {
		row := s.row(s.kind, id)
		_, done := s.latestOf(id)
		require.Equal(s.t, deed{row.ID, row.Generation, plan}, done, id)
		s.requireTouched(row)
	}
	s.exec("UPDATE delta_resource SET attempt = least(attempt, $1), max_attempts = $1", stormAttempts)
}

func planOf(t *testing.T, row *deltatype.ResourceRow) string {
	t.Helper()
	var object account
	require.NoError(t, json.Unmarshal(row.EncodedObject, &object))
	return object.Plan
}

// lastAttempts returns the attempts of the latest errors of a row, without those of failed starts.
func lastAttempts(row *deltatype.ResourceRow, n int) (all []int) {
	for _, e := range row.Errors {
		if e.Attempt > 0 {
			all = append(all, e.Attempt)
		}
	}
	return slices.Clone(all[max(len(all)-n, 0):])
}
