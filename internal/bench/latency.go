package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
)

// settleTime is a pause between two samples, so that the end of a workflow task that starts a timer does not slow down the next sample.
const settleTime = 25 * time.Millisecond

// warmUps is the number of samples at the start of a round that do not count.
const warmUps = 5

// latencyFigures compares the time from Inform to a synced row with the time from the start of a bare workflow to the end of its activity, on an idle
// stack and one at a time.
func latencyFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	l, err := startLifecycle(ctx, b)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.stop()) }()

	count := b.scaleCount(100)
	median := figure{
		Name: "Inform to synced, median", Unit: "ms", AtMost: 0.9,
		What: "Client.Inform until the row is seen synced, against starting a bare workflow until its activity ran; idle, one at a time",
	}
	p95 := median
	p95.Name, p95.AtMost = "Inform to synced, p95", 3
	for n := range b.rounds {
		var deltas, bares []float64
		var workflows []string
		for i := range count + warmUps {
			id := fmt.Sprintf("latency-%d-%d", n, i)
			workflows = append(workflows, deltaID(id), bareID(id))
			bare, err := l.timeBare(ctx, id)
			if err != nil {
				return nil, fmt.Errorf("bare: %w", err)
			}
			synced, err := l.timeDelta(ctx, id)
			if err != nil {
				return nil, fmt.Errorf("delta: %w", err)
			}
			if i < warmUps {
				continue
			}
			deltas, bares = append(deltas, synced), append(bares, bare)
		}
		if err := l.terminateWorkflows(ctx, workflows); err != nil {
			return nil, err
		}
		median.Rounds = append(median.Rounds, round{Delta: computeQuantile(deltas, 0.5), Bare: computeQuantile(bares, 0.5)})
		p95.Rounds = append(p95.Rounds, round{Delta: computeQuantile(deltas, 0.95), Bare: computeQuantile(bares, 0.95)})
	}
	_, err = b.pool.Exec(ctx, "TRUNCATE delta_resource")
	return []figure{median.computeMedians(), p95.computeMedians()}, err
}

func (l *lifecycle) timeBare(ctx context.Context, id string) (float64, error) {
	time.Sleep(settleTime)
	began := time.Now()
	if err := l.startBare(ctx, id, false); err != nil {
		return 0, err
	}
	err := awaitCount(ctx, l.ran, 1)
	return toMilliseconds(time.Since(began)), err
}

// timeDelta measures until the row is seen synced. It does not query before Work has run, so it adds at most one round trip, and no load before that.
func (l *lifecycle) timeDelta(ctx context.Context, id string) (float64, error) {
	time.Sleep(settleTime)
	object := syncedItem{newItem(syncedKind, id, 1)}
	began := time.Now()
	if _, err := l.client.Inform(ctx, object, nil); err != nil {
		return 0, err
	}
	if err := awaitCount(ctx, l.synced, 1); err != nil {
		return 0, err
	}
	return untilSynced(ctx, l.b.pool, syncedKind, id, began)
}

// untilSynced waits until a row is seen synced, and returns the time since began in milliseconds.
func untilSynced(ctx context.Context, pool *pgxpool.Pool, kind, id string, began time.Time) (float64, error) {
	for {
		var synced bool
		err := pool.QueryRow(ctx, "SELECT state = 'synced' FROM delta_resource WHERE kind = $1 AND object_id = $2", kind, id).Scan(&synced)
		switch {
		case err != nil:
			return 0, err
		case synced:
			return toMilliseconds(time.Since(began)), nil
		case time.Since(began) > deadline:
			return 0, fmt.Errorf("%s is not synced after %s", id, deadline)
		}
	}
}

var _ delta.Object = syncedItem{}

func toMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
