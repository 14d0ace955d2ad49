package nats_test

import (
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/internal/sinktest"
	deltanats "github.com/chariot-giving/delta/sinks/nats"
)

// startServer runs a NATS server with JetStream on a folder, and on any port if port is -1.
func startServer(t *testing.T, folder string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: folder, NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(3*time.Minute))
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func connectJetStream(t *testing.T, s *server.Server) jetstream.JetStream {
	t.Helper()
	connection, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.Timeout(sinktest.Patience))
	require.NoError(t, err)
	t.Cleanup(connection.Close)
	js, err := jetstream.New(connection, jetstream.WithDefaultTimeout(sinktest.Patience))
	require.NoError(t, err)
	return js
}

func createStream(t *testing.T, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "delta", Subjects: []string{"delta.>"}, MaxMsgSize: 1000})
	require.NoError(t, err)
	return stream
}

// storedMessages returns the messages of the stream, in their order.
func storedMessages(t *testing.T, stream jetstream.Stream) (messages []*jetstream.RawStreamMsg) {
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
	js := connectJetStream(t, startServer(t, t.TempDir(), -1))
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
	all := storedMessages(t, stream)
	require.Len(t, all, 1)
	require.Equal(t, "delta.public.My%20%2A%3ETable.insert", all[0].Subject)
	require.Equal(t, "{}", string(all[0].Data))
	require.Equal(t, nats.Header{
		"Nats-Msg-Id": {"1"}, "a": {"b%0D%0Ac: d"}, "Delta-Type": {"insert"}, "Delta-Key": {"k"}, "Delta-Subject": {"public.My *>Table"},
	}, all[0].Header)
}

// A sink waits for a server that is away; afterwards the stream has each message, and those of a key in order.
func TestAServerThatGoesAwayLosesNothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := startServer(t, folder, -1)
	port := s.Addr().(*net.TCPAddr).Port
	js := connectJetStream(t, s)
	stream := createStream(t, js)
	sink, err := deltanats.New(deltanats.Config{JetStream: js})
	require.NoError(t, err)
	sinktest.CheckOutage(t, 3000, sinks.Config{Sink: sink, BatchSize: 50, DeliveryTimeout: time.Second}, func(relay *sinks.Relay) {
		require.Eventually(t, func() bool { return relay.Stats().Delivered >= 500 }, sinktest.Patience, time.Millisecond)
		s.Shutdown()
		s.WaitForShutdown()
		failed := relay.Stats().Failed
		require.Eventually(t, func() bool { return relay.Stats().Failed > failed }, sinktest.Patience, time.Millisecond)
		startServer(t, folder, port)
	}, func() (all []sinktest.Delivered) {
		seen := map[string]bool{}
		for _, m := range storedMessages(t, stream) {
			id := m.Header.Get("Nats-Msg-Id")
			require.False(t, seen[id], "the server knows ids that come again, also after it was started again")
			seen[id] = true
			all = append(all, sinktest.Delivered{ID: id, Key: m.Header.Get(deltanats.HeaderKey)})
		}
		return all
	})
}

func TestJetStreamIsRequired(t *testing.T) {
	t.Parallel()
	_, err := deltanats.New(deltanats.Config{})
	var invalid *sinks.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "JetStream", invalid.Field)
}
