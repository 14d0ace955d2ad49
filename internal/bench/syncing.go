package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/bench/protocol"
)

const (
	batchedKind = "bench_batch"
	defaultKind = "bench_default"
	batchSize   = protocol.PageSize
	// pagesAtOnce is the number of pages in flight at once, on both sides.
	pagesAtOnce = protocol.PagesAtOnce
	// expiry is when resources are synced again. Rows that are due much earlier are not synced yet.
	expiry = 24 * time.Hour
)

// batchedItem is an object of a kind that is synced in batches.
type batchedItem struct{ item }

func (batchedItem) Kind() string { return batchedKind }

func (batchedItem) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: parallelism, InformInterval: -1, BatchSize: batchSize}
}

// defaultItem is an object of a kind with default settings, but without an informer.
type defaultItem struct{ item }

func (defaultItem) Kind() string { return defaultKind }

func (defaultItem) Settings() delta.ObjectSettings { return delta.ObjectSettings{InformInterval: -1} }

// countingController is a controller that only counts calls of Work.
type countingController[T delta.Object] struct {
	delta.WorkerDefaults[T]
	delta.InformerDefaults[T]
	worked *atomic.Int64
}

func (i countingController[T]) Work(context.Context, *delta.Resource[T]) error {
	i.worked.Add(1)
	return nil
}

func (countingController[T]) Inform(context.Context, *delta.InformOptions) (<-chan T, error) {
	none := make(chan T)
	close(none)
	return none, nil
}

// syncBench is a client that syncs one kind, on a separate schema.
type syncBench struct {
	pool   *pgxpool.Pool
	client *delta.Client
	kind   string
	worked atomic.Int64
}

// startBatching starts a client that syncs in batches.
func (b *bench) startBatching(ctx context.Context, schema string) (*syncBench, error) {
	return b.startBatchingWith(ctx, schema, nil)
}

// startBatchingWith starts a client that syncs in batches, with settings of its kind.
func (b *bench) startBatchingWith(ctx context.Context, schema string, kinds map[string]delta.ObjectSettings) (*syncBench, error) {
	return startSyncing[batchedItem](ctx, b, schema, batchedKind, map[string]delta.NamespaceConfig{
		delta.NamespaceDefault: {MaxWorkers: parallelism, ResourceExpiry: expiry},
	}, kinds)
}

func startSyncing[T delta.Object](
	ctx context.Context, b *bench, schema, kind string, namespaces map[string]delta.NamespaceConfig, kinds map[string]delta.ObjectSettings,
) (_ *syncBench, err error) {
	s := &syncBench{kind: kind}
	if s.pool, err = b.createSchema(ctx, schema); err != nil {
		return nil, err
	}
	controllers := delta.NewControllers()
	delta.AddController(controllers, countingController[T]{worked: &s.worked})
	s.client, err = delta.NewClient(s.pool, &delta.Config{
		Controllers: controllers, Temporal: b.temporal, Logger: b.logger, WorkflowIDPrefix: schema, Namespaces: namespaces, Kinds: kinds,
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

func (s *syncBench) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	defer s.pool.Close()
	return s.client.Stop(ctx)
}

// syncPages informs count new objects in pages, and waits until all of them are synced.
func (s *syncBench) syncPages(ctx context.Context, set string, count int) (time.Duration, error) {
	began := time.Now()
	if err := s.informPages(ctx, set, count, nil); err != nil {
		return 0, err
	}
	if err := s.awaitSynced(ctx, count); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// informPages informs count new objects, and resets the count of calls of Work.
func (s *syncBench) informPages(ctx context.Context, set string, count int, opts *delta.InformOpts) error {
	s.worked.Store(0)
	var group errgroup.Group
	group.SetLimit(pagesAtOnce)
	for from := 0; from < count; from += batchSize {
		group.Go(func() error {
			var page []delta.Object
			for _, it := range batchItems(set, from, min(from+batchSize, count)) {
				page = append(page, batchedItem{it})
			}
			_, err := s.client.InformMany(ctx, page, opts)
			return err
		})
	}
	return group.Wait()
}

// syncEach informs count new objects, one per call, and waits until all of them are synced.
func (s *syncBench) syncEach(ctx context.Context, set string, count int) (time.Duration, error) {
	s.worked.Store(0)
	began := time.Now()
	_, _, err := atOnce(ctx, count, func(ctx context.Context, i int) error {
		_, err := s.client.Inform(ctx, defaultItem{newItem(s.kind, fmt.Sprintf("single-%s-%d", set, i), 1)}, nil)
		return err
	})
	if err == nil {
		err = s.awaitSynced(ctx, count)
	}
	return time.Since(began), err
}

// awaitSynced returns when all rows are synced. It queries only after Work was called for all of them, and only rows that are due soon, because synced rows
// are due in a day.
func (s *syncBench) awaitSynced(ctx context.Context, count int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*deadline)
	defer cancel()
	for open := true; open; time.Sleep(2 * time.Millisecond) {
		if int(s.worked.Load()) < count && ctx.Err() == nil {
			continue
		}
		err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM delta_resource WHERE kind = $1 AND priority = ANY ('{1,2,3,4,5}')
			AND dispatch_at < now() + interval '1 hour')`, s.kind).Scan(&open)
		if err != nil {
			return fmt.Errorf("%d of %d were worked: %w", s.worked.Load(), count, err)
		}
	}
	return nil
}

// truncateResources removes the rows of a turn.
func (s *syncBench) truncateResources(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, "TRUNCATE delta_resource")
	return err
}

// batchItems returns a part of a set of new objects.
func batchItems(set string, from, to int) (items []item) {
	for i := from; i < to; i++ {
		items = append(items, newItem(batchedKind, fmt.Sprintf("batch-%s-%d", set, i), 1))
	}
	return items
}

var (
	_ delta.Object = batchedItem{}
	_ delta.Object = defaultItem{}
)
