package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
)

// changeFigures compares batches of a kind that logs its changes with the same ones without a log.
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

	count := b.scaled(50_000)
	counted := countedBy(count)
	f := figure{
		Name: "in batches with a log of changes, beside without", Unit: "/s", AtLeast: 0.75,
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, batches of %d, until the last row is synced (Work does nothing), with ObjectSettings.Log, "+
			"against the same without", count, batchSize),
	}
	f, err = compare(ctx, b.rounds, 2, f, with.logged(counted), without.logged(counted))
	return []figure{f}, err
}

// logged syncs new objects, sees that the log has as many entries as it must, and empties both.
func (s *syncing) logged(counted func(turn int) (string, int)) side {
	return func(ctx context.Context, turn int) (int, time.Duration, error) {
		set, n := counted(turn)
		took, err := s.sync(ctx, set, n)
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
		return n, took, s.empty(ctx)
	}
}
