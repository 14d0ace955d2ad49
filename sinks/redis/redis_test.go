package redis_test

import (
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/internal/sinktest"
	deltaredis "github.com/chariot-giving/delta/sinks/redis"
)

// freePort returns a port that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // it was only asked for its port
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// startServer runs a Redis server that keeps its data in a folder, and waits until it answers. The returned function kills it, as does the
// end of the test.
func startServer(t *testing.T, folder, port string) (kill func()) {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server on PATH: install Debian's package redis-server")
	}
	server := exec.Command(binary, "--bind", "127.0.0.1", "--port", port, "--dir", folder, "--save", "", "--appendonly", "yes", "--appendfsync", "always")
	require.NoError(t, server.Start())
	kill = func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	t.Cleanup(kill)
	client := newClient(t, port)
	require.Eventually(t, func() bool { return client.Ping(t.Context()).Err() == nil }, sinktest.Patience, 5*time.Millisecond)
	return kill
}

func newClient(t *testing.T, port string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:" + port, ContextTimeoutEnabled: true, MaxRetries: -1,
		DialTimeout: sinktest.Patience, ReadTimeout: sinktest.Patience, WriteTimeout: sinktest.Patience,
	})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// streamEntries returns the entries of a stream.
func streamEntries(t *testing.T, client *redis.Client, stream string) []redis.XMessage {
	t.Helper()
	all, err := client.XRange(t.Context(), stream, "-", "+").Result()
	require.NoError(t, err)
	return all
}

func TestMessagesAreEntriesWithTheirFields(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	startServer(t, t.TempDir(), port)
	client := newClient(t, port)
	sink, err := deltaredis.New(deltaredis.Config{Client: client, MaxBytes: 100})
	require.NoError(t, err)
	require.NoError(t, client.Set(t.Context(), "delta:taken", "a text", 0).Err())
	messages := []sinks.Message{
		{
			ID: "1", Key: "k\n", Subject: "public.My Table", Type: "insert", Headers: map[string]string{"b": "2", "a": "1\r\n"}, Body: []byte("\x00{}"),
			Time: time.Date(2026, 11, 28, 12, 0, 0, 5000, time.FixedZone("", 3600)),
		},
		{ID: "2", Subject: "public.My Table", Body: make([]byte, 101)},
		{ID: "3", Subject: "taken"},
		{ID: "4"},
	}
	for range 2 {
		errs := sink.Deliver(t.Context(), messages)
		require.NoError(t, errs[0])
		require.ErrorContains(t, errs[1], "101 bytes, and MaxBytes is 100")
		require.True(t, sinks.IsPermanent(errs[1]))
		require.ErrorContains(t, errs[2], "taken by another type of value")
		require.False(t, sinks.IsPermanent(errs[2]), "it is accepted when the key is free")
		require.NoError(t, errs[3])
	}
	all := streamEntries(t, client, "delta:public.My Table")
	require.Len(t, all, 2, "one that comes again is there again, with the same id")
	for _, one := range all {
		require.Equal(t, map[string]any{
			"id": "1", "key": "k\n", "subject": "public.My Table", "type": "insert", "header:a": "1\r\n", "header:b": "2", "body": "\x00{}",
			"time": "2026-11-28T11:00:00.000005Z",
		}, one.Values)
	}
	require.Equal(t, map[string]any{"id": "4", "body": ""}, streamEntries(t, client, "delta")[0].Values)
}

func TestAStreamKeepsAboutMaxLen(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	startServer(t, t.TempDir(), port)
	client := newClient(t, port)
	sink, err := deltaredis.New(deltaredis.Config{Client: client, MaxLen: 100, Stream: func(m sinks.Message) string { return "of:" + m.Type }})
	require.NoError(t, err)
	for page := range 50 {
		var messages []sinks.Message
		for i := range 100 {
			messages = append(messages, sinks.Message{ID: fmt.Sprint(page*100 + i), Type: "new"})
		}
		require.NoError(t, sink.Deliver(t.Context(), messages)[99])
	}
	n, err := client.XLen(t.Context(), "of:new").Result()
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, int64(100))
	require.Less(t, n, int64(1000), "a node has a hundred entries")
}

// A sink waits for a killed server; afterwards the streams have each message, and those of a key in order.
func TestAServerThatGoesAwayLosesNothing(t *testing.T) {
	t.Parallel()
	folder, port := t.TempDir(), freePort(t)
	kill := startServer(t, folder, port)
	client := newClient(t, port)
	sink, err := deltaredis.New(deltaredis.Config{Client: client})
	require.NoError(t, err)
	sinktest.CheckOutage(t, 3000, sinks.Config{Sink: sink, BatchSize: 50, DeliveryTimeout: time.Minute}, func(relay *sinks.Relay) {
		require.Eventually(t, func() bool { return relay.Stats().Delivered >= 500 }, sinktest.Patience, time.Millisecond)
		kill()
		failed := relay.Stats().Failed
		require.Eventually(t, func() bool { return relay.Stats().Failed > failed }, sinktest.Patience, time.Millisecond)
		startServer(t, folder, port)
	}, func() (all []sinktest.Delivered) {
		seen := map[string]bool{}
		for _, entry := range streamEntries(t, client, "delta:number") {
			id, key := entry.Values["id"].(string), entry.Values["key"].(string)
			if !seen[id] { // otherwise its answer was lost and it was delivered again
				all = append(all, sinktest.Delivered{ID: id, Key: key})
			}
			seen[id] = true
		}
		return all
	})
}

func TestInvalidConfigsNameTheField(t *testing.T) {
	t.Parallel()
	client := newClient(t, "1")
	for field, config := range map[string]deltaredis.Config{
		"Client": {}, "MaxLen": {Client: client, MaxLen: -1}, "MaxBytes": {Client: client, MaxBytes: -1},
	} {
		_, err := deltaredis.New(config)
		var invalid *sinks.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
}
