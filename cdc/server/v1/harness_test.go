package v1_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	v1 "github.com/chariot-giving/delta/cdc/server/v1"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// server is a handler behind real HTTP, on its own database.
type server struct {
	*cdctest.Database
	t       *testing.T
	url     string
	log     *logBuffer
	handler *v1.Handler
	http    *httptest.Server
}

// logBuffer keeps the handler's log lines.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(data)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newServer starts a handler on a new database, after executing the statements.
func newServer(t *testing.T, statements []string, change ...func(*v1.Config)) *server {
	t.Helper()
	d := cdctest.New(t)
	d.Exec(statements...)
	return serveOn(t, d, change...)
}

// serveOn starts a handler on a database, as another process would.
func serveOn(t *testing.T, d *cdctest.Database, change ...func(*v1.Config)) *server {
	t.Helper()
	s := &server{Database: d, t: t, log: &logBuffer{}}
	config := v1.Config{
		Conn: d.Config(), Logger: slog.New(slog.NewTextHandler(s.log, nil)), RefreshInterval: 50 * time.Millisecond,
		Stream: cdc.Config{StatusInterval: 200 * time.Millisecond, Timeout: time.Minute, ShortestRetry: 10 * time.Millisecond, LongestRetry: 200 * time.Millisecond},
	}
	for _, c := range change {
		c(&config)
	}
	var err error
	s.handler, err = v1.New(config)
	require.NoError(t, err)
	s.http = httptest.NewServer(s.handler)
	s.url = s.http.URL
	t.Cleanup(s.close)
	return s
}

func (s *server) close() {
	s.handler.Close()
	s.http.Close()
}

// request sends a request, and returns the answer.
func (s *server) request(method, path, body string) (status int, answer string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), cdctest.Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	response, err := s.http.Client().Do(request)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, response.Body.Close()) }()
	data, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	require.Contains(s.t, response.Header.Get("Content-Type"), "application/json")
	require.True(s.t, json.Valid(data), "%s", data)
	return response.StatusCode, string(data)
}

// init creates a session, and returns its slot.
func (s *server) init() string {
	s.t.Helper()
	status, answer := s.request(http.MethodGet, "/v1/init", "")
	require.Equal(s.t, http.StatusOK, status, answer)
	require.Regexp(s.t, `^\{"slotName":"delta_[a-z]+[0-9]+"\}$`, answer)
	var made struct{ SlotName string }
	require.NoError(s.t, json.Unmarshal([]byte(answer), &made))
	return made.SlotName
}

// readSnapshot reads rows, and fails if it gets an error.
func (s *server) readSnapshot(body string) string {
	s.t.Helper()
	status, answer := s.request(http.MethodPost, "/v1/snapshot/data", body)
	require.Equal(s.t, http.StatusOK, status, answer)
	return answer
}

// requireSame requires the same bytes, not only the same JSON.
func requireSame(t *testing.T, expected, got string) {
	t.Helper()
	require.Equal(t, expected, got)
}

// client is a streaming client.
type client struct {
	t    *testing.T
	conn *websocket.Conn
}

func (s *server) streamURL(slot string) string {
	return "ws" + strings.TrimPrefix(s.url, "http") + "/v1/lr/stream?slotName=" + url.QueryEscape(slot)
}

// patience is how long the second client of a slot waits for the first to be gone, before it is refused.
const patience = time.Second

func (s *server) dialStream(slot string, change ...func(*websocket.DialOptions)) *client {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), cdctest.Patience)
	defer cancel()
	options := &websocket.DialOptions{}
	for _, c := range change {
		c(options)
	}
	begun := time.Now()
	conn, response, err := websocket.Dial(ctx, s.streamURL(slot), options)
	for err != nil && response != nil && response.StatusCode == http.StatusConflict && ctx.Err() == nil {
		// On a busy machine, the previous client may not have ended within the time that the server waits for it.
		require.GreaterOrEqual(s.t, time.Since(begun), patience, "the client was refused without a wait")
		begun = time.Now()
		conn, response, err = websocket.Dial(ctx, s.streamURL(slot), options)
	}
	if err != nil && response != nil {
		data, _ := io.ReadAll(response.Body)
		require.NoError(s.t, err, "%s", data)
	}
	require.NoError(s.t, err)
	conn.SetReadLimit(-1)
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	return &client{s.t, conn}
}

// dialRefused returns the answer to a client that is refused.
func (s *server) dialRefused(slot string) (status int, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), cdctest.Patience)
	defer cancel()
	_, response, err := websocket.Dial(ctx, s.streamURL(slot), nil)
	require.Error(s.t, err)
	require.NotNil(s.t, response, "%v", err)
	data, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	var problem struct{ Error string }
	require.NoError(s.t, json.Unmarshal(data, &problem), "%s", data)
	return response.StatusCode, problem.Error
}

// receiveText returns the next frame.
func (c *client) receiveText() string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), cdctest.Patience)
	defer cancel()
	kind, data, err := c.conn.Read(ctx)
	require.NoError(c.t, err)
	require.Equal(c.t, websocket.MessageText, kind)
	require.True(c.t, json.Valid(data), "%s", data)
	return string(data)
}

// receiveRows returns the changes of the next frame in short: kind, table and the first value.
func (c *client) receiveRows() (lsn string, rows []string) {
	c.t.Helper()
	text := c.receiveText()
	var frame struct {
		NextLSN string
		Error   string
		Change  []struct {
			Kind, Table  string
			ColumnValues []any
			OldKeys      struct{ KeyValues []any }
		}
	}
	require.NoError(c.t, json.Unmarshal([]byte(text), &frame), text)
	require.Empty(c.t, frame.Error)
	for _, change := range frame.Change {
		value := any("")
		if len(change.ColumnValues) > 0 {
			value = change.ColumnValues[0]
		} else if len(change.OldKeys.KeyValues) > 0 {
			value = change.OldKeys.KeyValues[0]
		}
		data, err := json.Marshal(value)
		require.NoError(c.t, err)
		rows = append(rows, change.Kind+" "+change.Table+" "+string(data))
	}
	return frame.NextLSN, rows
}

func (c *client) sendText(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), cdctest.Patience)
	defer cancel()
	require.NoError(c.t, c.conn.Write(ctx, websocket.MessageText, []byte(text)))
}

func (c *client) sendAck(lsn string) { c.t.Helper(); c.sendText(`{"lsn":"` + lsn + `"}`) }

// awaitEnd reads until the error frame and the close.
func (c *client) awaitEnd() (text string, code websocket.StatusCode) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), cdctest.Patience)
	defer cancel()
	for {
		_, data, err := c.conn.Read(ctx)
		if err != nil {
			return text, websocket.CloseStatus(err)
		}
		var problem struct{ Error string }
		require.NoError(c.t, json.Unmarshal(data, &problem), "%s", data)
		text = problem.Error
	}
}

// awaitBefore requires that a slot has not reached a position.
func (s *server) awaitBefore(slot, lsn string) {
	s.t.Helper()
	require.True(s.t, cdctest.Query[bool](s.Database, `SELECT confirmed_flush_lsn < $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1`, slot, lsn))
}

// eventually waits until a query returns true.
func (s *server) eventually(sql string, args ...any) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return cdctest.Query[bool](s.Database, sql, args...) }, cdctest.Patience, 20*time.Millisecond, sql)
}

func (s *server) awaitFree(slot string) {
	s.t.Helper()
	s.eventually(`SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1`, slot)
}
