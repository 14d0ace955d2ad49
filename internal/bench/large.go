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
	// largeSlices is the number of parts in which the table is filled. The rates of the first and the last are compared.
	largeSlices = 20
	// fillShare is the share of the time limit that filling may take.
	fillShare = 0.7
	// dueShare is the share of resources that expire and are synced again.
	dueShare = 0.01
	// expiringNamespace is the namespace of the expiring resources.
	expiringNamespace = "expiring"
	// cachedWorkflows limits the SDK's cache of sleeping workflows. The default is 10,000: then the client's memory would grow until ten million resources
	// are synced, and growth with the number of rows could not be seen.
	cachedWorkflows = 1000
	// diskPerResource is the disk space in bytes that the run may need for each resource: the row and its indexes with dead entries, and its share of
	// Temporal's store. diskBeside is for the WAL, for both servers, and for other programs that write to the disk meanwhile.
	diskPerResource, diskBeside = 2200, 4 << 30
	// leastLarge is the smallest measurable number: each part of the first sync has a page, and some hundred resources expire.
	leastLarge = largeSlices * batchSize
)

// largeBench measures a table of a size for which the other figures only extrapolate.
type largeBench struct {
	b      *bench
	s      *syncBench
	began  time.Time
	report largeReport
	// from is the position of the WAL before the first sync.
	from string
}

// runLarge fills a table through the engine, measures it, and lets a part of it expire.
func runLarge(ctx context.Context, o options) (err error) {
	if err := checkDisk(o.large); err != nil {
		return err
	}
	worker.SetStickyWorkflowCacheSize(cachedWorkflows)
	b, err := startBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if !o.durable {
		if err := b.doNotWaitForTheDisk(ctx); err != nil {
			return err
		}
	}
	l := &largeBench{b: b, began: time.Now(), report: largeReport{Facts: b.collectFacts(ctx), Rows: o.large}}
	measureErr := l.measure(ctx)
	l.report.Took = time.Since(l.began).Round(time.Second).Seconds()
	// After a failure or a timeout, the measurements up to then are still shown.
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

// checkDisk returns an error if the run could fill the disk.
func checkDisk(rows int) error {
	need := int64(rows)*diskPerResource + diskBeside
	free, err := freeDisk(os.TempDir())
	if err != nil {
		return fmt.Errorf("reading the free space of %s: %w", os.TempDir(), err)
	}
	if free < need {
		return fmt.Errorf("-large %d takes up to %.1f GB of %s, and only %.1f GB are free: measure fewer, or set TMPDIR", rows, toGigabytes(need),
			os.TempDir(), toGigabytes(free))
	}
	fmt.Fprintf(os.Stderr, "  %d resources take up to %.1f GB of %s, where %.1f GB are free\n", rows, toGigabytes(need), os.TempDir(), toGigabytes(free))
	return nil
}

func toGigabytes(bytes int64) float64 { return float64(bytes) / 1e9 }

// doNotWaitForTheDisk gives the server the same settings as for the other figures. The stack is not ephemeral, because then Temporal would have no file
// to measure.
func (b *bench) doNotWaitForTheDisk(ctx context.Context) error {
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if _, err := b.pool.Exec(ctx, "ALTER SYSTEM SET "+setting+" = off"); err != nil {
			return err
		}
	}
	_, err := b.pool.Exec(ctx, "SELECT pg_reload_conf()")
	return err
}

func (l *largeBench) measure(ctx context.Context) (err error) {
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
	if err := l.sampleMemory(ctx, 0); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"first sync", func(ctx context.Context) error { return l.fillTable(ctx, l.b.large-expiring) }},
		{"sizes", l.measureSizes},
		{"costs after the first sync", func(ctx context.Context) error { return l.measureCosts(ctx, "right after the first sync") }},
		{"expiry", func(ctx context.Context) error { return l.measureExpiry(ctx, expiring) }},
		{"dead rows", func(ctx context.Context) error { return l.measureDeadRows(ctx, "after the expiry") }},
		{"vacuum", l.runVacuum},
		{"costs after a vacuum", func(ctx context.Context) error { return l.measureCosts(ctx, "after a vacuum") }},
		{"memory", func(ctx context.Context) error { return l.sampleMemory(ctx, l.b.large) }},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "  %s measured after %s\n", step.name, time.Since(l.began).Round(time.Second))
	}
	stopped = true
	return l.s.stop()
}

// writeLargeDocs writes a report into the docs.
func writeLargeDocs(folder string, r largeReport) error {
	if err := writeJSON(filepath.Join(folder, largeReportFile), r); err != nil {
		return err
	}
	p, err := largePage(folder, &r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, p.file), []byte(p.content), 0o644); err != nil {
		return err
	}
	var figures report
	err = readJSON(filepath.Join(folder, reportFile), &figures)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return writeDocs(folder, figures) // the model is also fitted to this report
}
