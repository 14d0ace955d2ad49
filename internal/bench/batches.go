package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta"
)

const (
	batchedKind = "bench_batch"
	batchSize   = 1000
	// pagesAtOnce is how many pages are under way at once, on both sides.
	pagesAtOnce = 4
	// expiry is when what is synced here is to be synced again. Rows that are due long before that are not synced yet.
	expiry = 24 * time.Hour
)

// batchedItem is the object of a kind in the second gear.
type batchedItem struct{ item }

func (batchedItem) Kind() string { return batchedKind }

func (batchedItem) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: parallelism, InformInterval: -1, BatchSize: batchSize}
}

// idle is a controller whose Work does nothing.
type idle struct {
	delta.WorkerDefaults[batchedItem]
	delta.InformerDefaults[batchedItem]
	worked *atomic.Int64
}

func (i idle) Work(context.Context, *delta.Resource[batchedItem]) error {
	i.worked.Add(1)
	return nil
}

func (idle) Inform(context.Context, *delta.InformOptions) (<-chan batchedItem, error) {
	none := make(chan batchedItem)
	close(none)
	return none, nil
}

// batching is a client that syncs in batches, on a schema of its own.
type batching struct {
	pool   *pgxpool.Pool
	client *delta.Client
	worked atomic.Int64
}

func (b *bench) startBatching(ctx context.Context, schema string) (_ *batching, err error) {
	s := &batching{}
	if s.pool, err = b.schema(ctx, schema); err != nil {
		return nil, err
	}
	controllers := delta.NewControllers()
	delta.AddController(controllers, idle{worked: &s.worked})
	s.client, err = delta.NewClient(s.pool, &delta.Config{
		Controllers: controllers, Temporal: b.temporal, Logger: b.logger, WorkflowIDPrefix: schema,
		Namespaces: map[string]delta.NamespaceConfig{delta.NamespaceDefault: {MaxWorkers: parallelism, ResourceExpiry: expiry}},
	})
	if err == nil {
		err = s.client.Start(ctx)
	}
	if err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

func (s *batching) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	defer s.pool.Close()
	return s.client.Stop(ctx)
}

// sync informs so many new objects in pages, and waits until all of them are synced.
func (s *batching) sync(ctx context.Context, set string, count int) (time.Duration, error) {
	s.worked.Store(0)
	began := time.Now()
	var group errgroup.Group
	group.SetLimit(pagesAtOnce)
	for from := 0; from < count; from += batchSize {
		group.Go(func() error {
			var page []delta.Object
			for _, it := range batchItems(set, from, min(from+batchSize, count)) {
				page = append(page, batchedItem{it})
			}
			_, err := s.client.InformMany(ctx, page, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if err := s.awaitSynced(ctx, count); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// awaitSynced returns when no row is left that is not synced. It looks when all have been worked, and only at rows that are
// due soon: what is synced is due in a day.
func (s *batching) awaitSynced(ctx context.Context, count int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*deadline)
	defer cancel()
	for open := true; open; time.Sleep(2 * time.Millisecond) {
		if int(s.worked.Load()) < count && ctx.Err() == nil {
			continue
		}
		err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM delta_resource WHERE kind = $1 AND priority = ANY ('{1,2,3,4,5}')
			AND dispatch_at < now() + interval '1 hour')`, batchedKind).Scan(&open)
		if err != nil {
			return fmt.Errorf("%d of %d were worked: %w", s.worked.Load(), count, err)
		}
	}
	return nil
}

// batchItems are some of a set of new objects.
func batchItems(set string, from, to int) (items []item) {
	for i := from; i < to; i++ {
		items = append(items, newItem(batchedKind, fmt.Sprintf("batch-%s-%d", set, i), 1))
	}
	return items
}

// batchFigures compares how many resources are synced in a second in batches with bare loops of what this takes of Postgres:
// of the very same statements, and of the shortest ones that could do it.
func batchFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	if _, err := b.pool.Exec(ctx, bareTable); err != nil {
		return nil, err
	}
	s, err := b.startBatching(ctx, "bench_batches")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	same, err := b.schema(ctx, "bench_same")
	if err != nil {
		return nil, err
	}
	defer same.Close()

	count := b.scaled(100_000)
	counted := func(turn int) (set string, n int) {
		if turn == warmUp {
			return "warm", max(count/5, 1)
		}
		return fmt.Sprint(turn), count
	}
	synced := func(ctx context.Context, turn int) (int, time.Duration, error) {
		set, n := counted(turn)
		took, err := s.sync(ctx, set, n)
		if err == nil {
			_, err = s.pool.Exec(ctx, "TRUNCATE delta_resource")
		}
		return n, took, err
	}
	f := figure{
		Name: "resources synced in batches", Unit: "/s", AtLeast: 0.65, DeltaAtLeast: 12_000,
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, batches of %d, until the last row is synced (Work does nothing), against "+
			"a loop of the same upsert, claim and completion statements and nothing else; %d pages at once", count, batchSize, pagesAtOnce),
	}
	f, err = compare(ctx, b.rounds, 1, f, synced, loop(same, "delta_resource", counted, barePage))
	if err != nil {
		return nil, err
	}
	least := figure{
		Name: "the same, shortest statements", Unit: "/s",
		What: "the same against a loop of the shortest statements that could do it, without fences, priorities, namespaces and what else they serve",
	}
	least, err = compare(ctx, b.rounds, 1, least, synced, loop(b.pool, "bench_resource", counted, leastPage))
	return []figure{f, least}, err
}

// loop does pages of what a bare loop does.
func loop(
	pool *pgxpool.Pool, table string, counted func(turn int) (string, int), page func(context.Context, *pgxpool.Pool, []item) error,
) side {
	return func(ctx context.Context, turn int) (int, time.Duration, error) {
		set, count := counted(turn)
		began := time.Now()
		var group errgroup.Group
		group.SetLimit(pagesAtOnce)
		for from := 0; from < count; from += batchSize {
			group.Go(func() error { return page(ctx, pool, batchItems(set, from, min(from+batchSize, count))) })
		}
		if err := group.Wait(); err != nil {
			return 0, 0, err
		}
		took := time.Since(began)
		_, err := pool.Exec(ctx, "TRUNCATE "+table)
		return count, took, err
	}
}
