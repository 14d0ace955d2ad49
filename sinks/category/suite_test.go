package category_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/category"
	"github.com/chariot-giving/delta/sinks/internal/sinktest"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

func awaitTrue(t *testing.T, is func() bool) {
	t.Helper()
	require.Eventually(t, is, sinktest.Patience, 10*time.Millisecond)
}

// newClient creates a message store in a database.
func newClient(t *testing.T, pool *pgxpool.Pool) *messagedb.Client {
	t.Helper()
	require.NoError(t, messagedb.Migrate(t.Context(), pool, ""))
	client, err := messagedb.NewClient(pool, &messagedb.Config{Logger: quiet})
	require.NoError(t, err)
	return client
}

// writeMessages writes messages of the type Happened with the data {"n": 0}, {"n": 1} and so on, to one stream after another.
func writeMessages(t *testing.T, client *messagedb.Client, n, streams int) {
	t.Helper()
	for i := range n {
		_, err := client.WriteMessage(context.Background(), messagedb.StreamName(fmt.Sprintf("account-%d", i%streams)),
			messagedb.ProposedMessage{Type: "Happened", Data: map[string]int{"n": i}, Metadata: map[string]string{"by": "test"}}, messagedb.AnyVersion)
		require.NoError(t, err)
	}
}

// recorder is a sink that keeps the messages that it accepted.
type recorder struct {
	mu       sync.Mutex
	accepted []sinks.Message
}

func (r *recorder) Deliver(_ context.Context, messages []sinks.Message) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted = append(r.accepted, messages...)
	return nil
}

func (r *recorder) allAccepted() []sinks.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]sinks.Message(nil), r.accepted...)
}

var consumer = messagedb.ConsumerConfig{Category: "account", Identifier: "sink", BatchSize: 30, Polling: messagedb.IdlePolling(10 * time.Millisecond)}

// startRelay runs a relay of the category until stop is called or the test ends.
func startRelay(t *testing.T, client *messagedb.Client, sink sinks.Sink, change ...func(*messagedb.ConsumerConfig)) (relay *sinks.Relay, stop func() error) {
	t.Helper()
	config := category.SourceConfig{Client: client, Consumer: consumer, Prefix: "here:"}
	for _, c := range change {
		c(&config.Consumer)
	}
	source, err := category.NewSource(config)
	require.NoError(t, err)
	relay, err = sinks.NewRelay(sinks.Config{
		Source: source, Sink: sink, ShortestRetry: time.Millisecond, LongestRetry: 5 * time.Millisecond, ConfirmInterval: 10 * time.Millisecond, BatchSize: 20, Logger: quiet,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return relay, stop
}

func entryOf(t *testing.T, m sinks.Message) (e category.Entry) {
	t.Helper()
	require.NoError(t, json.Unmarshal(m.Body, &e))
	return e
}

// countBehind returns how many messages the consumer has not processed.
func countBehind(t *testing.T, client *messagedb.Client) int64 {
	t.Helper()
	config := consumer
	reader, err := client.NewConsumer(config)
	require.NoError(t, err)
	lag, err := reader.Lag(context.Background())
	require.NoError(t, err)
	return lag.Messages
}
