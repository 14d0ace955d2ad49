package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// The settings of River's own benchmark, `river bench`, which its authors chose as the fastest.
const (
	riverWorkers      = 2000
	riverCooldown     = 2 * time.Millisecond
	riverPollInterval = 20 * time.Millisecond
)

// riverJob is a job with the object of all measurements.
type riverJob struct{ protocol.Item }

func (riverJob) Kind() string { return "bench" }

// riverWorker only counts calls of Work.
type riverWorker struct {
	river.WorkerDefaults[riverJob]
	worked *atomic.Int64
}

func (w *riverWorker) Work(context.Context, *river.Job[riverJob]) error {
	w.worked.Add(1)
	return nil
}

// riverPeer inserts jobs in pages and works them.
type riverPeer struct {
	pool   *pgxpool.Pool
	logger *slog.Logger
}

func startRiver(ctx context.Context, _ options, pool *pgxpool.Pool, logger *slog.Logger) (peer, error) {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: logger})
	if err != nil {
		return nil, err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return &riverPeer{pool: pool, logger: logger}, err
}

func (*riverPeer) describeSettings() string {
	return fmt.Sprintf("InsertManyFast, which copies, of pages of %d, %d pages at once, worked meanwhile with the settings of `river bench`: "+
		"MaxWorkers %d, FetchCooldown %s, FetchPollInterval %s", protocol.PageSize, protocol.PagesAtOnce, riverWorkers, riverCooldown, riverPollInterval)
}

// runTurn ends when the last job is completed in the table, like Delta's turn, which ends when the last row is synced.
func (p *riverPeer) runTurn(ctx context.Context, order protocol.Order) (took time.Duration, err error) {
	var worked atomic.Int64
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{worked: &worked})
	client, err := river.NewClient(riverpgxv5.New(p.pool), &river.Config{
		FetchCooldown: riverCooldown, FetchPollInterval: riverPollInterval, Logger: p.logger, Workers: workers,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
	})
	if err != nil {
		return 0, err
	}
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	insertErr := insertJobs(ctx, order, client.InsertManyFast)
	if insertErr == nil {
		insertErr = p.awaitCompleted(ctx, order.Count, &worked)
	}
	took = time.Since(began)
	if err := errors.Join(insertErr, client.Stop(ctx)); err != nil {
		return 0, err
	}
	_, err = p.pool.Exec(ctx, "TRUNCATE river_job")
	return took, err
}

// insertJobs inserts the jobs of a turn in pages.
func insertJobs(ctx context.Context, order protocol.Order, insert func(context.Context, []river.InsertManyParams) (int, error)) error {
	var group errgroup.Group
	group.SetLimit(protocol.PagesAtOnce)
	for from := 0; from < order.Count; from += protocol.PageSize {
		group.Go(func() error {
			var page []river.InsertManyParams
			for i := from; i < min(from+protocol.PageSize, order.Count); i++ {
				page = append(page, river.InsertManyParams{Args: riverJob{protocol.NewItem(fmt.Sprintf("batch-%d-%d", order.Turn, i), 1)}})
			}
			_, err := insert(ctx, page)
			return err
		})
	}
	return group.Wait()
}

// awaitCompleted returns when all jobs are completed. It queries only after Work was called for all of them, because River writes completions in sets, some
// time after Work.
func (p *riverPeer) awaitCompleted(ctx context.Context, count int, worked *atomic.Int64) error {
	for open := true; open; time.Sleep(2 * time.Millisecond) {
		if int(worked.Load()) < count && ctx.Err() == nil {
			continue
		}
		err := p.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM river_job
			WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled') AND queue = 'default')`).Scan(&open)
		if err != nil {
			return fmt.Errorf("%d of %d jobs were worked: %w", worked.Load(), count, err)
		}
	}
	var completed int
	if err := p.pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&completed); err != nil {
		return err
	}
	if completed != count {
		return fmt.Errorf("%d of %d jobs are completed", completed, count)
	}
	return nil
}
