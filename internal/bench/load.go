package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"github.com/chariot-giving/delta/delta"
)

const (
	// probe begins the ids of objects whose way is timed; the others are load.
	probe = "probe-"
	// beforeProbes is how long the load runs before the first of them.
	beforeProbes = 2 * time.Second
)

// prober is a client with a kind in each mode.
type prober struct {
	pool   *pgxpool.Pool
	client *delta.Client
	// probed hears of probes, others of the load.
	probed, others chan struct{}
}

// probed controllers hear of each object by its id.
type probed[T delta.Object] struct {
	delta.WorkerDefaults[T]
	delta.InformerDefaults[T]
	p *prober
}

func (c *probed[T]) Work(_ context.Context, r *delta.Resource[T]) error {
	if strings.HasPrefix(r.ObjectID, probe) {
		c.p.probed <- struct{}{}
	} else {
		c.p.others <- struct{}{}
	}
	return nil
}

func (c *probed[T]) Inform(context.Context, *delta.InformOptions) (<-chan T, error) {
	return nil, errors.New("the benchmark informs by itself")
}

// mode is one of the two ways to sync.
type mode struct {
	name, kind string
	object     func(id string) delta.Object
	// calibrate is how many objects say how fast it is, page how many are informed at once as load.
	calibrate, page int
}

func modes(b *bench) []mode {
	return []mode{
		{"one workflow each", syncedKind, func(id string) delta.Object { return syncedItem{newItem(syncedKind, id, 1)} }, b.scaled(600), 1},
		{"batches", batchedKind, func(id string) delta.Object { return batchedItem{newItem(batchedKind, id, 1)} }, b.scaled(40_000), 100},
	}
}

// loadFigures time the way from Inform to a synced row in both modes: on an idle stack, and while it is loaded with half of
// what it can do.
func loadFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	p := &prober{probed: make(chan struct{}, 1<<10), others: make(chan struct{}, 1<<20)}
	if p.pool, err = b.schema(ctx, "bench_load"); err != nil {
		return nil, err
	}
	defer p.pool.Close()
	controllers := delta.NewControllers()
	delta.AddController(controllers, &probed[syncedItem]{p: p})
	delta.AddController(controllers, &probed[batchedItem]{p: p})
	p.client, err = delta.NewClient(p.pool, &delta.Config{
		Controllers: controllers, Temporal: b.temporal, Logger: b.logger, WorkflowIDPrefix: "bench_load",
	})
	if err != nil {
		return nil, err
	}
	if err := p.client.Start(ctx); err != nil {
		return nil, err
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = errors.Join(err, p.client.Stop(stopCtx))
	}()

	var figures []figure
	for _, g := range modes(b) {
		idle, err := p.idle(ctx, b, g)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.name, err)
		}
		loaded, err := p.loaded(ctx, b, g)
		if err != nil {
			return nil, fmt.Errorf("%s under load: %w", g.name, err)
		}
		figures = append(append(figures, idle...), loaded...)
	}
	return figures, nil
}

// idle probes one at a time, and nothing else happens.
func (p *prober) idle(ctx context.Context, b *bench, g mode) ([]figure, error) {
	var rounds [][]float64
	for n := range b.rounds {
		samples, err := p.probes(ctx, g, fmt.Sprintf("idle-%d", n), b.scaled(100))
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, samples)
	}
	return percentiles("idle, "+g.name, "Client.Inform until the row is seen synced, one at a time on an idle stack", rounds), nil
}

// loaded probes while objects are informed at half the rate at which they were synced before.
func (p *prober) loaded(ctx context.Context, b *bench, g mode) ([]figure, error) {
	perSecond, err := p.calibrate(ctx, g)
	if err != nil {
		return nil, err
	}
	load := perSecond / 2
	var rounds [][]float64
	for n := range b.rounds {
		loadCtx, stop := context.WithCancel(ctx)
		var sent int
		var failure error
		var running sync.WaitGroup
		running.Go(func() { sent, failure = p.load(loadCtx, g, fmt.Sprintf("load-%d", n), load) })
		time.Sleep(beforeProbes)
		samples, err := p.probes(ctx, g, fmt.Sprintf("loaded-%d", n), b.scaled(100))
		stop()
		running.Wait()
		if err = errors.Join(err, failure); err != nil {
			return nil, err
		}
		if err := await(ctx, p.others, sent); err != nil {
			return nil, err
		}
		rounds = append(rounds, samples)
	}
	what := fmt.Sprintf("the same while %.0f others a second are informed, half of what was synced a second before (%.0f)", load, perSecond)
	return percentiles("half load, "+g.name, what, rounds), nil
}

// calibrate says how many are synced in a second.
func (p *prober) calibrate(ctx context.Context, g mode) (perSecond float64, err error) {
	objects := make([]delta.Object, g.calibrate)
	for i := range objects {
		objects[i] = g.object(fmt.Sprintf("calibrate-%d", i))
	}
	began := time.Now()
	for from := 0; from < len(objects); from += batchSize {
		if _, err := p.client.InformMany(ctx, objects[from:min(from+batchSize, len(objects))], nil); err != nil {
			return 0, err
		}
	}
	err = await(ctx, p.others, len(objects))
	return float64(len(objects)) / time.Since(began).Seconds(), err
}

// load informs at a rate until ctx ends, and returns how many.
func (p *prober) load(ctx context.Context, g mode, set string, perSecond float64) (sent int, err error) {
	pages := rate.NewLimiter(rate.Limit(perSecond/float64(g.page)), 1)
	for pages.Wait(ctx) == nil {
		page := make([]delta.Object, g.page)
		for i := range page {
			page[i] = g.object(fmt.Sprintf("%s-%d", set, sent+i))
		}
		// Not with ctx: what was begun is counted.
		if _, err := p.client.InformMany(context.WithoutCancel(ctx), page, nil); err != nil {
			return sent, err
		}
		sent += len(page)
	}
	return sent, nil
}

// probes times so many objects, one after the other.
func (p *prober) probes(ctx context.Context, g mode, set string, count int) (samples []float64, err error) {
	for i := range count + warmUps {
		time.Sleep(settleTime)
		id := fmt.Sprintf("%s%s-%d", probe, set, i)
		began := time.Now()
		if _, err := p.client.Inform(ctx, g.object(id), nil); err != nil {
			return nil, err
		}
		if err := await(ctx, p.probed, 1); err != nil {
			return nil, err
		}
		took, err := untilSynced(ctx, p.pool, g.kind, id, began)
		if err != nil {
			return nil, err
		}
		if i >= warmUps {
			samples = append(samples, took)
		}
	}
	return samples, nil
}

// percentiles are figures of each round's samples.
func percentiles(name, what string, rounds [][]float64) (figures []figure) {
	for _, p := range []struct {
		name  string
		share float64
	}{{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}} {
		var values []float64
		for _, samples := range rounds {
			values = append(values, quantile(samples, p.share))
		}
		figures = append(figures, figure{Name: name + ", " + p.name, What: what, Unit: "ms"}.alone(values...))
	}
	return figures
}
