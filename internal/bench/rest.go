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
	// restFor is how long the stack is watched while nothing is due.
	restFor = 20 * time.Second
)

// restFigures sync a million resources in batches and watch what they cost at rest. Then they compare how many more are
// synced in a second beside them with how many are beside ten thousand.
func restFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	large, err := b.startBatching(ctx, "bench_large")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, large.stop()) }()

	rows := b.scaled(largeTable)
	fill, err := b.fill(ctx, large, rows)
	if err != nil {
		return nil, err
	}
	figures := []figure{fill}
	rest, err := b.watchRest(ctx, large, rows)
	if err != nil {
		return nil, err
	}
	figures = append(figures, rest...)
	// What the first sync has left behind is cleaned up by then, as it is in an installation of some age.
	if _, err := large.pool.Exec(ctx, "VACUUM ANALYZE delta_resource"); err != nil {
		return nil, err
	}

	small, err := b.startBatching(ctx, "bench_small")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, small.stop()) }()
	count := b.scaled(50_000)
	beside := func(s *syncing, prepare func(context.Context) error) side {
		return func(ctx context.Context, turn int) (int, time.Duration, error) {
			if err := prepare(ctx); err != nil {
				return 0, 0, err
			}
			took, err := s.sync(ctx, fmt.Sprint("beside-", turn), count)
			return count, took, err
		}
	}
	f := figure{
		Name: besideName, Unit: "/s", AtLeast: 0.9,
		What: fmt.Sprintf("%d new objects in batches, in a table with %d rows that are synced, against the same in one with %d",
			count, rows, b.scaled(smallTable)),
	}
	f, err = compare(ctx, b.rounds, 1, f,
		beside(large, func(context.Context) error { return nil }),
		beside(small, func(ctx context.Context) error {
			if _, err := small.pool.Exec(ctx, "TRUNCATE delta_resource"); err != nil {
				return err
			}
			_, err := small.sync(ctx, "small", b.scaled(smallTable))
			return err
		}))
	return append(figures, f), err
}

// fill syncs so many resources, and tells how fast.
func (b *bench) fill(ctx context.Context, s *syncing, rows int) (figure, error) {
	f := figure{
		Name: fillName, Unit: "/s",
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, in batches of %d, into an empty table, from the first inform to the last "+
			"synced; once", rows, batchSize),
	}
	took, err := s.sync(ctx, "fill", rows)
	if err != nil {
		return f, err
	}
	return f.alone(float64(rows) / took.Seconds()), nil
}

// watchRest counts what is done while nothing is due.
func (b *bench) watchRest(ctx context.Context, s *syncing, rows int) ([]figure, error) {
	open, err := b.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowType = 'delta.Batch' AND ExecutionStatus = 'Running' AND WorkflowId STARTS_WITH %q", "bench_large/"),
	})
	if err != nil {
		return nil, fmt.Errorf("counting workflows: %w", err)
	}
	time.Sleep(15 * time.Second) // the leases of the last batches are settled then
	debug.FreeOSMemory()
	statements, err := s.statements(ctx)
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
	after, err := s.statements(ctx)
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
		figure{Name: workflowsOpen, What: what, DeltaAtMost: float64(rows) / batchSize * 1.01}.alone(float64(open.GetCount())),
		figure{Name: "at rest: statements", Unit: "/s", What: what, DeltaAtMost: 5}.alone(float64(after-statements-1) / took.Seconds()),
		figure{Name: memoryAtRest, Unit: " MB", What: what + "; the Go heap and stacks of this process", DeltaAtMost: 100}.alone(heldMB()),
		figure{Name: diskName, Unit: " B", What: what + ": the table, its indexes and what updates have left in them"}.alone(size),
		figure{Name: "at rest: client CPU", Unit: "%", What: what + "; of one core", DeltaAtMost: 5}.alone(100 * used.Seconds() / took.Seconds()),
	}, nil
}

// statements is how many transactions the database has seen, each of one statement here.
func (s *syncing) statements(ctx context.Context) (n int64, err error) {
	// A backend reports at most once a second, and before it waits.
	for range 2 {
		if err := s.pool.QueryRow(ctx, "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()").Scan(&n); err != nil {
			return n, err
		}
		time.Sleep(1100 * time.Millisecond)
	}
	return n, nil
}

// heldMB is what this process holds of the system's memory, in megabytes: what it took, less what it has given back.
func heldMB() float64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return float64(samples[0].Value.Uint64()-samples[1].Value.Uint64()) / 1e6
}

// ownProcessorTime is what this process alone has used.
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
