package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/bench/protocol"
	"github.com/chariot-giving/delta/messagedb"
)

// sourceKind is the kind that sources inform.
const sourceKind = "bench_source"

// sourcedItem is an object that a source informs.
type sourcedItem struct{ protocol.Item }

func (s sourcedItem) ID() string { return s.Key }
func (sourcedItem) Kind() string { return sourceKind }

// snoozingWorker snoozes its kind in the first call, because informing is measured, not Work.
type snoozingWorker struct {
	delta.WorkerDefaults[sourcedItem]
}

func (snoozingWorker) Work(context.Context, *delta.Resource[sourcedItem]) error {
	return delta.SnoozeKind(24 * time.Hour)
}

// sourceBench measures informing from a table and from a category.
type sourceBench struct {
	*bench
	pool *pgxpool.Pool
	// config connects to the schema, and conn is a connection to it.
	config *pgx.ConnConfig
	conn   *pgx.Conn
}

const sourceSchema = "bench_source"

// sourceFigures compares informing from sources with only reading the same data.
func sourceFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	s := &sourceBench{bench: b}
	if s.pool, err = b.createSchema(ctx, sourceSchema); err != nil {
		return nil, err
	}
	defer s.pool.Close()
	s.config = s.pool.Config().ConnConfig.Copy()
	s.config.RuntimeParams["synchronous_commit"] = "on" // changes must be available for decoding at once
	if s.conn, err = pgx.ConnectConfig(ctx, s.config); err != nil {
		return nil, err
	}
	defer s.conn.Close(ctx) //nolint:errcheck // all statements are done by then
	if err := s.execAll(ctx, bareTable, "CREATE TABLE bench_position AS SELECT 0 AS position"); err != nil {
		return nil, err
	}
	table, err := s.tableFigures(ctx)
	if err != nil {
		return nil, fmt.Errorf("table: %w", err)
	}
	category, err := s.categoryFigures(ctx)
	if err != nil {
		return nil, fmt.Errorf("category: %w", err)
	}
	return append(table, category...), nil
}

func (s *sourceBench) execAll(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

func (s *sourceBench) queryNumber(ctx context.Context, sql string, args ...any) (n int64, err error) {
	err = s.conn.QueryRow(ctx, sql, args...).Scan(&n)
	return n, err
}

// runSource runs a client with a source until enough returns true.
func (s *sourceBench) runSource(ctx context.Context, add func(*delta.Controllers) error, enough func() (bool, error)) (err error) {
	controllers := delta.NewControllers()
	if err := add(controllers); err != nil {
		return err
	}
	client, err := delta.NewClient(s.pool, &delta.Config{Controllers: controllers, Temporal: s.temporal, Logger: s.logger, WorkflowIDPrefix: sourceSchema})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, client.Stop(stopping))
	}()
	for end := time.Now().Add(deadline * 5); ; time.Sleep(10 * time.Millisecond) {
		if is, err := enough(); is || err != nil {
			return err
		}
		if time.Now().After(end) {
			return errors.New("the source has stopped informing")
		}
	}
}

// measureInformed runs a source until it has informed count objects, returns the rate from its first page to its last, and removes the objects. The time for
// starting a client and taking over the source does not count.
func (s *sourceBench) measureInformed(ctx context.Context, count int, add func(*delta.Controllers) error) (rate float64, err error) {
	err = s.runSource(ctx, add, func() (bool, error) {
		n, err := s.queryNumber(ctx, "SELECT count(*) FROM delta_resource")
		return n >= int64(count), err
	})
	if err != nil {
		return 0, err
	}
	err = s.conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE generation_at > first) / extract(epoch FROM max(generation_at) - min(first))
		FROM delta_resource, (SELECT min(generation_at) AS first FROM delta_resource) f`).Scan(&rate)
	if err != nil {
		return 0, err
	}
	return rate, s.execAll(ctx, "TRUNCATE delta_resource")
}

// measureTurns writes the content of each round, lets all sides read it in turns, and returns the rates of each round.
func (s *sourceBench) measureTurns(write func(round int) error, sides ...func() (rate float64, err error)) (rounds [][]float64, err error) {
	for n := range s.rounds {
		if err := write(n); err != nil {
			return nil, err
		}
		rates := make([]float64, len(sides))
		for i := range sides {
			turn := (i + n) % len(sides)
			if rates[turn], err = sides[turn](); err != nil {
				return nil, err
			}
		}
		rounds = append(rounds, rates)
	}
	return rounds, nil
}

// withRates returns the figure with the rates of the first side and of another one.
func (f figure) withRates(rounds [][]float64, other int) figure {
	for _, rates := range rounds {
		f.Rounds = append(f.Rounds, round{Delta: rates[0], Bare: rates[other]})
	}
	return f.computeMedians()
}

// upsertPage writes objects with the shortest possible upsert, and a position with them.
func (s *sourceBench) upsertPage(ctx context.Context, page []item) error {
	c, err := encodeColumns(page)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE bench_position SET position = position + 1"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, bareUpsertMany, c.kinds, c.ids, c.objects, c.hashes)
		return err
	})
}

// tableFigures reads new rows: half of them in transactions of one, half in transactions of a thousand.
func (s *sourceBench) tableFigures(ctx context.Context) (_ []figure, err error) {
	const slot, aloneSlot, keptSlot = "bench_source", "bench_source_alone", "bench_source_kept"
	half := s.scaleCount(50_000)
	count := 2 * half
	err = s.execAll(ctx, `CREATE TABLE item (key text PRIMARY KEY, name text NOT NULL, plan text NOT NULL, seats bigint NOT NULL, active boolean NOT NULL, comment text NOT NULL)`)
	if err != nil {
		return nil, err
	}
	add := func(controllers *delta.Controllers) error {
		return bridge.TableSafely(controllers, snoozingWorker{}, bridge.TableConfig[sourcedItem]{Schema: sourceSchema, Table: "item", Slot: slot, Publication: slot})
	}
	err = s.runSource(ctx, add, func() (bool, error) { // until the empty table has been read
		n, err := s.queryNumber(ctx, `SELECT count(*) FROM delta_inform WHERE trigger = 'source' AND ended_at IS NOT NULL AND error = ''`)
		return n > 0, err
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dropSlotOf(context.WithoutCancel(ctx), s.conn, slot)) }()
	const row = `INSERT INTO item SELECT 'row-' || x, 'Ada Lovelace ' || x, 'enterprise', 1, true, 'the quick brown fox jumps over the lazy dog' FROM `
	write := func(round int) error {
		for _, name := range []string{aloneSlot, keptSlot} {
			if _, err := cdc.CreateSlot(ctx, s.conn, name, cdc.SlotOptions{}); err != nil {
				return err
			}
		}
		from := round * count
		return s.execAll(ctx,
			fmt.Sprintf("DO $$ BEGIN FOR i IN %d..%d LOOP %s (SELECT i AS x) one; COMMIT; END LOOP; END $$", from+1, from+half, row),
			fmt.Sprintf("DO $$ BEGIN FOR i IN %d..%d BY 1000 LOOP %s generate_series(i, least(i + 999, %[2]d)) x; COMMIT; END LOOP; END $$", from+half+1, from+count, row))
	}
	rounds, err := s.measureTurns(write,
		func() (float64, error) { return s.measureInformed(ctx, count, add) },
		func() (float64, error) {
			rate, err := s.measureStreamed(ctx, aloneSlot, slot, count, false)
			return rate, errors.Join(err, dropSlotOf(ctx, s.conn, aloneSlot))
		},
		func() (float64, error) {
			rate, err := s.measureStreamed(ctx, keptSlot, slot, count, true)
			return rate, errors.Join(err, s.execAll(ctx, "TRUNCATE bench_resource"), dropSlotOf(ctx, s.conn, keptSlot))
		})
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("bridge.Table: %d new rows until they are informed and the position is written with them, half of them in transactions of one and half of a "+
		"thousand, against Stream.Next and all Changes of package cdc, acknowledged", count)
	return []figure{
		figure{Name: "table, rows informed", Unit: "/s", AtLeast: 0.5, What: what + ", which does nothing with them"}.withRates(rounds, 1),
		figure{Name: "the same, beside cdc and an upsert", Unit: "/s", AtLeast: 0.5, What: what + " after a bare upsert of a thousand at once with a position"}.withRates(rounds, 2),
	}, nil
}

// measureStreamed reads changes, stores them if keep is set, and returns the rate from the first one on.
func (s *sourceBench) measureStreamed(ctx context.Context, slot, publication string, count int, keep bool) (rate float64, err error) {
	stream, err := cdc.Open(ctx, cdc.Config{Conn: s.config, Slot: slot, Publications: []string{publication}, Logger: s.logger})
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	var began time.Time
	var page []item
	for n := 0; n < count; {
		t, err := stream.Next(ctx)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			began = time.Now()
		}
		for c, err := range t.Changes() {
			if err != nil {
				return 0, err
			}
			if n++; keep {
				page = append(page, toItem(c))
			}
		}
		if len(page) >= batchSize || n == count && keep {
			if err := s.upsertPage(ctx, page); err != nil {
				return 0, err
			}
			page = page[:0]
		}
		if len(page) > 0 {
			continue
		}
		if err := stream.Ack(t.EndLSN); err != nil {
			return 0, err
		}
	}
	return float64(count) / time.Since(began).Seconds(), nil
}

// toItem returns the object of a row.
func toItem(c *cdc.Change) item {
	it := newItem(sourceKind, c.New[0].Text, 1)
	it.Name, it.Plan, it.Comment = c.New[1].Text, c.New[2].Text, c.New[5].Text
	return it
}

// dropSlotOf waits until the reader of the slot has released it, and drops it.
func dropSlotOf(ctx context.Context, conn *pgx.Conn, name string) error {
	for {
		err := cdc.DropSlot(ctx, conn, name)
		if !errors.Is(err, cdc.ErrSlotBusy) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// categoryFigures reads the first messages of streams, each of which is an object.
func (s *sourceBench) categoryFigures(ctx context.Context) (_ []figure, err error) {
	count := s.scaleCount(50_000)
	if err := messagedb.Migrate(ctx, s.pool, sourceSchema); err != nil {
		return nil, err
	}
	client, err := messagedb.NewClient(s.pool, &messagedb.Config{Schema: sourceSchema, Logger: s.logger})
	if err != nil {
		return nil, err
	}
	add := func(controllers *delta.Controllers) error {
		entity, err := messagedb.NewEntity(client, messagedb.EntityConfig[sourcedItem]{Category: "item"})
		if err != nil {
			return err
		}
		messagedb.Fold(entity, "Made", func(s *sourcedItem, data protocol.Item, _ *messagedb.Message) error { s.Item = data; return nil })
		return bridge.CategorySafely(controllers, snoozingWorker{}, bridge.CategoryConfig[sourcedItem]{Client: client, Entity: entity})
	}
	write := func(round int) error {
		return s.execAll(ctx, fmt.Sprintf(`INSERT INTO messages (id, stream_name, type, position, data)
			SELECT gen_random_uuid(), 'item-' || x, 'Made', 0, jsonb_build_object('key', x::text, 'name', 'Ada Lovelace ' || x, 'plan', 'enterprise', 'seats', 1, 'active', true,
				'comment', 'the quick brown fox jumps over the lazy dog')
			FROM generate_series(%d, %d) x`, round*count+1, (round+1)*count), "ANALYZE messages")
	}
	rounds, err := s.measureTurns(write,
		func() (float64, error) { return s.measureInformed(ctx, count, add) },
		func() (float64, error) { return s.measureConsumed(ctx, client, count, false) },
		func() (float64, error) {
			rate, err := s.measureConsumed(ctx, client, count, true)
			return rate, errors.Join(err, s.execAll(ctx, "TRUNCATE bench_resource"))
		})
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("bridge.Category: %d messages, each of a stream of its own, until their objects are informed and the position is written with them, against a "+
		"Consumer of package messagedb", count)
	return []figure{
		figure{Name: "category, messages informed", Unit: "/s", What: what + " whose handler does nothing"}.withRates(rounds, 1),
		figure{Name: "the same, beside a consumer and an upsert", Unit: "/s", AtLeast: 0.5, What: what + " whose handler makes a bare upsert of a thousand at once with a position"}.withRates(rounds, 2),
	}, nil
}

// measureConsumed handles messages, stores them if keep is set, and returns the rate from the first one on.
func (s *sourceBench) measureConsumed(ctx context.Context, client *messagedb.Client, count int, keep bool) (rate float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var began time.Time
	var took time.Duration
	var page []item
	handled := 0
	consumer, err := client.NewConsumer(messagedb.ConsumerConfig{
		Category: "item", Identifier: fmt.Sprint(keep), PositionInterval: batchSize,
		Handler: func(ctx context.Context, m *messagedb.Message) error {
			if handled++; handled == 1 {
				began = time.Now()
			}
			if keep {
				data, err := messagedb.Decode[protocol.Item](m)
				if err != nil {
					return err
				}
				if page = append(page, item{data, sourceKind}); len(page) == batchSize || handled == count {
					if err := s.upsertPage(ctx, page); err != nil {
						return err
					}
					page = page[:0]
				}
			}
			if handled == count {
				took = time.Since(began)
				cancel()
			}
			return nil
		},
	})
	if err != nil {
		return 0, err
	}
	if err := consumer.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return 0, err
	}
	if handled < count {
		return 0, fmt.Errorf("%d of %d messages were handled", handled, count)
	}
	return float64(count) / took.Seconds(), nil
}
