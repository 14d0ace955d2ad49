package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta"
)

const (
	batchedKind = "bench_batch"
	batchSize   = 1000
	// bareLoops is how many pages the bare side has under way at once.
	bareLoops = 4
)

// batchedItem is the object of a kind in the second gear.
type batchedItem struct{ item }

func (batchedItem) Kind() string { return batchedKind }

func (batchedItem) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: parallelism, InformInterval: -1, BatchSize: batchSize}
}

// idle is a controller whose Work does nothing.
type idle struct {
	delta.WorkerDefaults[batchedItem]
	delta.InformerDefaults[batchedItem]
	worked *atomic.Int64
}

func (i idle) Work(context.Context, *delta.Resource[batchedItem]) error {
	i.worked.Add(1)
	return nil
}

func (idle) Inform(context.Context, *delta.InformOptions) (<-chan batchedItem, error) {
	none := make(chan batchedItem)
	close(none)
	return none, nil
}

const (
	bareUpsertPage = bareUpsertMany + ` RETURNING id`
	bareClaim      = `
UPDATE bench_resource SET state = 'pending', attempt = attempt + 1, attempted_at = now(), due_at = NULL,
	dispatch_at = now() + interval '15 minutes'
WHERE id = ANY ($1) AND state = 'scheduled' RETURNING id, object, generation, attempt`
	bareComplete = `
UPDATE bench_resource SET state = 'synced', synced_generation = generation, sync_count = sync_count + 1, synced_at = now(),
	due_at = now() + interval '1 day', dispatch_at = now() + interval '1 day 1 minute'
WHERE id = ANY ($1) AND state = 'pending'`
)

// batchFigures compares how many resources are synced in a second in batches with a bare loop of the statements that this
// takes: an upsert, a claim and a completion of each page.
func batchFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	if _, err := b.pool.Exec(ctx, bareTable); err != nil {
		return nil, err
	}
	var worked atomic.Int64
	controllers := delta.NewControllers()
	delta.AddController(controllers, idle{worked: &worked})
	client, err := delta.NewClient(b.pool, &delta.Config{Controllers: controllers, Temporal: b.temporal, Logger: b.logger})
	if err != nil {
		return nil, err
	}
	if err := client.Start(ctx); err != nil {
		return nil, err
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = errors.Join(err, client.Stop(stopCtx))
	}()

	count := b.scaled(100_000)
	items := func(turn int) []item {
		set := make([]item, count)
		if turn == warmUp {
			set = set[:max(count/5, 1)]
		}
		for i := range set {
			set[i] = newItem(batchedKind, fmt.Sprintf("batch-%d-%d", turn, i), 1)
		}
		return set
	}
	clean := func(ctx context.Context) error {
		_, err := b.pool.Exec(ctx, "TRUNCATE delta_resource, bench_resource")
		return err
	}
	synced := func(ctx context.Context, turn int) (int, time.Duration, error) {
		var objects []delta.Object
		for _, i := range items(turn) {
			objects = append(objects, batchedItem{i})
		}
		worked.Store(0)
		began := time.Now()
		var group errgroup.Group
		group.SetLimit(bareLoops)
		for from := 0; from < len(objects); from += batchSize {
			page := objects[from:min(from+batchSize, len(objects))]
			group.Go(func() error {
				_, err := client.InformMany(ctx, page, nil)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return 0, 0, err
		}
		if err := awaitAllSynced(ctx, b, &worked, len(objects)); err != nil {
			return 0, 0, err
		}
		took := time.Since(began)
		return len(objects), took, clean(ctx)
	}
	bare := func(ctx context.Context, turn int) (int, time.Duration, error) {
		set := items(turn)
		began := time.Now()
		var group errgroup.Group
		group.SetLimit(bareLoops)
		for from := 0; from < len(set); from += batchSize {
			page := set[from:min(from+batchSize, len(set))]
			group.Go(func() error { return b.barePage(ctx, page) })
		}
		if err := group.Wait(); err != nil {
			return 0, 0, err
		}
		return len(set), time.Since(began), clean(ctx)
	}
	f := figure{
		Name: "resources synced in batches", Unit: "/s", AtLeast: 0.65,
		What: fmt.Sprintf("Client.InformMany of %d objects in pages, batches of %d, until the last row is synced (Work does nothing), against "+
			"an upsert, a claim and a completion of pages of as many, %d pages at once, and nothing else", count, batchSize, bareLoops),
	}
	f, err = compare(ctx, b.rounds, 1, f, synced, bare)
	return []figure{f}, err
}

// barePage is what syncing a page takes of Postgres.
func (b *bench) barePage(ctx context.Context, page []item) error {
	kinds, ids := make([]string, len(page)), make([]string, len(page))
	objects, hashes := make([][]byte, len(page)), make([][]byte, len(page))
	for i, it := range page {
		encoded, err := json.Marshal(it)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(encoded)
		kinds[i], ids[i], objects[i], hashes[i] = it.Kind(), it.ID(), encoded, sum[:]
	}
	rows, err := b.pool.Query(ctx, bareUpsertPage, kinds, ids, objects, hashes)
	if err != nil {
		return err
	}
	var rowIDs []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		rowIDs = append(rowIDs, id)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if rows, err = b.pool.Query(ctx, bareClaim, rowIDs); err != nil {
		return err
	}
	for rows.Next() {
		var id, generation int64
		var attempt int32
		var object []byte
		if err := rows.Scan(&id, &object, &generation, &attempt); err != nil {
			return err
		}
		var decoded item
		if err := json.Unmarshal(object, &decoded); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	_, err = b.pool.Exec(ctx, bareComplete, rowIDs)
	return err
}

// awaitAllSynced returns when no row is left that is not synced. It looks when all have been worked: each look reads the
// table.
func awaitAllSynced(ctx context.Context, b *bench, worked *atomic.Int64, count int) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for open := true; open; time.Sleep(5 * time.Millisecond) {
		if int(worked.Load()) < count && ctx.Err() == nil {
			continue
		}
		err := b.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM delta_resource WHERE state <> 'synced')").Scan(&open)
		if err != nil {
			return err
		}
	}
	return nil
}
