package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
)

// changeFigures compares syncing in batches with a log of changes and without one.
func changeFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	with, err := b.startBatchingWith(ctx, "bench_logged", map[string]delta.ObjectSettings{batchedKind: {Log: true}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, with.stop()) }()
	without, err := b.startBatching(ctx, "bench_unlogged")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, without.stop()) }()

	count := b.scaleCount(50_000)
	counted := countedBy(count)
	f := figure{
		Name: "in batches with a log of changes, beside without", Unit: "/s", AtLeast: 0.75,
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, batches of %d, until the last row is synced (Work does nothing), with ObjectSettings.Log, "+
			"against the same without", count, batchSize),
	}
	f, err = compareRates(ctx, b.rounds, 2, f, with.newLoggedSide(counted), without.newLoggedSide(counted))
	return []figure{f}, err
}

// newLoggedSide returns a side that syncs new objects, checks the number of entries in the log, and truncates both tables.
func (s *syncBench) newLoggedSide(counted func(turn int) (string, int)) side {
	return func(ctx context.Context, turn int) (int, time.Duration, error) {
		set, n := counted(turn)
		took, err := s.syncPages(ctx, set, n)
		if err != nil {
			return 0, 0, err
		}
		var entries int
		if err := s.pool.QueryRow(ctx, "SELECT count(*) FROM delta_change").Scan(&entries); err != nil {
			return 0, 0, err
		}
		if entries != 0 && entries != n {
			return 0, 0, fmt.Errorf("the log has %d entries of %d syncs", entries, n)
		}
		if _, err := s.pool.Exec(ctx, "TRUNCATE delta_change"); err != nil {
			return 0, 0, err
		}
		return n, took, s.truncateResources(ctx)
	}
}
