package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"go.temporal.io/api/workflowservice/v1"
)

const (
	largeTable, smallTable = 1_000_000, 10_000
	// restFor is how long the idle stack is watched.
	restFor = 20 * time.Second
)

// restFigures syncs a million resources in batches and measures their cost at rest. Then it compares the rate of syncing more resources beside a million
// with the rate beside ten thousand.
func restFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	large, err := b.startBatching(ctx, "bench_large")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, large.stop()) }()

	rows := b.scaleCount(largeTable)
	fill, err := b.fillTable(ctx, large, rows)
	if err != nil {
		return nil, err
	}
	figures := []figure{fill}
	rest, err := b.watchRest(ctx, large, rows)
	if err != nil {
		return nil, err
	}
	figures = append(figures, rest...)
	// Vacuum the leftovers of the first sync, because autovacuum would have done so in an older installation.
	if _, err := large.pool.Exec(ctx, "VACUUM ANALYZE delta_resource"); err != nil {
		return nil, err
	}

	small, err := b.startBatching(ctx, "bench_small")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, small.stop()) }()
	count := b.scaleCount(50_000)
	beside := func(s *syncBench, prepare func(context.Context) error) side {
		return func(ctx context.Context, turn int) (int, time.Duration, error) {
			if err := prepare(ctx); err != nil {
				return 0, 0, err
			}
			took, err := s.syncPages(ctx, fmt.Sprint("beside-", turn), count)
			return count, took, err
		}
	}
	f := figure{
		Name: besideName, Unit: "/s", AtLeast: 0.9,
		What: fmt.Sprintf("%d new objects in batches, in a table with %d rows that are synced, against the same in one with %d",
			count, rows, b.scaleCount(smallTable)),
	}
	f, err = compareRates(ctx, b.rounds, 1, f,
		beside(large, func(context.Context) error { return nil }),
		beside(small, func(ctx context.Context) error {
			if _, err := small.pool.Exec(ctx, "TRUNCATE delta_resource"); err != nil {
				return err
			}
			_, err := small.syncPages(ctx, "small", b.scaleCount(smallTable))
			return err
		}))
	return append(figures, f), err
}

// fillTable syncs a number of resources, and measures the rate.
func (b *bench) fillTable(ctx context.Context, s *syncBench, rows int) (figure, error) {
	f := figure{
		Name: fillName, Unit: "/s",
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, in batches of %d, into an empty table, from the first inform to the last "+
			"synced; once", rows, batchSize),
	}
	took, err := s.syncPages(ctx, "fill", rows)
	if err != nil {
		return f, err
	}
	return f.withValues(float64(rows) / took.Seconds()), nil
}

// watchRest measures the activity of the stack while nothing is due.
func (b *bench) watchRest(ctx context.Context, s *syncBench, rows int) ([]figure, error) {
	open, err := b.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowType = 'delta.Batch' AND ExecutionStatus = 'Running' AND WorkflowId STARTS_WITH %q", "bench_large/"),
	})
	if err != nil {
		return nil, fmt.Errorf("counting workflows: %w", err)
	}
	time.Sleep(15 * time.Second) // until the leases of the last batches are confirmed
	debug.FreeOSMemory()
	statements, err := s.countStatements(ctx)
	if err != nil {
		return nil, err
	}
	used, began := ownProcessorTime(), time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(restFor):
	}
	took := time.Since(began)
	used = ownProcessorTime() - used
	after, err := s.countStatements(ctx)
	if err != nil {
		return nil, err
	}
	debug.FreeOSMemory()
	var size float64
	err = s.pool.QueryRow(ctx, "SELECT pg_total_relation_size('delta_resource') / $1::float8", rows).Scan(&size)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("%d synced resources with an expiry, in batches of %d, watched for %s", rows, batchSize, restFor)
	return []figure{
		figure{Name: workflowsOpen, What: what, DeltaAtMost: float64(rows) / batchSize * 1.01}.withValues(float64(open.GetCount())),
		figure{Name: "at rest: statements", Unit: "/s", What: what, DeltaAtMost: 5}.withValues(float64(after-statements-1) / took.Seconds()),
		figure{Name: memoryAtRest, Unit: " MB", What: what + "; the Go heap and stacks of this process", DeltaAtMost: 100}.withValues(heldMemoryMB()),
		figure{Name: diskName, Unit: " B", What: what + ": the table, its indexes and what updates have left in them"}.withValues(size),
		figure{Name: "at rest: client CPU", Unit: "%", What: what + "; of one core", DeltaAtMost: 5}.withValues(100 * used.Seconds() / took.Seconds()),
	}, nil
}

// countStatements returns the number of transactions of the database, each of which is one statement here.
func (s *syncBench) countStatements(ctx context.Context) (n int64, err error) {
	// A backend reports its counters at most once a second, and before it goes idle.
	for range 2 {
		if err := s.pool.QueryRow(ctx, "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()").Scan(&n); err != nil {
			return n, err
		}
		time.Sleep(1100 * time.Millisecond)
	}
	return n, nil
}

// heldMemoryMB returns the memory of this process in megabytes, without the memory that it has returned to the system.
func heldMemoryMB() float64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return float64(samples[0].Value.Uint64()-samples[1].Value.Uint64()) / 1e6
}

// ownProcessorTime returns the processor time of this process alone.
func ownProcessorTime() time.Duration {
	content, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	p, err := parseStat(content)
	if err != nil {
		return 0
	}
	return p.cpu
}
