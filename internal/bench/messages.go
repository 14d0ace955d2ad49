package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/messagedb"
)

// messageFigures compares package messagedb with bare calls of Message DB's functions.
func messageFigures(ctx context.Context, b *bench) ([]figure, error) {
	if err := messagedb.Migrate(ctx, b.pool, messagedb.DefaultSchema); err != nil {
		return nil, err
	}
	client, err := messagedb.NewClient(b.pool, &messagedb.Config{Logger: b.logger})
	if err != nil {
		return nil, err
	}
	// The bare calls find the functions by the search path.
	config := b.pool.Config().Copy()
	config.ConnConfig.RuntimeParams["search_path"] = messagedb.DefaultSchema + ", public"
	bare, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer bare.Close()

	written, err := measureWrites(ctx, b, client, bare)
	if err != nil {
		return nil, err
	}
	// Without statistics Postgres would sort the whole category for each read, and the figure would measure only that.
	if _, err := b.pool.Exec(ctx, "VACUUM ANALYZE "+messagedb.DefaultSchema+".messages"); err != nil {
		return nil, err
	}
	figures := []figure{written}
	for _, batch := range []int{1, 100, 1000} {
		f, err := measureReads(ctx, b, client, bare, batch)
		if err != nil {
			return nil, err
		}
		figures = append(figures, f)
	}
	delivered, err := deliveryFigure(ctx, b)
	if err != nil {
		return nil, err
	}
	return append(figures, delivered), nil
}

// messageTurns is the number of turns of a round. A turn takes a tenth of a second.
const messageTurns = 20

// timeCalls repeats a call, and returns the time that all of them took.
func timeCalls(count int, call func(i int) error) (int, time.Duration, error) {
	began := time.Now()
	for i := range count {
		if err := call(i); err != nil {
			return 0, 0, err
		}
	}
	return count, time.Since(began), nil
}

func measureWrites(ctx context.Context, b *bench, client *messagedb.Client, bare *pgxpool.Pool) (figure, error) {
	count := b.scaleCount(400)
	data := map[string]any{"owner": "ann", "amount": 17, "currency": "EUR"}
	const encoded = `{"amount":17,"currency":"EUR","owner":"ann"}`
	f := figure{
		Name: "messagedb, write", Unit: "/s", AtLeast: 0.85,
		What: "Client.WriteMessage against SELECT write_message(...), one connection after the other's answer",
	}
	return compareRates(ctx, b.rounds, messageTurns, f, func(ctx context.Context, _ int) (int, time.Duration, error) {
		return timeCalls(count, func(i int) error {
			_, err := client.WriteMessage(ctx, messagedb.StreamName(fmt.Sprintf("bench-%d", i%100)),
				messagedb.ProposedMessage{Type: "Made", Data: data}, messagedb.AnyVersion)
			return err
		})
	}, func(ctx context.Context, _ int) (int, time.Duration, error) {
		return timeCalls(count, func(i int) error {
			var position int64
			return bare.QueryRow(ctx, "SELECT write_message($1, $2, $3, $4, $5, $6)",
				messagedb.NewID(), fmt.Sprintf("bench-%d", i%100), "Made", encoded, nil, nil).Scan(&position)
		})
	})
}

func measureReads(ctx context.Context, b *bench, client *messagedb.Client, bare *pgxpool.Pool, batch int) (figure, error) {
	count := max(min(b.scaleCount(400), b.scaleCount(10_000)/batch), 5) // enough reads of a thousand to be measurable
	f := figure{
		Name: fmt.Sprintf("messagedb, category read of %d", batch), Unit: "/s", AtLeast: 0.8,
		What: "Client.ReadCategory against SELECT ... FROM get_category_messages(...), every column read into a struct",
	}
	return compareRates(ctx, b.rounds, messageTurns, f, func(ctx context.Context, _ int) (int, time.Duration, error) {
		return timeCalls(count, func(int) error {
			got, err := client.ReadCategory(ctx, "bench", messagedb.CategoryOptions{BatchSize: batch})
			return checkCount(len(got), batch, err)
		})
	}, func(ctx context.Context, _ int) (int, time.Duration, error) {
		return timeCalls(count, func(int) error {
			rows, err := bare.Query(ctx, `SELECT id, stream_name, type, position, global_position, data, metadata, time
				FROM get_category_messages($1, $2, $3)`, "bench", 0, batch)
			if err != nil {
				return err
			}
			all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*messagedb.Message, error) {
				m := &messagedb.Message{}
				return m, row.Scan(&m.ID, (*string)(&m.Stream), &m.Type, &m.Position, &m.GlobalPosition, (*[]byte)(&m.Data), (*[]byte)(&m.Metadata), &m.Time)
			})
			return checkCount(len(all), batch, err)
		})
	})
}

func checkCount(got, want int, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("%d messages were read, not %d", got, want)
	}
	return err
}

// deliveryFigure compares the median time from a write to its handler with NOTIFY and with polling alone.
func deliveryFigure(ctx context.Context, b *bench) (figure, error) {
	f := figure{
		Name: "messagedb, write to handler", Unit: "ms", AtMost: 0.5,
		What: "the median of a subscription that is woken by NOTIFY, against one that polls every 100 ms",
	}
	for range b.rounds {
		woken, err := measureDelivery(ctx, b, true)
		if err != nil {
			return f, err
		}
		polled, err := measureDelivery(ctx, b, false)
		if err != nil {
			return f, err
		}
		f.Rounds = append(f.Rounds, round{Delta: woken, Bare: polled})
	}
	return f.computeMedians(), nil
}

func measureDelivery(ctx context.Context, b *bench, notify bool) (median float64, err error) {
	client, err := messagedb.NewClient(b.pool, &messagedb.Config{Notify: notify, Logger: b.logger})
	if err != nil {
		return 0, err
	}
	category := "delivered" + rand.Text() // new for each round, so that it is empty
	handled := make(chan time.Time)
	sub, err := client.SubscribeToCategory(ctx, category, func(context.Context, *messagedb.Message) error {
		handled <- time.Now()
		return nil
	}, messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{Notify: notify})
	if err != nil {
		return 0, err
	}
	defer sub.Stop()
	time.Sleep(300 * time.Millisecond) // until the subscription listens
	var samples []float64
	for range b.scaleCount(40) {
		if _, err := client.WriteMessage(ctx, messagedb.StreamName(category+"-1"), messagedb.ProposedMessage{Type: "Made", Data: messagedb.NoData}, messagedb.AnyVersion); err != nil {
			return 0, err
		}
		written := time.Now()
		select {
		case at := <-handled:
			samples = append(samples, float64(at.Sub(written).Microseconds())/1000)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		time.Sleep(3 * time.Millisecond)
	}
	return computeQuantile(samples, 0.5), nil
}
