package server_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDatabase) != "" {
		serveUntilKilled()
	}
	cdctest.Main(m)
}

// harness is a server on its own database.
type harness struct {
	*cdctest.Database
	t      testing.TB
	s      string // a name for a slot that no other test of the Postgres server uses
	url    string
	listen string
	stop   func()
	log    *logBuffer
	http   *http.Client
}

// logBuffer keeps log lines.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newHarness(t testing.TB, change func(*server.Config)) *harness {
	t.Helper()
	h := &harness{Database: cdctest.New(t), t: t}
	h.s = h.Name
	h.startServer(change)
	return h
}

// startServer runs a server on the database, as after a restart.
func (h *harness) startServer(change func(*server.Config)) {
	h.t.Helper()
	h.startWith(h.Config(), change)
}

func (h *harness) startWith(conn *pgx.ConnConfig, change func(*server.Config)) {
	h.t.Helper()
	h.log = &logBuffer{}
	config := server.Config{
		Conn: conn, HeartbeatInterval: 200 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(h.log, nil)),
		Stream: cdc.Config{StatusInterval: 100 * time.Millisecond, Timeout: time.Minute},
		// A new slot waits for all transactions of the Postgres server, which all tests share.
		CreateTimeout: cdctest.Patience,
	}
	if change != nil {
		change(&config)
	}
	s, err := server.New(h.t.Context(), config)
	require.NoError(h.t, err)
	listener, err := net.Listen("tcp", cmp.Or(h.listen, "127.0.0.1:0"))
	require.NoError(h.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, listener) }()
	transport := &http.Transport{}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	h.url, h.http = "http://127.0.0.1:"+port, &http.Client{Transport: transport}
	var once sync.Once
	h.stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(h.t, <-done)
			s.Close()
			transport.CloseIdleConnections()
		})
	}
	h.t.Cleanup(h.stop)
}

// answer is the answer to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// code returns the code of an error.
func (a answer) code() string {
	var p struct{ Code, Error string }
	if json.Unmarshal([]byte(a.body), &p) != nil || p.Error == "" {
		return "no error: " + a.body
	}
	return p.Code
}

func (h *harness) request(method, path, body string, headers ...string) answer {
	h.t.Helper()
	request, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, strings.NewReader(body))
	require.NoError(h.t, err)
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := h.http.Do(request)
	require.NoError(h.t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(h.t, err)
	return answer{response.StatusCode, response.Header, string(text)}
}

func decodeJSON[T any](t testing.TB, text string) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &v), text)
	return v
}

// slot is the answer to POST /v2/slots.
type slot struct {
	Name, LSN, Resume string
	Tables            []string
	Snapshot          bool
}

func (h *harness) createSlot(name, body string) slot {
	h.t.Helper()
	a := h.request("POST", "/v2/slots", `{"name":"`+name+`",`+body+`}`)
	require.Equal(h.t, http.StatusCreated, a.status, a.body)
	return decodeJSON[slot](h.t, a.body)
}

// message is a message of a stream.
type message struct {
	Type, LSN, Resume, Acknowledged, Code, Error string
	XID                                          uint32
	Part                                         int
	Final                                        bool
	CommitTime                                   time.Time `json:"commit_time"`
	Changes                                      []change
	Tables                                       []table
	Value, Chunk                                 int
	Text                                         string
	bytes                                        int // of the whole message
	Table                                        string
	Added, Unpublished                           []string
}

type change struct {
	Kind, Schema, Table, LSN string
	Key, New, Old            map[string]any
	Unchanged                []string
	Chunked                  []struct {
		Row, Column string
		Value       int
	}
	Cascade         bool
	Prefix, Content string
}

type table struct {
	Schema, Table string
	Columns       []struct {
		Name, Type string
		Key        bool
	}
}

// client is a plain websocket client.
type client struct {
	h    *harness
	conn *websocket.Conn
}

func (h *harness) dialStream(path string, headers ...string) *client {
	h.t.Helper()
	header := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		header.Set(headers[i], headers[i+1])
	}
	for end := time.Now().Add(cdctest.Patience); ; time.Sleep(20 * time.Millisecond) {
		conn, response, err := websocket.Dial(h.t.Context(), "ws"+strings.TrimPrefix(h.url, "http")+path, &websocket.DialOptions{HTTPHeader: header, HTTPClient: h.http})
		if err == nil {
			conn.SetReadLimit(64 << 20)
			h.t.Cleanup(func() { _ = conn.CloseNow() })
			return &client{h, conn}
		}
		require.NotNil(h.t, response, err)
		// The server may not have noticed yet that the previous client is gone.
		if response.StatusCode != http.StatusConflict || time.Now().After(end) {
			text, _ := io.ReadAll(response.Body)
			require.NoError(h.t, err, "%s", text)
		}
	}
}

// readMessage returns the next message that is not a position.
func (c *client) readMessage() message {
	c.h.t.Helper()
	for {
		m, err := c.readAny()
		require.NoError(c.h.t, err)
		if m.Type != "position" {
			return m
		}
	}
}

func (c *client) readAny() (message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cdctest.Patience)
	defer cancel()
	_, data, err := c.conn.Read(ctx)
	if err != nil {
		return message{}, err
	}
	m := decodeJSON[message](c.h.t, string(data))
	m.bytes = len(data)
	return m, nil
}

func (c *client) sendText(text string) {
	c.h.t.Helper()
	require.NoError(c.h.t, c.conn.Write(context.Background(), websocket.MessageText, []byte(text)))
}

func (c *client) sendAck(lsn string) { c.h.t.Helper(); c.sendText(`{"lsn":"` + lsn + `"}`) }

// expectClose reads the error, and the close that follows.
func (c *client) expectClose(code string) websocket.StatusCode {
	c.h.t.Helper()
	m := c.readMessage()
	require.Equal(c.h.t, "error", m.Type)
	require.Equal(c.h.t, code, m.Code, m.Error)
	_, err := c.readAny()
	return websocket.CloseStatus(err)
}

// awaitConfirmed waits until Postgres has a position as the confirmed one of a slot.
func (h *harness) awaitConfirmed(slot, lsn string) {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		return cdctest.Query[bool](h.Database, `select confirmed_flush_lsn >= $2::text::pg_lsn from pg_replication_slots where slot_name = $1`, slot, lsn)
	}, cdctest.Patience, 20*time.Millisecond)
}

// awaitFree waits until neither Postgres nor the server has a reader of a slot.
func (h *harness) awaitFree(slot string) {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		return !cdctest.Query[bool](h.Database, `select active from pg_replication_slots where slot_name = $1`, slot) &&
			h.request("POST", "/v2/slots/"+slot+"/ack", `{"lsn":"0/1"}`).code() == "not_streaming"
	}, cdctest.Patience, 20*time.Millisecond)
}
