package nats_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
	deltanats "github.com/chariot-giving/delta/sinks/nats"
)

// startServer runs a NATS server with JetStream on a folder, on any port if port is -1.
func startServer(t *testing.T, folder string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: folder, NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(3*time.Minute))
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func connect(t *testing.T, s *server.Server) jetstream.JetStream {
	t.Helper()
	connection, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(connection.Close)
	js, err := jetstream.New(connection)
	require.NoError(t, err)
	return js
}

func createStream(t *testing.T, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "delta", Subjects: []string{"delta.>"}, MaxMsgSize: 1000})
	require.NoError(t, err)
	return stream
}

// stored returns the messages of the stream, in their order.
func stored(t *testing.T, stream jetstream.Stream) (messages []*jetstream.RawStreamMsg) {
	t.Helper()
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	for i := info.State.FirstSeq; i <= info.State.LastSeq && info.State.Msgs > 0; i++ {
		m, err := stream.GetMsg(t.Context(), i)
		require.NoError(t, err)
		messages = append(messages, m)
	}
	return messages
}

func TestMessagesAreStoredOnceWithTheirHeaders(t *testing.T) {
	t.Parallel()
	js := connect(t, startServer(t, t.TempDir(), -1))
	stream := createStream(t, js)
	sink, err := deltanats.New(deltanats.Config{JetStream: js})
	require.NoError(t, err)
	messages := []sinks.Message{
		{ID: "1", Key: "k", Subject: "public.My *>Table", Type: "insert", Headers: map[string]string{"a": "b\r\nc: d"}, Body: []byte("{}")},
		{ID: "2", Subject: "big", Body: make([]byte, 2000)},
		{ID: "3", Subject: ".."},
	}
	for range 2 {
		errs := sink.Deliver(t.Context(), messages)
		require.NoError(t, errs[0])
		require.Error(t, errs[1])
		require.True(t, sinks.IsPermanent(errs[1]), "%v", errs[1])
		require.Error(t, errs[2], "no stream listens to delta alone")
		require.False(t, sinks.IsPermanent(errs[2]), "%v", errs[2])
		messages[0].Body = []byte("[]") // another one with the same id
	}
	all := stored(t, stream)
	require.Len(t, all, 1)
	require.Equal(t, "delta.public.My%20%2A%3ETable.insert", all[0].Subject)
	require.Equal(t, "{}", string(all[0].Data))
	require.Equal(t, nats.Header{
		"Nats-Msg-Id": {"1"}, "a": {"b%0D%0Ac: d"}, "Delta-Type": {"insert"}, "Delta-Key": {"k"}, "Delta-Subject": {"public.My *>Table"},
	}, all[0].Header)
}

// counter is a source of numbers, each of one of seven keys.
type counter struct{ next, confirmed, n int }

func (c *counter) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
	var page []sinks.Message
	for ; len(page) < limit && c.next < c.n; c.next++ {
		page = append(page, sinks.Message{ID: fmt.Sprint(c.next), Key: fmt.Sprint(c.next % 7), Subject: "number", Type: "new", Position: c.next + 1})
	}
	if page == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return page, nil
}

func (c *counter) Confirm(_ context.Context, position any) error {
	c.confirmed = position.(int)
	return nil
}

// A server that is away is waited for: afterwards the stream has each message, and those of a key in order.
func TestAServerThatGoesAwayLosesNothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := startServer(t, folder, -1)
	port := s.Addr().(*net.TCPAddr).Port
	js := connect(t, s)
	stream := createStream(t, js)
	sink, err := deltanats.New(deltanats.Config{JetStream: js})
	require.NoError(t, err)
	source := &counter{n: 3000}
	relay, err := sinks.NewRelay(sinks.Config{
		Source: source, Sink: sink, BatchSize: 50, ShortestRetry: time.Millisecond, LongestRetry: 20 * time.Millisecond,
		DeliveryTimeout: time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	for relay.Stats().Delivered < 500 {
		time.Sleep(time.Millisecond)
	}
	s.Shutdown()
	s.WaitForShutdown()
	for failed := relay.Stats().Failed; relay.Stats().Failed == failed; {
		time.Sleep(time.Millisecond)
	}
	startServer(t, folder, port)
	require.Eventually(t, func() bool { return relay.Stats().Delivered == int64(source.n) }, 3*time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	require.Equal(t, source.n, source.confirmed)
	last := map[string]int{}
	seen := map[string]bool{}
	for _, m := range stored(t, stream) {
		id := m.Header.Get("Nats-Msg-Id")
		require.False(t, seen[id], "the server knows ids that come again, also after it was started again")
		seen[id] = true
		var n int
		_, err := fmt.Sscan(id, &n)
		require.NoError(t, err)
		key := m.Header.Get(deltanats.HeaderKey)
		if previous, found := last[key]; found {
			require.Greater(t, n, previous)
		}
		last[key] = n
	}
	require.Len(t, seen, source.n)
}

func TestJetStreamIsRequired(t *testing.T) {
	t.Parallel()
	_, err := deltanats.New(deltanats.Config{})
	var invalid *sinks.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "JetStream", invalid.Field)
}
