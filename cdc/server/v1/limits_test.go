package v1_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	v1 "github.com/chariot-giving/delta/cdc/server/v1"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestBadInputIsAnswered(t *testing.T) {
	t.Parallel()
	s := newServer(t, append(testTable, `create table "Mixed Case" ("Id" int primary key)`), func(c *v1.Config) { c.MaxRows, c.MaxBody = 10, 1000 })
	const data = "/v1/snapshot/data"
	status, answer := s.request(http.MethodPost, data, `not even JSON`)
	require.Equal(t, http.StatusServiceUnavailable, status)
	requireSame(t, `{"error":"snapshot not available: call /init to initialize a new slot and snapshot"}`, answer)
	slot := s.init()
	for _, c := range []struct {
		body   string
		status int
		text   string
	}{
		{``, 400, "invalid input JSON"},
		{`{`, 400, "invalid input JSON"},
		{`{"table": 5, "limit": 1}`, 400, "invalid input JSON"},
		{`{"table": "test_table", "offset": "0", "limit": 1}`, 400, "invalid input JSON"},
		{`{"table": "test_table", "offset": 1.5, "limit": 1}`, 400, "invalid input JSON"},
		{`{"table": "test_table", "offset": 0, "limit": 99999999999999999999}`, 400, "invalid input JSON"},
		{`{"table": "test_table", "limit": 1} {}`, 400, "invalid input JSON"},
		{`[]`, 400, "invalid input JSON"},
		{`{"limit": 1}`, 400, "invalid input JSON"},
		{`{"table": "test_table"}`, 400, "invalid input JSON"},
		{`{"table": "test_table", "offset": 0, "order_by": {"column": "id", "order": "ASC"}}`, 400, "invalid input JSON"},
		{`{"table": "test_table", "limit": 11}`, 400, "limit is 11: it must be from 0 to 10"},
		{`{"table": "test_table", "limit": -1}`, 400, "invalid input JSON"},
		{`{"table": "test_table", "offset": -1, "limit": 1}`, 400, "invalid input JSON"},
		{`{"table": "test_table", "limit": 1, "order_by": {}}`, 400, "required field 'column' missing in 'order_by'"},
		{`{"table": "test_table", "limit": 1, "order_by": {"column": "id"}}`, 400, "order_by order direction can only be either 'ASC' or 'DESC'"},
		{`{"table": "test_table", "limit": 1, "order_by": {"column": "id", "order": "UP"}}`, 400, "order_by order direction can only be either 'ASC' or 'DESC'"},
		{`{"table": "nothing", "limit": 1}`, 404, "unable to get snapshot data"},
		{`{"slotName": "delta_other1", "table": "test_table", "limit": 1}`, 503, "snapshot not available: call /init to initialize a new slot and snapshot"},
		{`{"table": "` + strings.Repeat("x", 2000) + `"}`, 413, "the body is larger than 1000 bytes"},
	} {
		status, answer := s.request(http.MethodPost, data, c.body)
		require.Equal(t, c.status, status, "%s: %s", c.body, answer)
		var problem struct{ Error string }
		require.NoError(t, json.Unmarshal([]byte(answer), &problem))
		require.Equal(t, c.text, problem.Error, c.body)
	}
	status, answer = s.request(http.MethodPost, data, `{"table": "test_table"}`)
	require.Equal(t, http.StatusBadRequest, status)
	requireSame(t, `{"error":"invalid input JSON","detail":"required field 'limit' missing"}`, answer)
	// Names can be written as in PGDeltaStream, as in SQL, and literally.
	for _, body := range []string{`"\"Mixed Case\""`, `"Mixed Case"`, `"public.Mixed Case"`, `"public.\"Mixed Case\""`, `"\"public\".\"Mixed Case\""`} {
		require.Equal(t, `[]`, s.readSnapshot(`{"table": `+body+`, "limit": 1, "order_by": {"column": "\"Id\"", "order": "asc"}}`))
	}
	require.Equal(t, `[]`, s.readSnapshot(`{"table": "TEST_TABLE", "limit": 0, "order_by": {"column": "ID", "order": "asc"}, "more": true}`))

	status, answer = s.request(http.MethodGet, "/v1/lr/stream", "")
	require.Equal(t, http.StatusBadRequest, status)
	requireSame(t, `{"error":"no slotName provided"}`, answer)
	status, answer = s.request(http.MethodGet, "/v1/lr/stream?slotName="+slot, "")
	require.Equal(t, http.StatusBadRequest, status)
	requireSame(t, `{"error":"could not upgrade to websocket connection"}`, answer)
	for _, headers := range []string{"Upgrade: websocket\r\nConnection: upgrade\r\n", "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 5\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"} {
		status, answer = s.requestRaw("GET /v1/lr/stream?slotName=" + slot + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n")
		require.Equal(t, http.StatusBadRequest, status)
		requireSame(t, `{"error":"could not upgrade to websocket connection"}`, answer)
	}
	s.awaitFree(slot)
}

// requestRaw sends bytes, and reads one answer.
func (s *server) requestRaw(text string) (status int, answer string) {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, conn.Close()) }()
	require.NoError(s.t, conn.SetDeadline(time.Now().Add(cdctest.Patience)))
	_, err = conn.Write([]byte(text))
	require.NoError(s.t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, response.Body.Close()) }()
	var raw json.RawMessage
	require.NoError(s.t, json.NewDecoder(response.Body).Decode(&raw))
	return response.StatusCode, string(raw)
}

func TestBadConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	conn := cdctest.New(t).Config()
	for field, config := range map[cdc.Field]v1.Config{
		"Conn":         {},
		"Installation": {Conn: conn, Installation: "Bad Name"},
		"Tables":       {Conn: conn, Tables: []string{"["}},
		"Origins":      {Conn: conn, Origins: []string{"["}},
		"MaxRows":      {Conn: conn, MaxRows: -1},
		"MaxBody":      {Conn: conn, MaxBody: -1},
		"Refresh":      {Conn: conn, RefreshInterval: -1},
		"PingInterval": {Conn: conn, PingInterval: -1},
		"PingTimeout":  {Conn: conn, PingTimeout: -1},
	} {
		_, err := v1.New(config)
		var invalid *cdc.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
}

func TestPagesOfOtherHostsAreRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable, func(c *v1.Config) { c.Origins = []string{"*.example.com", "https://exact.test"} })
	slot := s.init()
	for origin, allowed := range map[string]bool{
		"https://evil.example": false, "https://app.example.com": true, "https://example.com.evil": false, "https://exact.test": true, "http://exact.test": false, "null": false, "%": false, s.url: true,
	} {
		conn, response, err := websocket.Dial(t.Context(), s.streamURL(slot), &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
		if allowed {
			require.NoError(t, err, origin)
			require.NoError(t, conn.CloseNow())
		} else {
			require.Error(t, err, origin)
			require.Equal(t, http.StatusForbidden, response.StatusCode)
		}
		s.awaitFree(slot)
	}
	// They cannot reset the session either, such as with an image, for which browsers send no origin.
	for header, values := range map[string][]string{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site", "same-site"}} {
		for _, value := range values {
			status, _ := s.requestRaw("GET /v1/init HTTP/1.1\r\nHost: x\r\n" + header + ": " + value + "\r\n\r\n")
			require.Equal(t, http.StatusForbidden, status)
		}
	}
	s.dialStream(slot)
}

func TestANewInitReplacesThePreviousOne(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	first := s.init()
	c := s.dialStream(first)
	second := s.init()
	text, code := c.awaitEnd()
	require.Equal(t, "a new init has replaced this session", text)
	require.Equal(t, websocket.StatusGoingAway, code)
	status, _ := s.dialRefused(first)
	require.Equal(t, http.StatusNotFound, status)

	// Also if another process streams.
	c = s.dialStream(second)
	other := serveOn(t, s.Database)
	third := other.init()
	text, _ = c.awaitEnd()
	require.Contains(t, text, "resync needed")
	status, _ = s.request(http.MethodPost, "/v1/snapshot/data", `{"slotName": "`+third+`", "table": "test_table", "limit": 1}`)
	require.Equal(t, http.StatusServiceUnavailable, status, "the snapshot is the other's")
	s.Exec(`insert into test_table values (100, 'a')`)
	_, rows := s.dialStream(third).receiveRows()
	require.Equal(t, []string{"insert test_table 100"}, rows, "the slot is of the installation, not of a process")
}

func TestAnInitDoesNotWaitForSnapshotReaders(t *testing.T) {
	t.Parallel()
	s := newServer(t, []string{`create table t (id int primary key, v text)`, `insert into t select i, repeat('x', 1000) from generate_series(1, 50000) i`})
	s.handler.SetWriteTimeout(24 * time.Hour) // so that an init that waits for them would wait for ever
	s.init()
	// More clients than connections; they request 50 MB and read nothing.
	for range 5 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		body := `{"table": "t", "offset": 0, "limit": 50000}`
		_, err = fmt.Fprintf(conn, "POST /v1/snapshot/data HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		require.NoError(t, err)
	}
	s.eventually(`SELECT count(*) >= 4 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT "id"%' AND wait_event = 'ClientWrite'`)
	s.init()
	require.True(t, strings.HasPrefix(s.readSnapshot(`{"table": "t", "offset": 49999, "limit": 5}`), `[{"id":50000,`))
}

func TestAnInitDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	// An init that waits for the client would wait for ever, because no ping ends the stream.
	s := newServer(t, []string{`create table t (id int primary key, v text)`}, func(c *v1.Config) { c.PingInterval = 24 * time.Hour })
	slot := s.init()
	s.dialStream(slot)
	s.Exec(`insert into t select i, repeat('x', 1000) from generate_series(1, 50000) i`)
	end := cdctest.Query[string](s.Database, `SELECT pg_current_wal_insert_lsn()::text`) // other tests write to the server
	s.eventually(`SELECT coalesce(bool_or(sent_lsn >= $2::text::pg_lsn), false) FROM pg_stat_replication r
		JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE slot_name = $1`, slot, end)
	require.NotEqual(t, slot, s.init())
}

func TestIdleSnapshotsAreClosed(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable, func(c *v1.Config) { c.SnapshotIdle = 300 * time.Millisecond })
	slot := s.init()
	var answer string
	require.Eventually(t, func() bool {
		var status int
		time.Sleep(400 * time.Millisecond) // each read keeps it
		status, answer = s.request(http.MethodPost, "/v1/snapshot/data", `{"table": "test_table", "limit": 1}`)
		return status == http.StatusServiceUnavailable
	}, cdctest.Patience, time.Millisecond)
	require.Contains(t, answer, "snapshot not available")
	s.eventually(`SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND (backend_xmin IS NOT NULL OR state LIKE 'idle in%') AND pid <> pg_backend_pid())`)
	s.Exec(`insert into test_table values (100, 'a')`)
	_, rows := s.dialStream(slot).receiveRows()
	require.Equal(t, []string{"insert test_table 100"}, rows, "the slot stays")
}

func TestASnapshotWithALostConnectionIsGone(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	s.init()
	s.readSnapshot(`{"table": "test_table", "limit": 1}`)
	s.Exec(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and application_name <> 'x' and (backend_type = 'walsender' or state like 'idle in%')`)
	require.Eventually(t, func() bool {
		status, answer := s.request(http.MethodPost, "/v1/snapshot/data", `{"table": "test_table", "limit": 1}`)
		return status == http.StatusServiceUnavailable && strings.Contains(answer, "snapshot not available")
	}, cdctest.Patience, 20*time.Millisecond)
	s.init()
	s.readSnapshot(`{"table": "test_table", "limit": 1}`)
}

func TestAClientThatDoesNotAnswerPingsIsDisconnected(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable, func(c *v1.Config) { c.PingInterval, c.PingTimeout = 100*time.Millisecond, cdctest.Patience })
	slot := s.init()
	// A client that reads answers pings and stays connected: a ping is sent when the previous one was answered.
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	pings := 0
	c := s.dialStream(slot, func(o *websocket.DialOptions) {
		o.OnPingReceived = func(context.Context, []byte) bool {
			if pings++; pings == 5 {
				cancel()
			}
			return true
		}
	})
	_, _, err := c.conn.Read(ctx)
	require.Error(t, err)
	require.Equal(t, 5, pings, "it was not closed before: %v", err)
	_ = c.conn.CloseNow()
	s.awaitFree(slot)
	s.close()
	// A client that opens its websocket and then does nothing is disconnected, as after a network failure.
	strict := serveOn(t, s.Database, func(c *v1.Config) { c.PingInterval, c.PingTimeout = 100*time.Millisecond, 100*time.Millisecond })
	strict.dialStream(slot)
	strict.awaitFree(slot)
}

// Messages that a client does not read stay at the server, within limits, until it reads. Not parallel, because it measures memory.
func TestAClientThatDoesNotReadIsWaitedForWithinLimits(t *testing.T) {
	soak.Long(t)
	const transactions, size = 200, 200_000
	s := newServer(t, []string{`create table t (id int primary key, v text)`}, func(c *v1.Config) {
		c.Stream.MemoryLimit, c.Stream.SpillLimit = 1<<20, -1
		c.PingInterval = time.Hour // a client that does not read answers no ping
	})
	slot := s.init()
	c := s.dialStream(slot)
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	for i := range transactions {
		s.Exec(fmt.Sprintf(`insert into t values (%d, repeat('x', %d))`, i, size))
	}
	sent := func() string {
		return cdctest.Query[string](s.Database, `SELECT sent_lsn::text FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE slot_name = $1`, slot)
	}
	last := ""
	require.Eventually(t, func() bool { now := sent(); same := now == last; last = now; return same }, cdctest.Patience, 500*time.Millisecond, "the server is held back")
	after := heap()
	require.Less(t, after, before+20<<20, "of %d bytes", transactions*size)
	t.Logf("%d bytes wait, and %d of memory are in use", transactions*size, int64(after)-int64(before))
	for i := range transactions {
		_, rows := c.receiveRows()
		require.Equal(t, []string{fmt.Sprintf("insert t %d", i)}, rows)
	}
}

func TestALargeTransactionIsOneFrame(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	s := newServer(t, []string{`create table t (id int primary key, v text)`}, func(c *v1.Config) { c.Stream.MemoryLimit = 1 << 20 })
	slot := s.init()
	c := s.dialStream(slot)
	const rows = 30_000
	s.Exec(fmt.Sprintf(`insert into t select i, repeat('x', 50) from generate_series(1, %d) i`, rows))
	lsn, got := c.receiveRows()
	require.Len(t, got, rows)
	require.Equal(t, fmt.Sprintf("insert t %d", rows), got[rows-1])
	c.sendAck(lsn)
	s.eventually(`SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1`, slot, lsn)
}

func TestNothingIsServedAfterClose(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	s.init()
	s.handler.Close()
	status, _ := s.request(http.MethodGet, "/v1/init", "")
	require.Equal(t, http.StatusServiceUnavailable, status)
	s.handler.Close()
}

func TestAnUnreachableDatabaseIsAnError(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil, func(c *v1.Config) { c.Conn.Host, c.Conn.Port, c.Conn.Fallbacks = "127.0.0.1", 1, nil })
	status, answer := s.request(http.MethodGet, "/v1/init", "")
	require.Equal(t, http.StatusInternalServerError, status)
	requireSame(t, `{"error":"unable to init session"}`, answer)
	status, text := s.dialRefused("delta_x1")
	require.Equal(t, http.StatusInternalServerError, status)
	require.Equal(t, "could not create stream", text)
}
