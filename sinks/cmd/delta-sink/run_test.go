//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// The process is killed while rows change, and started again: the receiver gets each version of each row, in their order.
func TestAWebhookGetsEachChangeDespiteKills(t *testing.T) {
	t.Parallel()
	d, target := newStream(t)
	seen := &history{}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Key struct{ ID int }
			New struct{ N int }
		}
		if r.Header.Get("Webhook-Signature") == "" || json.NewDecoder(r.Body).Decode(&body) != nil {
			panic(http.ErrAbortHandler)
		}
		time.Sleep(2 * time.Millisecond) // so that the process is killed during deliveries
		seen.add(fmt.Sprint(body.Key.ID), body.New.N)
	}))
	t.Cleanup(receiver.Close)
	file := writeFile(t, `relays:
  - name: items
    source: {stream: {database_url: "`+target+`", slot: `+d.Name+`, publications: [items]}}
    sink: {webhook: {url: "`+receiver.URL+`", secrets: [{file: SECRETFILE}]}}
    filter: {tables: [public.item], types: [insert, update]}
    limits: {batch_size: 10, confirm_interval: 50ms}
`)
	const keys, block, kills = 20, 20, 3
	d.Exec(fmt.Sprintf(`insert into item select i, 1 from generate_series(1, %d) i`, keys))
	versions := 1
	change := func() {
		for range block {
			d.Exec(`update item set n = n + 1`)
			versions++
		}
	}
	for range kills {
		change()
		p := startProcess(t, file)
		awaitTrue(t, func() bool { return seen.hasBegun(keys, versions-block/2) })
		code, _ := p.endWith(syscall.SIGKILL)
		require.Equal(t, -1, code)
	}
	change()
	written := cdctest.Query[string](d, `select pg_current_wal_lsn()::text`)
	p := startProcess(t, file)
	awaitTrue(t, func() bool { return seen.isComplete(keys, versions) })
	awaitTrue(t, func() bool { status, _ := p.get("/readyz"); return status == http.StatusOK })
	awaitTrue(t, func() bool {
		return cdctest.Query[bool](d, `select confirmed_flush_lsn >= $1::pg_lsn from pg_replication_slots where slot_name = $2`, written, d.Name)
	})
	code, log := p.endWith(syscall.SIGTERM)
	require.Equal(t, exitOK, code, log)
	require.Contains(t, log, `"msg":"stopped"`)
	require.Empty(t, seen.wrong)
	t.Logf("%d deliveries of %d messages, %d came again", seen.all, keys*versions, seen.again)

	// Confirmed messages do not come again.
	before := seen.count()
	d.Exec(`update item set n = n + 1 where id = 1`)
	p = startProcess(t, file)
	awaitTrue(t, func() bool { seen.mu.Lock(); defer seen.mu.Unlock(); return seen.last["1"] == versions+1 })
	require.Equal(t, before+1, seen.count())
	code, _ = p.endWith(syscall.SIGTERM)
	require.Equal(t, exitOK, code)
}

// startNATS runs a server with JetStream, and creates a stream for the relays' subjects.
func startNATS(t *testing.T) (address string, stream jetstream.Stream) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(patience))
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	connection, err := nats.Connect(s.ClientURL(), nats.Timeout(patience))
	require.NoError(t, err)
	t.Cleanup(connection.Close)
	js, err := jetstream.New(connection, jetstream.WithDefaultTimeout(patience))
	require.NoError(t, err)
	stream, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "delta", Subjects: []string{"delta.>"}})
	require.NoError(t, err)
	return s.ClientURL(), stream
}

// The same from the log of changes to NATS. A process that is started again must wait until the claim of the killed one expires.
func TestNATSGetsTheLogDespiteKills(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	address, stream := startNATS(t)
	file := writeFile(t, `relays:
  - name: bills
    source: {log: {database_url: "${TEST_SINK_LOG}"}}
    sink: {nats: {servers: ["`+address+`"]}}
    filter: {kinds: [bill], namespaces: [default]}
    limits: {batch_size: 10, confirm_interval: 50ms}
`)
	const keys, block, kills = 10, 30, 2
	versions := 0
	change := func() {
		for range block {
			versions++
			for _, namespace := range []string{"default", "other"} {
				_, err := env.Pool.Exec(t.Context(), `SELECT delta_append_change('updated', delta_order_xid(NULL), i, 'bill', $2::text || i, $2, $1, 1, NULL, '{}',
					NULL, NULL) FROM generate_series(1, $3::int) i`, versions, namespace, keys)
				require.NoError(t, err)
			}
		}
	}
	count := func() int {
		info, err := stream.Info(context.Background())
		require.NoError(t, err)
		return int(info.State.Msgs)
	}
	for range kills {
		before := count()
		change()
		p := startProcess(t, file, "TEST_SINK_LOG="+env.DatabaseURL)
		awaitTrue(t, func() bool { return count() > before+keys })
		code, _ := p.endWith(syscall.SIGKILL)
		require.Equal(t, -1, code)
	}
	change()
	p := startProcess(t, file, "TEST_SINK_LOG="+env.DatabaseURL)
	awaitTrue(t, func() bool { return count() >= keys*versions })
	code, log := p.endWith(syscall.SIGTERM)
	require.Equal(t, exitOK, code, log)
	seen := &history{}
	for i := range uint64(count()) {
		m, err := stream.GetMsg(t.Context(), i+1)
		require.NoError(t, err)
		require.Equal(t, "delta.bill.updated", m.Subject)
		var entry struct {
			ObjectID   string `json:"object_id"`
			Generation int
		}
		require.NoError(t, json.Unmarshal(m.Data, &entry))
		seen.add(entry.ObjectID, entry.Generation)
	}
	require.Empty(t, seen.wrong)
	require.True(t, seen.isComplete(keys, versions))
	require.Len(t, seen.last, keys, "the filter chooses a namespace")
}

// A relay of a file does not wait for another one. A message that a receiver refuses is set aside in the file, or ends its relay.
func TestRelaysOfAFileDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	d, target := newStream(t)
	d.Exec(`insert into item values (1, 1), (2, 2)`)
	other := d.Name + "_b"
	_, err := cdc.CreateSlot(t.Context(), d.Pool, other, cdc.SlotOptions{})
	require.NoError(t, err)
	d.Exec(`insert into item values (3, 3)`)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Delta-Key") == "public.item/1" || r.Header.Get("Delta-Key") == "public.item/3" {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}))
	t.Cleanup(receiver.Close)
	file := writeFile(t, `relays:
  - name: kept
    source: {stream: {database_url: "`+target+`", slot: `+d.Name+`, publications: [items]}}
    sink: {webhook: {url: "`+receiver.URL+`"}}
    undeliverable: {policy: set_aside, file: ASIDEFILE}
  - name: stops
    source: {stream: {database_url: "`+target+`", slot: `+other+`, publications: [items]}}
    sink: {webhook: {url: "`+receiver.URL+`"}}
    undeliverable: {policy: stop}
  - name: waits
    source: {stream: {database_url: "`+target+`", slot: `+d.Name+`_c, publications: [items]}}
    sink: {webhook: {url: "`+receiver.URL+`"}}
`)
	p := startProcess(t, file)
	kept := filepath.Join(filepath.Dir(file), "aside.jsonl")
	var lines []setAsideLine
	awaitTrue(t, func() bool {
		text, _ := os.ReadFile(kept)
		lines = nil
		for line := range strings.Lines(string(text)) {
			var one setAsideLine
			if json.Unmarshal([]byte(line), &one) != nil {
				return false // it is being written
			}
			lines = append(lines, one)
		}
		return len(lines) == 2
	})
	var keys []string
	for _, line := range lines {
		keys = append(keys, line.Key)
		require.Equal(t, "kept", line.Relay)
		require.Contains(t, line.Reason, "422")
		require.True(t, strings.HasPrefix(line.ID, d.Name+":"), line.ID)
		require.Contains(t, string(line.Body), `"kind":"insert"`)
	}
	require.ElementsMatch(t, []string{"public.item/1", "public.item/3"}, keys)
	awaitTrue(t, func() bool {
		status, body := p.get("/healthz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, `"stops":"it has ended"`) && strings.Contains(body, `"waits":"its source is not open"`)
	})
	status, _ := p.get("/livez")
	require.Equal(t, http.StatusOK, status)
	awaitTrue(t, func() bool {
		_, text := p.get("/metrics")
		return strings.Contains(text, "delta_sink_messages_total{relay=\"kept\",outcome=\"set_aside\"} 2\n") && strings.Contains(text, "delta_sink_running{relay=\"stops\"} 0\n")
	})

	// When the missing slot is created, its relay starts by itself.
	_, err = cdc.CreateSlot(t.Context(), d.Pool, d.Name+"_c", cdc.SlotOptions{})
	require.NoError(t, err)
	d.Exec(`update item set n = 9 where id = 2`)
	awaitTrue(t, func() bool {
		_, text := p.get("/metrics")
		return strings.Contains(text, "delta_sink_messages_total{relay=\"waits\",outcome=\"delivered\"} 1\n")
	})
	code, log := p.endWith(syscall.SIGTERM)
	require.Equal(t, exitFailure, code, "a relay has ended by itself")
	require.Contains(t, log, "relays have ended by themselves: stops")
}

func TestMessagesReachKafka(t *testing.T) {
	t.Parallel()
	d, target := newStream(t)
	d.Exec(`insert into item values (1, 1)`)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "shop.public.item"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	p := startProcess(t, writeFile(t, `relays:
  - name: items
    source: {stream: {database_url: "`+target+`", slot: `+d.Name+`, publications: [items]}}
    sink: {kafka: {brokers: ["`+cluster.ListenAddrs()[0]+`"], topic_prefix: shop}}
`))
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("shop.public.item"))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fetches := client.PollFetches(ctx)
	require.NoError(t, fetches.Err())
	require.Equal(t, "public.item/1", string(fetches.Records()[0].Key))
	code, log := p.endWith(syscall.SIGTERM)
	require.Equal(t, exitOK, code, log)
}

func TestExitCodesAndErrors(t *testing.T) {
	t.Setenv("TEST_SINK_DATABASE", "postgres://u:hunter2@127.0.0.1:1/d")
	good := "relays:\n  - name: a\n    source: {log: {database_url: \"${TEST_SINK_DATABASE}\"}}\n    sink: {webhook: {url: http://127.0.0.1:1}}\n"
	right, wrong := writeFile(t, good), writeFile(t, strings.Replace(good, "url: http", "uri: http", 1))
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"right":      {[]string{"check", "-f", right}, exitOK, "a: log → webhook\n"},
		"wrong":      {[]string{"check", "-f", wrong}, exitUsage, wrong + ":4: relays[0].sink.webhook.uri: is unknown: there are url, secrets, headers, concurrency\n"},
		"run wrong":  {[]string{"run", "-f", wrong}, exitUsage, wrong + ":4: relays[0].sink.webhook.uri: is unknown"},
		"no file":    {[]string{"check", "-f", right + "x"}, exitUsage, "no such file"},
		"no flag":    {[]string{"run"}, exitUsage, `required flag(s) "file" not set`},
		"log format": {[]string{"run", "-f", right, "--log-format", "xml"}, exitUsage, "--log-format"},
		"address":    {[]string{"run", "-f", right, "--metrics", "9464"}, exitUsage, "--metrics"},
		"command":    {[]string{"sideways"}, exitUsage, "unknown command"},
		"help":       {[]string{"--help"}, exitOK, "delta-sink"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, c.code, execute(t.Context(), c.args, &stdout, &stderr), stderr.String())
			require.Contains(t, stdout.String()+stderr.String(), c.says)
		})
	}
}
