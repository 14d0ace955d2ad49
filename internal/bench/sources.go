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

// sourceKind is the kind that sources feed.
const sourceKind = "bench_source"

// sourced is an object that a source informs.
type sourced struct{ protocol.Item }

func (s sourced) ID() string { return s.Key }
func (sourced) Kind() string { return sourceKind }

// putOff is a worker that puts its kind off as soon as it is called: what is measured is informing, and not Work.
type putOff struct{ delta.WorkerDefaults[sourced] }

func (putOff) Work(context.Context, *delta.Resource[sourced]) error {
	return delta.SnoozeKind(24 * time.Hour)
}

// sources measures what is informed from a table and from a category.
type sources struct {
	*bench
	pool *pgxpool.Pool
	// config connects to the schema, and conn is a connection of it.
	config *pgx.ConnConfig
	conn   *pgx.Conn
}

const sourceSchema = "bench_source"

// sourceFigures compares what sources inform with what reads alone of the same.
func sourceFigures(ctx context.Context, b *bench) (_ []figure, err error) {
	s := &sources{bench: b}
	if s.pool, err = b.schema(ctx, sourceSchema); err != nil {
		return nil, err
	}
	defer s.pool.Close()
	s.config = s.pool.Config().ConnConfig.Copy()
	s.config.RuntimeParams["synchronous_commit"] = "on" // what is written is to be there for decoding at once
	if s.conn, err = pgx.ConnectConfig(ctx, s.config); err != nil {
		return nil, err
	}
	defer s.conn.Close(ctx) //nolint:errcheck // nothing is left to be done on it
	if err := s.exec(ctx, bareTable, "CREATE TABLE bench_position AS SELECT 0 AS position"); err != nil {
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

func (s *sources) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

func (s *sources) number(ctx context.Context, sql string, args ...any) (n int64, err error) {
	err = s.conn.QueryRow(ctx, sql, args...).Scan(&n)
	return n, err
}

// following runs a client with a source until a look says that it is enough.
func (s *sources) following(ctx context.Context, add func(*delta.Controllers) error, enough func() (bool, error)) (err error) {
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
			return errors.New("the source informs no more")
		}
	}
}

// informed runs a source until so many are informed, and says how many it has informed a second, from its first page to its last: that a client has to start
// first, and to take the source over, is not counted. Then it removes them.
func (s *sources) informed(ctx context.Context, count int, add func(*delta.Controllers) error) (rate float64, err error) {
	err = s.following(ctx, add, func() (bool, error) {
		n, err := s.number(ctx, "SELECT count(*) FROM delta_resource")
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
	return rate, s.exec(ctx, "TRUNCATE delta_resource")
}

// turns measures sides. In each round the content is written, and then all sides read it, in turns. It returns the rates of each round.
func (s *sources) turns(write func(round int) error, sides ...func() (rate float64, err error)) (rounds [][]float64, err error) {
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

// beside is a figure with the rates of the first side, and of another one.
func (f figure) beside(rounds [][]float64, other int) figure {
	for _, rates := range rounds {
		f.Rounds = append(f.Rounds, round{Delta: rates[0], Bare: rates[other]})
	}
	return f.settle()
}

// kept writes objects with the shortest upsert that could do it, and a position with them.
func (s *sources) kept(ctx context.Context, page []item) error {
	c, err := encode(page)
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

// tableFigures read new rows: half of them in transactions of one, half in transactions of a thousand.
func (s *sources) tableFigures(ctx context.Context) (_ []figure, err error) {
	const slot, aloneSlot, keptSlot = "bench_source", "bench_source_alone", "bench_source_kept"
	half := s.scaled(50_000)
	count := 2 * half
	err = s.exec(ctx, `CREATE TABLE item (key text PRIMARY KEY, name text NOT NULL, plan text NOT NULL, seats bigint NOT NULL, active boolean NOT NULL, comment text NOT NULL)`)
	if err != nil {
		return nil, err
	}
	add := func(controllers *delta.Controllers) error {
		return bridge.TableSafely(controllers, putOff{}, bridge.TableConfig[sourced]{Schema: sourceSchema, Table: "item", Slot: slot, Publication: slot})
	}
	err = s.following(ctx, add, func() (bool, error) { // until the empty table was read
		n, err := s.number(ctx, `SELECT count(*) FROM delta_inform WHERE trigger = 'source' AND ended_at IS NOT NULL AND error = ''`)
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
		return s.exec(ctx,
			fmt.Sprintf("DO $$ BEGIN FOR i IN %d..%d LOOP %s (SELECT i AS x) one; COMMIT; END LOOP; END $$", from+1, from+half, row),
			fmt.Sprintf("DO $$ BEGIN FOR i IN %d..%d BY 1000 LOOP %s generate_series(i, least(i + 999, %[2]d)) x; COMMIT; END LOOP; END $$", from+half+1, from+count, row))
	}
	rounds, err := s.turns(write,
		func() (float64, error) { return s.informed(ctx, count, add) },
		func() (float64, error) {
			rate, err := s.streamed(ctx, aloneSlot, slot, count, false)
			return rate, errors.Join(err, dropSlotOf(ctx, s.conn, aloneSlot))
		},
		func() (float64, error) {
			rate, err := s.streamed(ctx, keptSlot, slot, count, true)
			return rate, errors.Join(err, s.exec(ctx, "TRUNCATE bench_resource"), dropSlotOf(ctx, s.conn, keptSlot))
		})
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("bridge.Table: %d new rows until they are informed and the position is written with them, half of them in transactions of one and half of a "+
		"thousand, against Stream.Next and all Changes of package cdc, acknowledged", count)
	return []figure{
		figure{Name: "table, rows informed", Unit: "/s", AtLeast: 0.5, What: what + ", which does nothing with them"}.beside(rounds, 1),
		figure{Name: "the same, beside cdc and an upsert", Unit: "/s", AtLeast: 0.5, What: what + " after a bare upsert of a thousand at once with a position"}.beside(rounds, 2),
	}, nil
}

// streamed reads changes, and keeps them or not, and says how many came a second, from the first one on.
func (s *sources) streamed(ctx context.Context, slot, publication string, count int, keep bool) (rate float64, err error) {
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
				page = append(page, itemOf(c))
			}
		}
		if len(page) >= batchSize || n == count && keep {
			if err := s.kept(ctx, page); err != nil {
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

// itemOf makes the object of a row.
func itemOf(c *cdc.Change) item {
	it := newItem(sourceKind, c.New[0].Text, 1)
	it.Name, it.Plan, it.Comment = c.New[1].Text, c.New[2].Text, c.New[5].Text
	return it
}

// dropSlotOf waits until the reader of a slot has let go of it.
func dropSlotOf(ctx context.Context, conn *pgx.Conn, name string) error {
	for {
		err := cdc.DropSlot(ctx, conn, name)
		if !errors.Is(err, cdc.ErrSlotBusy) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// categoryFigures read the first messages of streams: each of them is an object.
func (s *sources) categoryFigures(ctx context.Context) (_ []figure, err error) {
	count := s.scaled(50_000)
	if err := messagedb.Migrate(ctx, s.pool, sourceSchema); err != nil {
		return nil, err
	}
	client, err := messagedb.NewClient(s.pool, &messagedb.Config{Schema: sourceSchema, Logger: s.logger})
	if err != nil {
		return nil, err
	}
	add := func(controllers *delta.Controllers) error {
		entity, err := messagedb.NewEntity(client, messagedb.EntityConfig[sourced]{Category: "item"})
		if err != nil {
			return err
		}
		messagedb.Fold(entity, "Made", func(s *sourced, data protocol.Item, _ *messagedb.Message) error { s.Item = data; return nil })
		return bridge.CategorySafely(controllers, putOff{}, bridge.CategoryConfig[sourced]{Client: client, Entity: entity})
	}
	write := func(round int) error {
		return s.exec(ctx, fmt.Sprintf(`INSERT INTO messages (id, stream_name, type, position, data)
			SELECT gen_random_uuid(), 'item-' || x, 'Made', 0, jsonb_build_object('key', x::text, 'name', 'Ada Lovelace ' || x, 'plan', 'enterprise', 'seats', 1, 'active', true,
				'comment', 'the quick brown fox jumps over the lazy dog')
			FROM generate_series(%d, %d) x`, round*count+1, (round+1)*count), "ANALYZE messages")
	}
	rounds, err := s.turns(write,
		func() (float64, error) { return s.informed(ctx, count, add) },
		func() (float64, error) { return s.consumed(ctx, client, count, false) },
		func() (float64, error) {
			rate, err := s.consumed(ctx, client, count, true)
			return rate, errors.Join(err, s.exec(ctx, "TRUNCATE bench_resource"))
		})
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("bridge.Category: %d messages, each of a stream of its own, until their objects are informed and the position is written with them, against a "+
		"Consumer of package messagedb", count)
	return []figure{
		figure{Name: "category, messages informed", Unit: "/s", What: what + " whose handler does nothing"}.beside(rounds, 1),
		figure{Name: "the same, beside a consumer and an upsert", Unit: "/s", AtLeast: 0.5, What: what + " whose handler makes a bare upsert of a thousand at once with a position"}.beside(rounds, 2),
	}, nil
}

// consumed handles messages, and keeps them or not, and says how many a second, from the first one on.
func (s *sources) consumed(ctx context.Context, client *messagedb.Client, count int, keep bool) (rate float64, err error) {
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
					if err := s.kept(ctx, page); err != nil {
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
