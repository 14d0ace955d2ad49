package stack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

// clusterProcess is a process of one service. It is started again when it ends, as an orchestrator does.
type clusterProcess struct {
	spec

	cluster *Cluster
	ports   listenPorts

	mu      sync.Mutex
	child   *child
	isEnded bool
}

func (p *clusterProcess) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isEnded || p.child != nil && p.child.isAlive() {
		return nil // it is wanted no more, or somebody else has started it
	}
	started, err := startChild(p.spec)
	if err != nil {
		return err
	}
	p.child = started
	go p.restartAfterEnd(started)
	return nil
}

// restartAfterEnd starts a process again that has ended by itself, which it should not do, so it is reported.
func (p *clusterProcess) restartAfterEnd(c *child) {
	<-c.done
	if c.stopping.Load() {
		return
	}
	p.cluster.report("%s ended by itself (%v) and is started again; the end of its log %s: %.500s", p.name, c.exit, c.logPath, strings.TrimSpace(c.lastLines(1)))
	time.Sleep(time.Second)
	if err := p.start(); err != nil {
		p.cluster.report("%s cannot be started again: %v", p.name, err)
	}
}

// end kills the process for good.
func (p *clusterProcess) end(ctx context.Context) error {
	p.mu.Lock()
	p.isEnded = true
	c := p.child
	p.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.stop(ctx)
}

// kill kills the process. The caller starts it again.
func (p *clusterProcess) kill(ctx context.Context) error {
	p.mu.Lock()
	c := p.child
	p.mu.Unlock()
	return c.stop(ctx)
}

// awaitListening returns when the process listens for calls.
func (p *clusterProcess) awaitListening(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	for {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", p.ports.address())
		if err == nil {
			return conn.Close()
		}
		if backoff.Pause(ctx, 50*time.Millisecond) != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			return fmt.Errorf("%s does not listen: %w; the end of its log:\n%s", p.name, err, p.child.lastLines(12))
		}
	}
}

// KillAtRandom kills a process of the cluster every so often, and starts it again a few seconds later, until ctx ends. The seed decides which process
// is killed, and when, so that a run can be repeated as far as a busy machine allows. One process is dead at a time: its twin goes on.
func (c *Cluster) KillAtRandom(ctx context.Context, seed uint64, every time.Duration) {
	random := rand.New(rand.NewPCG(seed, seed)) // a run must be repeatable
	began := time.Now()
	for {
		wait := every/2 + time.Duration(random.Int64N(int64(every)))
		victim := c.processes[random.IntN(len(c.processes))]
		down := time.Second + time.Duration(random.Int64N(int64(4*time.Second)))
		if backoff.Pause(ctx, wait) != nil {
			return
		}
		killed := time.Since(began).Round(time.Second)
		if err := victim.kill(ctx); err != nil {
			c.report("%s cannot be killed: %v", victim.name, err)
			continue
		}
		if backoff.Pause(ctx, down) != nil {
			return
		}
		started := time.Now()
		err := victim.start()
		if err == nil {
			err = victim.awaitListening(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.report("%s was killed after %s, and does not come back: %v", victim.name, killed, err)
			continue
		}
		c.report("%s was killed after %s, was away for %s, and listened again %s later", victim.name, killed,
			down.Round(100*time.Millisecond), time.Since(started).Round(100*time.Millisecond))
	}
}
