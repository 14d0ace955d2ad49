//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
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
	"github.com/chariot-giving/delta/sinks"
)

// patience is how long a test waits for what must come: it costs nothing where all is well.
const patience = 3 * time.Minute

func until(t *testing.T, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 20*time.Millisecond)
}

// binary is this program, built.
var binary string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "delta-sink-test-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(folder, "delta-sink")
	build := []string{"build", "-o", binary}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		build = append(build, "-race") // as these tests are
	}
	if out, err := exec.Command("go", append(build, ".")...).CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// process is the program at work.
type process struct {
	*exec.Cmd
	t   *testing.T
	url string // of its figures
	log chan []byte
}

// begin runs a file, and waits until it serves its figures.
func begin(t *testing.T, file string, env ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(binary, "run", "-f", file, "--metrics", "127.0.0.1:0", "--log-format", "json"), t: t, log: make(chan []byte, 1)}
	p.Env = append(os.Environ(), env...)
	stderr, err := p.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill() })
	lines := bufio.NewScanner(stderr)
	for p.url == "" && lines.Scan() {
		var line struct{ Msg, URL string }
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line), lines.Text())
		p.url = line.URL
	}
	require.NotEmpty(t, p.url)
	go func() {
		var rest bytes.Buffer
		for lines.Scan() {
			rest.WriteString(lines.Text() + "\n")
		}
		p.log <- rest.Bytes()
	}()
	return p
}

// end sends a signal, and returns the exit code and what was logged meanwhile.
func (p *process) end(signal os.Signal) (code int, log string) {
	p.t.Helper()
	require.NoError(p.t, p.Process.Signal(signal))
	log = string(<-p.log)
	_ = p.Wait()
	return p.ProcessState.ExitCode(), log
}

func (p *process) get(path string) (status int, body string) {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, nil)
	require.NoError(p.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(p.t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(p.t, err)
	return response.StatusCode, string(text)
}

// history sees that each version of a key comes for the first time behind the one before. Those that came before may come again.
type history struct {
	mu         sync.Mutex
	last       map[string]int
	all, again int
	wrong      []string
}

func (h *history) add(key string, version int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		h.last = map[string]int{}
	}
	h.all++
	switch last := h.last[key]; {
	case version == last+1:
		h.last[key] = version
	case version <= last:
		h.again++
	default:
		h.wrong = append(h.wrong, fmt.Sprintf("%s: %d behind %d", key, version, last))
	}
}

func (h *history) count() int { h.mu.Lock(); defer h.mu.Unlock(); return h.all }

// hasBegun reports whether one of n keys has come beyond a version.
func (h *history) hasBegun(keys, version int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, last := range h.last {
		if last > version && len(h.last) == keys {
			return true
		}
	}
	return false
}

// isComplete reports whether each of n keys has come to its last version.
func (h *history) isComplete(keys, last int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for _, version := range h.last {
		if version == last {
			done++
		}
	}
	return done == keys
}

// newStream makes a database with a table, a publication and a slot, and returns its URL.
func newStream(t *testing.T) (d *cdctest.Database, target string) {
	t.Helper()
	d = cdctest.New(t)
	d.Exec(`create table item (id int primary key, n int)`)
	require.NoError(t, cdc.CreatePublication(t.Context(), d.Pool, cdc.Publication{Name: "items", AllTables: true}))
	_, err := cdc.CreateSlot(t.Context(), d.Pool, d.Name, cdc.SlotOptions{})
	require.NoError(t, err)
	return d, urlOf(d)
}

func urlOf(d *cdctest.Database) string {
	c := d.Config()
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: fmt.Sprintf("%s:%d", c.Host, c.Port), Path: d.Name}
	return u.String()
}

// The process is killed while rows change. Started again, it goes on: the receiver gets each version of each row, in their order.
func TestChangesOfATableReachAWebhookHoweverOftenTheProcessIsKilled(t *testing.T) {
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
		time.Sleep(2 * time.Millisecond) // so that the process is killed in the middle of something
		seen.add(fmt.Sprint(body.Key.ID), body.New.N)
	}))
	t.Cleanup(receiver.Close)
	file := write(t, `relays:
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
		p := begin(t, file)
		until(t, func() bool { return seen.hasBegun(keys, versions-block/2) })
		code, _ := p.end(syscall.SIGKILL)
		require.Equal(t, -1, code)
	}
	change()
	written := cdctest.Query[string](d, `select pg_current_wal_lsn()::text`)
	p := begin(t, file)
	until(t, func() bool { return seen.isComplete(keys, versions) })
	until(t, func() bool { status, _ := p.get("/readyz"); return status == http.StatusOK })
	until(t, func() bool {
		return cdctest.Query[bool](d, `select confirmed_flush_lsn >= $1::pg_lsn from pg_replication_slots where slot_name = $2`, written, d.Name)
	})
	code, log := p.end(syscall.SIGTERM)
	require.Equal(t, exitOK, code, log)
	require.Contains(t, log, `"msg":"stopped"`)
	require.Empty(t, seen.wrong)
	t.Logf("%d deliveries of %d messages, %d came again", seen.all, keys*versions, seen.again)

	// What was confirmed at the end does not come again.
	before := seen.count()
	d.Exec(`update item set n = n + 1 where id = 1`)
	p = begin(t, file)
	until(t, func() bool { seen.mu.Lock(); defer seen.mu.Unlock(); return seen.last["1"] == versions+1 })
	require.Equal(t, before+1, seen.count())
	code, _ = p.end(syscall.SIGTERM)
	require.Equal(t, exitOK, code)
}

// startNATS runs a server with JetStream, and a stream of what relays publish.
func startNATS(t *testing.T) (address string, stream jetstream.Stream) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(patience))
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	connection, err := nats.Connect(s.ClientURL())
	require.NoError(t, err)
	t.Cleanup(connection.Close)
	js, err := jetstream.New(connection)
	require.NoError(t, err)
	stream, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "delta", Subjects: []string{"delta.>"}})
	require.NoError(t, err)
	return s.ClientURL(), stream
}

// The same from the log of changes to NATS: the process that is started again has to wait until the claim of the one that was killed has expired.
func TestTheLogReachesNATSHoweverOftenTheProcessIsKilled(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	address, stream := startNATS(t)
	file := write(t, `relays:
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
		p := begin(t, file, "TEST_SINK_LOG="+env.DatabaseURL)
		until(t, func() bool { return count() > before+keys })
		code, _ := p.end(syscall.SIGKILL)
		require.Equal(t, -1, code)
	}
	change()
	p := begin(t, file, "TEST_SINK_LOG="+env.DatabaseURL)
	until(t, func() bool { return count() >= keys*versions })
	code, log := p.end(syscall.SIGTERM)
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

// One relay of a file does not wait for another one. What a receiver refuses goes to the file, or ends its relay.
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
	file := write(t, `relays:
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
	p := begin(t, file)
	kept := filepath.Join(filepath.Dir(file), "aside.jsonl")
	var lines []setAsideLine
	until(t, func() bool {
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
	until(t, func() bool {
		status, body := p.get("/healthz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, `"stops":"it has ended"`) && strings.Contains(body, `"waits":"its source is not open"`)
	})
	status, _ := p.get("/livez")
	require.Equal(t, http.StatusOK, status)
	until(t, func() bool {
		_, text := p.get("/metrics")
		return strings.Contains(text, "delta_sink_messages_total{relay=\"kept\",outcome=\"set_aside\"} 2\n") && strings.Contains(text, "delta_sink_running{relay=\"stops\"} 0\n")
	})

	// The slot that was missing is made, and its relay goes on by itself.
	_, err = cdc.CreateSlot(t.Context(), d.Pool, d.Name+"_c", cdc.SlotOptions{})
	require.NoError(t, err)
	d.Exec(`update item set n = 9 where id = 2`)
	until(t, func() bool {
		_, text := p.get("/metrics")
		return strings.Contains(text, "delta_sink_messages_total{relay=\"waits\",outcome=\"delivered\"} 1\n")
	})
	code, log := p.end(syscall.SIGTERM)
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
	p := begin(t, write(t, `relays:
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
	code, log := p.end(syscall.SIGTERM)
	require.Equal(t, exitOK, code, log)
}

func TestTheCommandSaysWhatIsWrong(t *testing.T) {
	t.Setenv("TEST_SINK_DATABASE", "postgres://u:hunter2@127.0.0.1:1/d")
	good := "relays:\n  - name: a\n    source: {log: {database_url: \"${TEST_SINK_DATABASE}\"}}\n    sink: {webhook: {url: http://127.0.0.1:1}}\n"
	right, wrong := write(t, good), write(t, strings.Replace(good, "url: http", "uri: http", 1))
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

func TestAMessageIsSetAsideBehindALineThatWasCutOff(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "aside.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(`{"at":"20`), 0o600))
	a := &setAsideFile{path: path, relay: "r"}
	require.NoError(t, a.appendMessage(t.Context(), sinks.Message{ID: "1", Body: []byte{0xff}}, io.ErrUnexpectedEOF))
	require.NoError(t, a.appendMessage(t.Context(), sinks.Message{ID: "2", Body: []byte(`{"a": 1}`)}, io.ErrUnexpectedEOF))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	require.Len(t, lines, 3)
	var first, second setAsideLine
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &first))
	require.NoError(t, json.Unmarshal([]byte(lines[2]), &second))
	require.Equal(t, "1", first.ID)
	require.Equal(t, []byte{0xff}, first.BodyBase64)
	require.JSONEq(t, `{"a": 1}`, string(second.Body))
}
