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
	// probe is the prefix of the ids of timed objects; all others are load.
	probe = "probe-"
	// beforeProbes is how long the load runs before the first probe.
	beforeProbes = 2 * time.Second
)

// prober is a client with a kind for each mode.
type prober struct {
	pool   *pgxpool.Pool
	client *delta.Client
	// probed gets a value for each synced probe, others for each other object.
	probed, others chan struct{}
}

// probed is a controller that sends each call of Work to one of two channels, by the object's id.
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
	// calibrate is the number of objects that measure the rate, page the number informed at once as load.
	calibrate, page int
}

func syncModes(b *bench) []mode {
	return []mode{
		{"one workflow each", syncedKind, func(id string) delta.Object { return syncedItem{newItem(syncedKind, id, 1)} }, b.scaleCount(600), 1},
		{"batches", batchedKind, func(id string) delta.Object { return batchedItem{newItem(batchedKind, id, 1)} }, b.scaleCount(40_000), 100},
	}
}

// loadFigures measures the time from Inform to a synced row in both modes: on an idle stack, and with half of the maximum load.
func loadFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	p := &prober{probed: make(chan struct{}, 1<<10), others: make(chan struct{}, 1<<20)}
	if p.pool, err = b.createSchema(ctx, "bench_load"); err != nil {
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
	for _, g := range syncModes(b) {
		idle, err := p.measureIdle(ctx, b, g)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.name, err)
		}
		loaded, err := p.measureLoaded(ctx, b, g)
		if err != nil {
			return nil, fmt.Errorf("%s under load: %w", g.name, err)
		}
		figures = append(append(figures, idle...), loaded...)
	}
	return figures, nil
}

// measureIdle probes one at a time on an idle stack.
func (p *prober) measureIdle(ctx context.Context, b *bench, g mode) ([]figure, error) {
	var rounds [][]float64
	for n := range b.rounds {
		samples, err := p.runProbes(ctx, g, fmt.Sprintf("idle-%d", n), b.scaleCount(100))
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, samples)
	}
	return toPercentiles("idle, "+g.name, "Client.Inform until the row is seen synced, one at a time on an idle stack", rounds), nil
}

// measureLoaded probes while objects are informed at half of the calibrated rate.
func (p *prober) measureLoaded(ctx context.Context, b *bench, g mode) ([]figure, error) {
	perSecond, err := p.calibrateRate(ctx, g)
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
		running.Go(func() { sent, failure = p.runLoad(loadCtx, g, fmt.Sprintf("load-%d", n), load) })
		time.Sleep(beforeProbes)
		samples, err := p.runProbes(ctx, g, fmt.Sprintf("loaded-%d", n), b.scaleCount(100))
		stop()
		running.Wait()
		if err = errors.Join(err, failure); err != nil {
			return nil, err
		}
		if err := awaitCount(ctx, p.others, sent); err != nil {
			return nil, err
		}
		rounds = append(rounds, samples)
	}
	what := fmt.Sprintf("the same while %.0f others a second are informed, half of what was synced a second before (%.0f)", load, perSecond)
	return toPercentiles("half load, "+g.name, what, rounds), nil
}

// calibrateRate measures how many objects are synced in a second.
func (p *prober) calibrateRate(ctx context.Context, g mode) (perSecond float64, err error) {
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
	err = awaitCount(ctx, p.others, len(objects))
	return float64(len(objects)) / time.Since(began).Seconds(), err
}

// runLoad informs objects at a rate until ctx ends, and returns their number.
func (p *prober) runLoad(ctx context.Context, g mode, set string, perSecond float64) (sent int, err error) {
	pages := rate.NewLimiter(rate.Limit(perSecond/float64(g.page)), 1)
	for pages.Wait(ctx) == nil {
		page := make([]delta.Object, g.page)
		for i := range page {
			page[i] = g.object(fmt.Sprintf("%s-%d", set, sent+i))
		}
		// A call in flight must finish when ctx ends, because its objects are counted.
		if _, err := p.client.InformMany(context.WithoutCancel(ctx), page, nil); err != nil {
			return sent, err
		}
		sent += len(page)
	}
	return sent, nil
}

// runProbes times count objects, one after the other.
func (p *prober) runProbes(ctx context.Context, g mode, set string, count int) (samples []float64, err error) {
	for i := range count + warmUps {
		time.Sleep(settleTime)
		id := fmt.Sprintf("%s%s-%d", probe, set, i)
		began := time.Now()
		if _, err := p.client.Inform(ctx, g.object(id), nil); err != nil {
			return nil, err
		}
		if err := awaitCount(ctx, p.probed, 1); err != nil {
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

// toPercentiles returns figures with the percentiles of each round's samples.
func toPercentiles(name, what string, rounds [][]float64) (figures []figure) {
	for _, p := range []struct {
		name  string
		share float64
	}{{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}} {
		var values []float64
		for _, samples := range rounds {
			values = append(values, computeQuantile(samples, p.share))
		}
		figures = append(figures, figure{Name: name + ", " + p.name, What: what, Unit: "ms"}.withValues(values...))
	}
	return figures
}
