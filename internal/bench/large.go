package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
)

const (
	largeSchema = "bench_large"
	// largeSlices is in how many parts the table is filled: the rate of the first and of the last are compared.
	largeSlices = 20
	// fillShare is the part of the whole time that filling may take.
	fillShare = 0.7
	// dueShare is the part of the resources that expire and are synced again.
	dueShare = 0.01
	// expiringNamespace is where those are.
	expiringNamespace = "expiring"
	// cachedWorkflows bounds the SDK's cache of workflows that rest. By default it holds 10,000, so the client's memory would grow until
	// ten million resources are synced, and what grows with the rows could not be told from what does not.
	cachedWorkflows = 1000
	// diskPerResource is what the run may take of the disk for each resource: the row and its indexes with what updates leave in them, and its
	// share of Temporal's store. diskBeside is for the WAL, for both servers, and for what else writes to the disk meanwhile.
	diskPerResource, diskBeside = 2200, 4 << 30
	// leastLarge is the least that can be measured so: each part of the first sync has a page, and some hundred expire.
	leastLarge = largeSlices * batchSize
)

// large measures a table of a size that the other figures only derive.
type large struct {
	b      *bench
	s      *syncing
	began  time.Time
	report largeReport
	// from is the position of the log when nothing had been synced.
	from string
}

// runLarge fills a table through the engine, measures it, and has a part of it expire.
func runLarge(ctx context.Context, o options) (err error) {
	if err := checkDisk(o.large); err != nil {
		return err
	}
	worker.SetStickyWorkflowCacheSize(cachedWorkflows)
	b, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if !o.durable {
		if err := b.doNotWaitForTheDisk(ctx); err != nil {
			return err
		}
	}
	l := &large{b: b, began: time.Now(), report: largeReport{Facts: b.facts(ctx), Rows: o.large}}
	measureErr := l.measure(ctx)
	l.report.Took = time.Since(l.began).Round(time.Second).Seconds()
	// What was measured before something failed, or the time was over, is shown in any case.
	l.report.print(os.Stdout)
	if measureErr != nil {
		return fmt.Errorf("after %s: %w", time.Since(l.began).Round(time.Second), measureErr)
	}
	if o.out != "" {
		if err := writeJSON(o.out, l.report); err != nil {
			return err
		}
	}
	if o.docs == "" {
		return nil
	}
	return writeLargeDocs(o.docs, l.report)
}

// checkDisk refuses a run that could fill the disk.
func checkDisk(rows int) error {
	need := int64(rows)*diskPerResource + diskBeside
	free, err := freeDisk(os.TempDir())
	if err != nil {
		return fmt.Errorf("looking how much of %s is free: %w", os.TempDir(), err)
	}
	if free < need {
		return fmt.Errorf("-large %d takes up to %.1f GB of %s, and only %.1f GB are free: measure fewer, or set TMPDIR", rows, gigabytes(need),
			os.TempDir(), gigabytes(free))
	}
	fmt.Fprintf(os.Stderr, "  %d resources take up to %.1f GB of %s, where %.1f GB are free\n", rows, gigabytes(need), os.TempDir(), gigabytes(free))
	return nil
}

func gigabytes(bytes int64) float64 { return float64(bytes) / 1e9 }

// doNotWaitForTheDisk sets the server as the other figures have it. Its stack is not an ephemeral one, whose Temporal has no file that
// could be measured.
func (b *bench) doNotWaitForTheDisk(ctx context.Context) error {
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if _, err := b.pool.Exec(ctx, "ALTER SYSTEM SET "+setting+" = off"); err != nil {
			return err
		}
	}
	_, err := b.pool.Exec(ctx, "SELECT pg_reload_conf()")
	return err
}

func (l *large) measure(ctx context.Context) (err error) {
	expiring := int(float64(l.b.large) * dueShare)
	l.s, err = startSyncing[batchedItem](ctx, l.b, largeSchema, batchedKind, map[string]delta.NamespaceConfig{
		delta.NamespaceDefault: {MaxWorkers: parallelism, ResourceExpiry: expiry},
		expiringNamespace:      {MaxWorkers: parallelism, ResourceExpiry: expiresAfter(expiring)},
	}, nil)
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, l.s.stop())
		}
	}()
	if err := l.s.pool.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&l.from); err != nil {
		return err
	}
	if err := l.sample(ctx, 0); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"first sync", func(ctx context.Context) error { return l.fill(ctx, l.b.large-expiring) }},
		{"sizes", l.sizes},
		{"costs after the first sync", func(ctx context.Context) error { return l.costs(ctx, "right after the first sync") }},
		{"expiry", func(ctx context.Context) error { return l.expire(ctx, expiring) }},
		{"dead rows", func(ctx context.Context) error { return l.vacuumed(ctx, "after the expiry") }},
		{"vacuum", l.vacuum},
		{"costs after a vacuum", func(ctx context.Context) error { return l.costs(ctx, "after a vacuum") }},
		{"memory", func(ctx context.Context) error { return l.sample(ctx, l.b.large) }},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "  %s measured after %s\n", step.name, time.Since(l.began).Round(time.Second))
	}
	stopped = true
	return l.s.stop()
}

// writeLargeDocs makes the docs say what a report says.
func writeLargeDocs(folder string, r largeReport) error {
	if err := writeJSON(filepath.Join(folder, largeReportFile), r); err != nil {
		return err
	}
	p, err := largePage(folder, &r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, p.file), []byte(p.content), 0o644)
}
