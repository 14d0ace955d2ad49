package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// informers is the number of goroutines that inform at once.
const informers = protocol.Callers

// informedKind has no controller, because only informing is measured.
const informedKind = "bench_inform"

// item is the object of all measurements. Its kind varies.
type item struct {
	protocol.Item
	kind string
}

func (i item) ID() string   { return i.Key }
func (i item) Kind() string { return i.kind }

func newItem(kind, id string, version int) item { return item{protocol.NewItem(id, version), kind} }

// bareTable creates a table like Delta's, with its indexes and constraints.
const bareTable = `CREATE TABLE IF NOT EXISTS bench_resource (LIKE delta_resource INCLUDING ALL)`

// bareUpsert writes the same row as Inform, and returns nothing.
const bareUpsert = `
INSERT INTO bench_resource (kind, object_id, object, hash, namespace, metadata, tags, max_attempts, due_at, dispatch_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now(), now())
ON CONFLICT (kind, object_id) DO UPDATE SET
	object = excluded.object, hash = excluded.hash, namespace = excluded.namespace, metadata = excluded.metadata,
	tags = excluded.tags, max_attempts = excluded.max_attempts, state = 'scheduled',
	generation = bench_resource.generation + 1, attempt = 0, due_at = excluded.due_at, dispatch_at = excluded.dispatch_at`

// filler makes a table large, because a plan that is good for an empty table may be bad for a large one.
const (
	fillerRows = 200_000
	filler     = `
INSERT INTO %s (kind, object_id, object, hash, namespace, max_attempts, state)
SELECT 'bench_filler', i::text, '{"name": "somebody", "plan": "something"}', '\\x00', 'default', 10, 'synced'
FROM generate_series(1, $1) i`
)

// informFigures compares single informs with upserts of new, changed and unchanged objects.
func informFigures(ctx context.Context, b *bench) ([]figure, error) {
	if _, err := b.pool.Exec(ctx, bareTable); err != nil {
		return nil, err
	}
	client, err := delta.NewClient(b.pool, &delta.Config{Logger: b.logger})
	if err != nil {
		return nil, err
	}
	defer client.Stop(ctx) //nolint:errcheck // the client is not started, so Stop only waits for notifications

	inform := func(ctx context.Context, i item) error {
		_, err := client.Inform(ctx, i, nil)
		return err
	}
	upsert := func(ctx context.Context, i item) error {
		encoded, err := json.Marshal(i)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(encoded)
		_, err = b.pool.Exec(ctx, bareUpsert, i.Kind(), i.ID(), encoded, sum[:], "default", []byte("{}"), []string{}, 10)
		return err
	}

	const turns = 12
	count := b.scaleCount(500)
	measure := func(set string, version int, write func(context.Context, item) error) side {
		return func(ctx context.Context, turn int) (int, time.Duration, error) {
			return atOnce(ctx, count, func(ctx context.Context, i int) error {
				return write(ctx, newItem(informedKind, fmt.Sprintf("%s-%d-%d", set, turn, i), version))
			})
		}
	}
	var figures []figure
	for _, of := range []struct {
		name, what, set string
		// version changes an object; the same version leaves it unchanged.
		version int
		atLeast float64
	}{
		{"Inform, new object", "a row is inserted on both sides", "few", 1, 0.75},
		{"Inform, changed object", "a row is updated on both sides", "few", 2, 0},
		{"Inform, unchanged object", "Delta only reads, the upsert writes once more", "few", 2, 0},
		{fmt.Sprintf("Inform, new object among %d", fillerRows), "a row is inserted on both sides", "many", 1, 0},
	} {
		if of.set == "many" {
			for _, table := range []string{"delta_resource", "bench_resource"} {
				if _, err := b.pool.Exec(ctx, fmt.Sprintf(filler, table), fillerRows); err != nil {
					return nil, err
				}
				if _, err := b.pool.Exec(ctx, "VACUUM ANALYZE "+table); err != nil {
					return nil, err
				}
			}
		}
		f := figure{
			Name: of.name, Unit: "/s", AtLeast: of.atLeast,
			What: fmt.Sprintf("Client.Inform against INSERT ... ON CONFLICT DO UPDATE, autocommit, %d goroutines: %s", informers, of.what),
		}
		f, err := compareRates(ctx, b.rounds, turns, f, measure(of.set, of.version, inform), measure(of.set, of.version, upsert))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", of.name, err)
		}
		figures = append(figures, f)
	}
	_, err = b.pool.Exec(ctx, "TRUNCATE delta_resource, bench_resource")
	return figures, err
}

// atOnce calls do count times in all, from all goroutines.
func atOnce(ctx context.Context, count int, do func(ctx context.Context, i int) error) (int, time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range informers {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return count, time.Since(began), context.Cause(ctx)
}
