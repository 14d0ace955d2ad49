package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// batchFigures compares the rate of syncing in batches with bare loops of statements: of the very same statements, and of the shortest ones that could
// do it.
func batchFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	if _, err := b.pool.Exec(ctx, bareTable); err != nil {
		return nil, err
	}
	s, err := b.startBatching(ctx, "bench_batches")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	same, err := b.createSchema(ctx, "bench_same")
	if err != nil {
		return nil, err
	}
	defer same.Close()

	count := b.scaleCount(100_000)
	counted := countedBy(count)
	synced := func(ctx context.Context, turn int) (int, time.Duration, error) {
		set, n := counted(turn)
		took, err := s.syncPages(ctx, set, n)
		if err == nil {
			err = s.truncateResources(ctx)
		}
		return n, took, err
	}
	f := figure{
		Name: "resources synced in batches", Unit: "/s", AtLeast: 0.65, DeltaAtLeast: 12_000,
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, batches of %d, until the last row is synced (Work does nothing), against "+
			"a loop of the same upsert, claim and outcome statements, with a lease by id, and nothing else; %d pages at once", count, batchSize, pagesAtOnce),
	}
	f, err = compareRates(ctx, b.rounds, 1, f, synced, newBareLoop(same, "delta_resource", counted, barePage))
	if err != nil {
		return nil, err
	}
	least := figure{
		Name: "the same, shortest statements", Unit: "/s",
		What: "the same against a loop of the shortest statements that could do it, without fences, priorities, namespaces and what else they serve",
	}
	least, err = compareRates(ctx, b.rounds, 1, least, synced, newBareLoop(b.pool, "bench_resource", counted, leastPage))
	return []figure{f, least}, err
}

// newBareLoop returns a side that runs page for all pages of a turn.
func newBareLoop(
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
