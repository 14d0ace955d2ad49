package main

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
)

// bareUpsertMany is bareUpsert for a set of rows.
const bareUpsertMany = `
INSERT INTO bench_resource (kind, object_id, object, hash, namespace, metadata, max_attempts, due_at, dispatch_at)
SELECT kind, object_id, object, hash, 'default', '{}', 10, now(), now()
FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::bytea[]) AS input (kind, object_id, object, hash)
ON CONFLICT (kind, object_id) DO UPDATE SET
	object = excluded.object, hash = excluded.hash, namespace = excluded.namespace, metadata = excluded.metadata,
	max_attempts = excluded.max_attempts, state = 'scheduled',
	generation = bench_resource.generation + 1, attempt = 0, due_at = excluded.due_at, dispatch_at = excluded.dispatch_at`

// manyFigures compares InformMany of new objects with one upsert of the whole set.
func manyFigures(ctx context.Context, b *bench) ([]figure, error) {
	if _, err := b.pool.Exec(ctx, bareTable); err != nil {
		return nil, err
	}
	client, err := delta.NewClient(b.pool, &delta.Config{Logger: b.logger})
	if err != nil {
		return nil, err
	}
	defer client.Stop(ctx) //nolint:errcheck // the client is not started, so Stop only waits for notifications

	count := b.scaleCount(100_000)
	items := func(n int) []item {
		set := make([]item, count)
		for i := range set {
			set[i] = newItem(informedKind, fmt.Sprintf("many-%d-%d", n, i), 1)
		}
		return set
	}
	inform := func(ctx context.Context, n int) (int, time.Duration, error) {
		objects := make([]delta.Object, 0, count)
		for _, i := range items(n) {
			objects = append(objects, i)
		}
		began := time.Now()
		_, err := client.InformMany(ctx, objects, nil)
		return count, time.Since(began), err
	}
	upsert := func(ctx context.Context, n int) (int, time.Duration, error) {
		set := items(n)
		began := time.Now()
		c, err := encodeColumns(set)
		if err != nil {
			return 0, 0, err
		}
		_, err = b.pool.Exec(ctx, bareUpsertMany, c.kinds, c.ids, c.objects, c.hashes)
		return count, time.Since(began), err
	}
	f := figure{
		Name: fmt.Sprintf("InformMany, %d new objects", count), Unit: "/s", AtLeast: 0.75,
		What: "one Client.InformMany against one INSERT ... SELECT FROM unnest ... ON CONFLICT DO UPDATE",
	}
	f, err = compareRates(ctx, b.rounds, 1, f, inform, upsert)
	if err != nil {
		return nil, err
	}
	_, err = b.pool.Exec(ctx, "TRUNCATE delta_resource, bench_resource")
	return []figure{f}, err
}
