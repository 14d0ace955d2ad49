package deltaotel_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/deltaotel"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/messagedb"
)

// newMeter returns a provider with metrics that a test can read.
func newMeter(t *testing.T) (*metric.MeterProvider, *observed) {
	t.Helper()
	o := &observed{t: t, reader: metric.NewManualReader()}
	return metric.NewMeterProvider(metric.WithReader(o.reader)), o
}

// requireAbsent requires that a metric has no value.
func (o *observed) requireAbsent(name string, labels ...string) {
	o.t.Helper()
	_, there := o.readFigure(name, labels...)
	require.False(o.t, there, name)
}

type opened struct {
	Account string `json:"account"`
}

func TestConsumersSubscriptionsAndWritesOfMessages(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	require.NoError(t, messagedb.Migrate(t.Context(), d.Pool, messagedb.DefaultSchema))
	client, err := messagedb.NewClient(d.Pool, &messagedb.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	provider, o := newMeter(t)
	consumer, err := client.NewConsumer(messagedb.ConsumerConfig{
		Category: "account", Identifier: "billing", Polling: messagedb.IdlePolling(5 * time.Millisecond),
		ErrorPolicy: messagedb.ErrorPolicy{Skip: true, Retries: 1, Delay: time.Millisecond},
	})
	require.NoError(t, err)
	bad := errors.New("no such account")
	messagedb.Handle(consumer, "Opened", func(_ context.Context, data opened, _ *messagedb.Message) error {
		if data.Account == "bad" {
			return bad
		}
		return nil
	})
	stop, err := deltaotel.ObserveConsumer(provider, "", consumer)
	require.NoError(t, err)
	stopMessages, err := deltaotel.ObserveMessages(provider, "ledger", client)
	require.NoError(t, err)
	write := func(stream messagedb.StreamName, messageType, account string, expected int64) error {
		message := messagedb.ProposedMessage{ID: messagedb.NewID(), Type: messageType, Data: opened{account}}
		_, err := client.Write(t.Context(), stream, []messagedb.ProposedMessage{message}, expected)
		return err
	}
	require.NoError(t, write("account-1", "Opened", "good", messagedb.NoStreamVersion))
	require.NoError(t, write("account-2", "Opened", "bad", messagedb.NoStreamVersion))
	require.NoError(t, write("account-2", "Closed", "bad", messagedb.AnyVersion))
	require.Error(t, write("account-2", "Opened", "bad", messagedb.NoStreamVersion))
	name := consumer.PositionStream().String()
	asked := time.Now()
	o.waitForFigure(3, "messagedb.consumer.lag", "consumer", name)
	o.waitForFigure(3, "messagedb.client.messages", "client", "ledger")
	o.waitForFigure(1, "messagedb.client.conflicts", "client", "ledger")

	ran := make(chan error, 1)
	go func() { ran <- consumer.Run(context.WithoutCancel(t.Context())) }()
	o.waitForFigure(1, "messagedb.consumer.messages", "consumer", name, "outcome", "handled")
	o.waitForFigure(1, "messagedb.consumer.messages", "consumer", name, "outcome", "skipped")
	o.waitForFigure(1, "messagedb.consumer.messages", "consumer", name, "outcome", "ignored")
	o.waitForFigure(1, "messagedb.consumer.retries", "consumer", name)
	o.waitForFigure(0, "messagedb.consumer.conflicts", "consumer", name)
	if lag, _ := o.readFigure("messagedb.consumer.lag", "consumer", name); time.Since(asked) < 15*time.Second { // a slow machine may take longer
		require.InDelta(t, 3, lag, 0, "it is not asked for again at once")
	}
	require.NoError(t, consumer.Stop(t.Context()))
	require.NoError(t, <-ran)
	o.waitForFigure(0, "messagedb.consumer.rewinds", "consumer", name)

	subscription, err := client.SubscribeToCategory(t.Context(), "account", func(context.Context, *messagedb.Message) error { return nil },
		messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{})
	require.NoError(t, err)
	stopSubscription, err := deltaotel.ObserveSubscription(provider, "audit", subscription)
	require.NoError(t, err)
	o.waitForFigure(3, "messagedb.subscription.messages", "subscription", "audit")
	o.waitForFigure(0, "messagedb.subscription.rewinds", "subscription", "audit")
	subscription.Stop()
	require.NoError(t, subscription.Err())

	for _, end := range []func(){stop, stopMessages, stopSubscription, stop} {
		end()
	}
	o.requireAbsent("messagedb.consumer.messages", "consumer", name, "outcome", "handled")
	o.requireAbsent("messagedb.consumer.lag", "consumer", name)
	o.requireAbsent("messagedb.client.messages", "client", "ledger")
	o.requireAbsent("messagedb.subscription.messages", "subscription", "audit")
}

func TestProjectorsOfMessages(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	require.NoError(t, messagedb.Migrate(t.Context(), d.Pool, messagedb.DefaultSchema))
	require.NoError(t, messagedb.MigrateProjections(t.Context(), d.Pool, ""))
	client, err := messagedb.NewClient(d.Pool, &messagedb.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	provider, o := newMeter(t)
	project := func() *messagedb.Projector {
		p, err := client.NewProjector(messagedb.ProjectorConfig{
			Name: "accounts", Category: "account", Polling: messagedb.IdlePolling(5 * time.Millisecond),
			ErrorPolicy: messagedb.ErrorPolicy{Skip: true, Retries: 1, Delay: time.Millisecond},
		})
		require.NoError(t, err)
		messagedb.Project(p, "Opened", func(_ context.Context, _ pgx.Tx, data opened, _ *messagedb.Message) error {
			if data.Account == "bad" {
				return errors.New("no such account")
			}
			return nil
		})
		return p
	}
	projector, other := project(), project()
	stop, err := deltaotel.ObserveProjector(provider, "", projector)
	require.NoError(t, err)
	stopOther, err := deltaotel.ObserveProjector(provider, "other", other)
	require.NoError(t, err)
	write := func(messageType, account string) {
		t.Helper()
		_, err := client.WriteMessage(t.Context(), "account-1", messagedb.ProposedMessage{Type: messageType, Data: opened{account}}, messagedb.AnyVersion)
		require.NoError(t, err)
	}
	write("Opened", "good")
	write("Opened", "bad")
	write("Closed", "bad")
	const name = "accounts+1"
	o.waitForFigure(3, "messagedb.projector.lag", "projector", name)
	o.waitForFigure(0, "messagedb.projector.live", "projector", name)
	age, there := o.readFigure("messagedb.projector.age", "projector", name)
	require.True(t, there)
	require.Positive(t, age)

	ran := make(chan error, 1)
	go func() { ran <- projector.Run(context.WithoutCancel(t.Context())) }()
	for _, outcome := range []string{"handled", "skipped", "ignored"} {
		o.waitForFigure(1, "messagedb.projector.messages", "projector", name, "outcome", outcome)
	}
	o.waitForFigure(1, "messagedb.projector.retries", "projector", name)
	o.waitForFigure(0, "messagedb.projector.overtaken", "projector", name)
	o.waitForFigure(0, "messagedb.projector.rewinds", "projector", name)
	o.waitForFigure(1, "messagedb.projector.live", "projector", name)
	require.NoError(t, projector.Stop(t.Context()))
	require.NoError(t, <-ran)
	o.waitForFigure(0, "messagedb.projector.messages", "projector", "other", "outcome", "handled")

	stop()
	stopOther()
	for _, of := range []string{name, "other"} {
		o.requireAbsent("messagedb.projector.live", "projector", of)
		o.requireAbsent("messagedb.projector.lag", "projector", of)
	}
}

func TestStreamsOfChanges(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	d.Exec("CREATE TABLE account (id int PRIMARY KEY)", "CREATE PUBLICATION accounts FOR TABLE account")
	conn, err := d.Pool.Acquire(t.Context())
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", d.Name)
	conn.Release()
	require.NoError(t, err)
	stream, err := cdc.Open(t.Context(), cdc.Config{Conn: d.Config(), Slot: d.Name, Publications: []string{"accounts"}, Heartbeat: 100 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(stream.Close)
	provider, o := newMeter(t)
	stop, err := deltaotel.ObserveStream(provider, "accounts", stream)
	require.NoError(t, err)
	d.Exec("INSERT INTO account VALUES (1)")
	transaction, err := stream.Next(t.Context())
	require.NoError(t, err)
	o.waitForFigure(1, "cdc.stream.up", "stream", "accounts")
	o.waitForFigure(1, "cdc.stream.unacknowledged", "stream", "accounts")
	o.waitForFigure(1, "cdc.stream.transactions", "stream", "accounts")
	positive := func(name string) {
		t.Helper()
		waitUntil(t, func() bool {
			value, there := o.readFigure(name, "stream", "accounts")
			return there && value > 0
		}, name)
	}
	for _, name := range []string{"cdc.stream.lag", "cdc.stream.retained", "cdc.stream.io", "cdc.stream.heartbeats", "cdc.stream.delay"} {
		positive(name)
	}
	require.NoError(t, stream.Ack(transaction.EndLSN))
	o.waitForFigure(0, "cdc.stream.unacknowledged", "stream", "accounts")
	o.waitForFigure(0, "cdc.stream.lag", "stream", "accounts")
	o.waitForFigure(0, "cdc.stream.spilled", "stream", "accounts")
	o.waitForFigure(0, "cdc.stream.spilled.transactions", "stream", "accounts")
	cdctest.Administer(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+d.Name+"'")
	positive("cdc.stream.reconnects")
	stop()
	o.requireAbsent("cdc.stream.up", "stream", "accounts")
}
