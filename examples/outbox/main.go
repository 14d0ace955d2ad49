// Command outbox publishes the outcomes of payments: Delta's log of changes is the outbox, and a relay publishes it to NATS.
//
// One transaction writes a payment into the program's own table and informs it. Work pays it at the bank. Another transaction writes the outcome and its entry of
// the log, and the relay confirms an entry only after NATS has stored it. So whatever dies in between, each outcome is published, and those of one payment in
// order. A receiver gets each entry at least once, and recognizes repeated ones by the entry's id.
//
// `DEMO=outbox make demo` runs it with private servers. DELTA_DATABASE_URL and TEMPORAL_ADDRESS together, and NATS_URL, name servers to use instead. With
// DEMO_ONCE=1 it ends after the first payments are followed to their end.
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

// schema creates the program's table.
const schema = `CREATE TABLE IF NOT EXISTS payment (id text PRIMARY KEY, cents bigint NOT NULL)`

// payment is a row of the table, and the desired state at the bank.
type payment struct {
	Ref   string `json:"id"`
	Cents int64  `json:"cents"`
}

func (p payment) ID() string { return p.Ref }
func (payment) Kind() string { return "payment" }

// Settings turns on the log of changes, to which each outcome of a payment is appended.
func (payment) Settings() delta.ObjectSettings { return delta.ObjectSettings{Log: true} }

// payments is the controller of payments.
type payments struct {
	delta.WorkerDefaults[payment]
	delta.NoInformer[payment]
}

// Work pays at the bank, which this example simulates: it refuses amounts that are not positive, and accepts all others.
func (payments) Work(_ context.Context, r *delta.Resource[payment]) error {
	if r.Object.Cents <= 0 {
		return delta.ResourceDegrade(errors.New("the bank refuses the amount"))
	}
	return nil
}

// savePayment writes a payment and informs it. If the transaction rolls back, nothing is published.
func savePayment(ctx context.Context, client *delta.Client, pool *pgxpool.Pool, p payment) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO payment (id, cents) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET cents = excluded.cents`, p.Ref, p.Cents)
		if err != nil {
			return err
		}
		_, err = client.InformTx(ctx, tx, p, nil)
		return err
	})
}

// newRelay returns a relay that publishes the outcomes of payments, as delta.payment.created, delta.payment.updated and so on. Run one in each process of the
// program: one of them delivers, and another takes over when that one ends or dies.
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

// newStream creates the NATS stream that stores the entries.
func newStream(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	return js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "payments", Subjects: []string{"delta.payment.>"}})
}

// followOutcomes simulates another program, which receives the outcomes of payments until the context ends. It gets each entry at least once, and the entries of
// one payment in order. newest has the id of the newest entry of each payment, to recognize repeated entries, because ids rise for each object. A real program
// stores these ids together with the result of handling an entry, in one transaction.
func followOutcomes(ctx context.Context, stream jetstream.Stream, newest map[string]int64, handle func(changelog.Entry)) error {
	consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{Durable: "follower", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.WithMessagesErrOnMissingHeartbeat(false)) // the client pulls again by itself
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
			return err // NATS redelivers the entry
		}
	}
}
