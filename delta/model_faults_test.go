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

// process is a client with proxies to Postgres and Temporal that can be cut.
type process struct {
	client             *delta.Client
	postgres, temporal *cutProxy
	// silent prevents a second silence before the first has ended.
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
			s.t.Logf("a process could not start yet: %v", err) // Temporal is busy
		}
		return err == nil
	})
	return &process{client: c, postgres: postgres, temporal: temporal}
}

// process returns a running process.
func (s *storm) process(n int) *process {
	s.processesMu.Lock()
	defer s.processesMu.Unlock()
	return s.processes[n]
}

// stop stops a process like a deploy that does not wait: calls of Work are cut off.
func (s *storm) stop(p *process) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.client.Stop(ended)
}

// weather causes faults of processes and servers.
type weather struct {
	*storm
	random *rand.Rand
	counts map[string]int
}

// change causes one fault after another. Some last while the next ones happen.
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

// loseAnswers drops the answers to the next writes of a process, together with their connections.
func (w *weather) loseAnswers(n int) { w.process(n).postgres.lose.Add(int64(1 + w.random.IntN(6))) }

// silence silences a proxy of a process for a while. A process has one silence at a time.
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

// silencePostgres silences Postgres for one process, possibly for longer than a claim: others claim its rows. Sent data arrives later, or never.
func (w *weather) silencePostgres(n int) {
	lasts := w.shortTime()
	if w.random.IntN(4) == 0 {
		lasts += 6 * time.Second
	}
	p := w.process(n)
	w.silence(p, p.postgres, lasts, w.random.IntN(2) == 0)
}

// silenceTemporal silences Temporal for one process. If data is lost, Temporal misses the process's tasks only after ten seconds, and little happens
// meanwhile.
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

// restart replaces a process by another one.
func (w *weather) restart(n int) {
	p := w.process(n)
	w.ended.Go(func() { w.stop(p) })
	w.replace(n)
}

// kill ends the connections of a process, as its death would. The outcomes of its calls of Work are lost.
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
