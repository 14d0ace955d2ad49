//go:build unix

package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/testport"
	"github.com/chariot-giving/delta/messagedb"
)

// system is a receiving system that goes away.
type system struct {
	sink  string        // of the file
	start func() func() // starts it, and returns a function that stops it
	has   func() string // the key of the last message that it has, while it runs
	// isVolatile is set for a system that starts empty each time, which its clients would have to find out.
	isVolatile bool
}

func natsSystem(t *testing.T) system {
	port, folder := testport.Reserve(t), t.TempDir()
	address := "nats://127.0.0.1:" + strconv.Itoa(port)
	var stream jetstream.Stream
	start := func() func() {
		s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: folder, NoSigs: true, NoLog: true})
		require.NoError(t, err)
		s.Start()
		require.True(t, s.ReadyForConnections(patience))
		connection, err := nats.Connect(address, nats.Timeout(patience))
		require.NoError(t, err)
		js, err := jetstream.New(connection, jetstream.WithDefaultTimeout(patience))
		require.NoError(t, err)
		stream, err = js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "delta", Subjects: []string{"delta.>"}})
		require.NoError(t, err)
		return func() { connection.Close(); s.Shutdown(); s.WaitForShutdown() }
	}
	return system{`nats: {servers: ["` + address + `"]}`, start, func() string {
		info, err := stream.Info(context.Background())
		if err != nil || info.State.Msgs == 0 {
			return ""
		}
		m, err := stream.GetMsg(context.Background(), info.State.LastSeq)
		if err != nil {
			return ""
		}
		return m.Header.Get("Delta-Key")
	}, false}
}

// kafkaSystem is a broker in memory.
func kafkaSystem(t *testing.T) system {
	const topic = "shop.public.item"
	port := testport.Reserve(t)
	address := "127.0.0.1:" + strconv.Itoa(port)
	start := func() func() {
		cluster, err := kfake.NewCluster(kfake.Ports(port), kfake.SeedTopics(1, topic))
		require.NoError(t, err)
		return cluster.Close
	}
	return system{`kafka: {brokers: ["` + address + `"], topic_prefix: shop}`, start, func() (key string) {
		client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumeTopics(topic))
		require.NoError(t, err)
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, r := range client.PollFetches(ctx).Records() {
			key = string(r.Key)
		}
		return key
	}, true}
}

func redisSystem(t *testing.T) system {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server on PATH: install Debian's package redis-server")
	}
	port, folder := strconv.Itoa(testport.Reserve(t)), t.TempDir()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + port})
	t.Cleanup(func() { _ = client.Close() })
	start := func() func() {
		process := exec.Command(binary, "--bind", "127.0.0.1", "--port", port, "--dir", folder, "--save", "", "--appendonly", "yes", "--appendfsync", "always")
		require.NoError(t, process.Start())
		return func() { _ = process.Process.Kill(); _ = process.Wait() }
	}
	return system{`redis: {url: "redis://127.0.0.1:` + port + `/0", stream_prefix: shop, max_len: 1000}`, start, func() string {
		last, err := client.XRevRangeN(context.Background(), "shop:public.item", "+", "-", 1).Result()
		if err != nil || len(last) == 0 {
			return ""
		}
		return last[0].Values["key"].(string)
	}, false}
}

// messageDBSystem is a database that loses its message store for a while.
func messageDBSystem(t *testing.T) system {
	d := cdctest.New(t)
	c := d.Config()
	client, err := messagedb.NewClient(d.Pool, nil)
	require.NoError(t, err)
	require.NoError(t, messagedb.Migrate(t.Context(), d.Pool, ""))
	d.Exec("ALTER SCHEMA message_store RENAME TO away")
	start := func() func() {
		d.Exec("ALTER SCHEMA away RENAME TO message_store")
		return func() { d.Exec("ALTER SCHEMA message_store RENAME TO away") }
	}
	url := fmt.Sprintf("postgres://%s:%s@%s:%d/%s", c.User, c.Password, c.Host, c.Port, d.Name)
	return system{`messagedb: {database_url: "` + url + `", category: event}`, start, func() string {
		last, err := client.LastCategoryMessages(context.Background(), "event", 1, "")
		if err != nil || len(last) == 0 {
			return ""
		}
		id, _ := last[0].Stream.ID()
		return id
	}, false}
}

var failedAttempts = regexp.MustCompile(`delta_sink_failed_attempts_total\{relay="items"\} (\d+)`)

// A system that is away when the process starts, and again later, gets the changes of that time when it is back.
func TestASystemThatWasAwayGetsTheChanges(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(*testing.T) system{"nats": natsSystem, "kafka": kafkaSystem, "redis": redisSystem, "messagedb": messageDBSystem} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, target := newStream(t)
			s := of(t)
			p := startProcess(t, writeFile(t, `relays:
  - name: items
    source: {stream: {database_url: "`+target+`", slot: `+d.Name+`, publications: [items]}}
    sink: {`+s.sink+`}
    retry: {longest: 200ms, timeout: 3s}
`))
			failed := func() int {
				_, text := p.get("/metrics")
				found := failedAttempts.FindStringSubmatch(text)
				if found == nil {
					return 0
				}
				n, err := strconv.Atoi(found[1])
				require.NoError(t, err)
				return n
			}
			outages := 2
			if s.isVolatile {
				outages = 1
			}
			for row := range outages {
				before := failed()
				d.Exec(fmt.Sprintf("insert into item values (%d, 1)", row))
				awaitTrue(t, func() bool { return failed() > before })
				stop := s.start()
				awaitTrue(t, func() bool { return s.has() == fmt.Sprintf("public.item/%d", row) })
				stop()
			}
			code, log := p.endWith(syscall.SIGTERM)
			require.Equal(t, exitOK, code, log)
		})
	}
}
