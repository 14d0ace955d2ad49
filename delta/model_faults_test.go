package delta_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// process is a client whose ways to Postgres and Temporal can be cut.
type process struct {
	client             *delta.Client
	postgres, temporal *cutProxy
	// silent keeps a second silence from beginning before the first has ended.
	silent sync.Mutex
}

func (p *process) heal() {
	p.silent.Lock()
	defer p.silent.Unlock()
	p.postgres.lose.Store(0)
}

func (s *storm) startProcess() *process {
	s.t.Helper()
	pool, postgres := s.poolByProxy()
	temporal := newCutProxy(s.t, s.TemporalAddress)
	config := s.config(s.controller(s.workWith(pool)))
	config.Temporal = s.temporalBy(temporal)
	config.Namespaces = map[string]delta.NamespaceConfig{delta.NamespaceDefault: {MaxWorkers: 12, ResourceExpiry: 700 * time.Millisecond}}
	c, err := delta.NewClient(pool, config)
	require.NoError(s.t, err)
	c.SetTiming(time.Second, 200*time.Millisecond, 0)
	until(s.t, func() bool {
		err := c.Start(context.Background())
		if err != nil {
			s.t.Logf("a process could not start yet: %v", err) // Temporal has much to do
		}
		return err == nil
	})
	return &process{client: c, postgres: postgres, temporal: temporal}
}

// process is one that runs.
func (s *storm) process(n int) *process {
	s.processesMu.Lock()
	defer s.processesMu.Unlock()
	return s.processes[n]
}

// stop is a deploy that does not wait: calls of Work are cut off.
func (s *storm) stop(p *process) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.client.Stop(ended)
}

// weather is what happens to processes and servers.
type weather struct {
	*storm
	random *rand.Rand
	counts map[string]int
}

// change has one fault after the other, some of which go on beside the next ones.
func (w *weather) change(until time.Time) {
	faults := []struct {
		name  string
		often int
		do    func(n int)
	}{
		{"answers of Postgres are lost", 6, w.loseAnswers},
		{"Postgres is silent", 2, w.silencePostgres},
		{"Temporal is silent", 1, w.silenceTemporal},
		{"Postgres is silent for all", 1, w.silencePostgresForAll},
		{"Temporal is silent for all", 1, w.silenceTemporalForAll},
		{"a process is stopped", 1, w.restart},
		{"a process is killed", 1, w.kill},
	}
	var drawn []int
	for i, fault := range faults {
		drawn = append(drawn, slices.Repeat([]int{i}, fault.often)...)
	}
	for time.Now().Before(until) && !w.t.Failed() {
		time.Sleep(time.Duration(w.random.IntN(1500)) * time.Millisecond)
		fault := faults[drawn[w.random.IntN(len(drawn))]]
		w.counts[fault.name]++
		fault.do(w.random.IntN(len(w.processes)))
	}
}

// loseAnswers has the answers to the next writes of a process lost, with their connections.
func (w *weather) loseAnswers(n int) { w.process(n).postgres.lose.Add(int64(1 + w.random.IntN(6))) }

// silence has a way of a process silent for a while. A process has one silence at a time.
func (w *weather) silence(p *process, way *cutProxy, lasts time.Duration, cuts bool) {
	if !p.silent.TryLock() {
		return
	}
	w.faults.Go(func() {
		defer p.silent.Unlock()
		if cuts {
			way.cut.Store(true)
			time.Sleep(lasts)
			way.heal()
			return
		}
		way.stall.Store(true)
		time.Sleep(lasts)
		way.stall.Store(false)
	})
}

// silencePostgres is a silence for one process, which may be longer than a claim: others claim what it had. What was sent arrives later, or
// never.
func (w *weather) silencePostgres(n int) {
	lasts := w.shortTime()
	if w.random.IntN(4) == 0 {
		lasts += 6 * time.Second
	}
	p := w.process(n)
	w.silence(p, p.postgres, lasts, w.random.IntN(2) == 0)
}

// silenceTemporal is a silence for one process. Where nothing arrives ever, Temporal misses what it has given to the process after ten
// seconds only, and little happens meanwhile.
func (w *weather) silenceTemporal(n int) {
	p := w.process(n)
	w.silence(p, p.temporal, 2*w.shortTime(), w.long && w.random.IntN(4) == 0)
}

func (w *weather) silencePostgresForAll(int) {
	lasts, cuts := w.shortTime(), w.random.IntN(2) == 0
	for n := range w.processes {
		p := w.process(n)
		w.silence(p, p.postgres, lasts, cuts)
	}
}

func (w *weather) silenceTemporalForAll(int) {
	lasts := 2 * w.shortTime()
	for n := range w.processes {
		p := w.process(n)
		w.silence(p, p.temporal, lasts, false)
	}
}

func (w *weather) shortTime() time.Duration {
	return time.Duration(100+w.random.IntN(1200)) * time.Millisecond
}

// restart stops a process, and starts another one in its place.
func (w *weather) restart(n int) {
	p := w.process(n)
	w.ended.Go(func() { w.stop(p) })
	w.replace(n)
}

// kill ends the connections of a process, as its death does. Nobody hears of what its calls of Work come to.
func (w *weather) kill(n int) {
	p := w.process(n)
	p.postgres.end()
	p.temporal.end()
	w.ended.Go(func() { w.stop(p) })
	w.replace(n)
}

func (w *weather) replace(n int) {
	p := w.startProcess()
	w.processesMu.Lock()
	defer w.processesMu.Unlock()
	w.processes[n] = p
}
