// Command outbox has others know what became of payments: Delta's log of changes is the outbox, and a relay publishes it to NATS.
//
// A payment is written into a table of the program's own, and informed, in one transaction. Work pays it at the bank. The outcome, and the entry
// of the log that tells of it, are one transaction too, and the relay confirms an entry only when NATS has stored it. So whatever dies in between, each
// outcome is published, and those of a payment in their order. What follows receives at least once, and recognizes by the entry's id what comes again.
//
// `DEMO=outbox make demo` runs it, with servers of its own. DELTA_DATABASE_URL and TEMPORAL_ADDRESS together, and NATS_URL, name servers to use instead. With
// DEMO_ONCE=1 it ends when the first payments were followed to their end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/changelog"
	deltanats "github.com/chariot-giving/delta/sinks/nats"
)

// schema is the table that the program is about.
const schema = `CREATE TABLE IF NOT EXISTS payment (id text PRIMARY KEY, cents bigint NOT NULL)`

// payment is a row of the table, as the bank is to have it.
type payment struct {
	Ref   string `json:"id"`
	Cents int64  `json:"cents"`
}

func (p payment) ID() string { return p.Ref }
func (payment) Kind() string { return "payment" }

// Settings has each outcome of a payment appended to the log of changes.
func (payment) Settings() delta.ObjectSettings { return delta.ObjectSettings{Log: true} }

// payments is the controller.
type payments struct {
	delta.WorkerDefaults[payment]
	delta.NoInformer[payment]
}

// Work pays at the bank, which is not there in this example: it refuses what is not positive, and takes all else.
func (payments) Work(_ context.Context, r *delta.Resource[payment]) error {
	if r.Object.Cents <= 0 {
		return delta.ResourceDegrade(errors.New("the bank refuses the amount"))
	}
	return nil
}

// pay writes a payment. If the transaction rolls back, nobody hears of it.
func pay(ctx context.Context, client *delta.Client, pool *pgxpool.Pool, p payment) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO payment (id, cents) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET cents = excluded.cents`, p.Ref, p.Cents)
		if err != nil {
			return err
		}
		_, err = client.InformTx(ctx, tx, p, nil)
		return err
	})
}

// newRelay publishes what becomes of payments, as delta.payment.created, delta.payment.updated and so on. Run one in each process of the program: one delivers,
// and another one goes on when that one ends or dies.
func newRelay(client *delta.Client, js jetstream.JetStream) (*sinks.Relay, error) {
	source, err := changelog.New(changelog.Config{Client: client, Consumer: delta.ChangeConsumer{Name: "outbox", Kinds: []string{"payment"}}})
	if err != nil {
		return nil, err
	}
	sink, err := deltanats.New(deltanats.Config{JetStream: js})
	if err != nil {
		return nil, err
	}
	return sinks.NewRelay(sinks.Config{Source: source, Sink: sink})
}

// newStream keeps what is published.
func newStream(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	return js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "payments", Subjects: []string{"delta.payment.>"}})
}

// follow is another program: it hears what became of payments. It gets each entry at least once, those of a payment in their order, until the context
// ends. newest has the id of the newest entry of each payment, by which it knows what comes again: ids rise for each object. A real program keeps them
// beside what it makes of the entries, in the same transaction.
func follow(ctx context.Context, stream jetstream.Stream, newest map[string]int64, handle func(changelog.Entry)) error {
	consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{Durable: "follower", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.WithMessagesErrOnMissingHeartbeat(false)) // it asks again by itself
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var entry changelog.Entry
		if err := json.Unmarshal(m.Data(), &entry); err != nil {
			return fmt.Errorf("message %s: %w", m.Subject(), err)
		}
		if entry.ID > newest[entry.ObjectID] {
			handle(entry)
			newest[entry.ObjectID] = entry.ID
		}
		if err := m.Ack(); err != nil {
			return err // it comes again
		}
	}
}
