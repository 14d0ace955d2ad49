package server_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// event is an event of Server-Sent Events.
type event struct {
	kind, id string
	message
}

// followEvents reads events until the test ends, or stop is called.
func (h *harness) followEvents(path string, headers ...string) (next func() event, stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, "GET", h.url+path, nil)
	require.NoError(h.t, err)
	request.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := h.http.Do(request)
	require.NoError(h.t, err)
	require.Equal(h.t, http.StatusOK, response.StatusCode)
	require.Equal(h.t, "text/event-stream", response.Header.Get("Content-Type"))
	stop = func() { cancel(); _ = response.Body.Close() }
	h.t.Cleanup(stop)
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 16<<20)
	return func() (e event) {
		h.t.Helper()
		timer := time.AfterFunc(cdctest.Patience, cancel)
		defer timer.Stop()
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				e.kind = value
			case "id":
				e.id = value
			case "data":
				e.message = decodeJSON[message](h.t, value)
				require.Equal(h.t, e.kind, e.Type)
			case "":
				return e
			}
		}
		require.NoError(h.t, lines.Err())
		h.t.Fatal("the events have ended")
		return e
	}, stop
}

// onlyChanges skips positions.
func onlyChanges(next func() event) func() event {
	return func() event {
		for {
			if e := next(); e.kind != "position" {
				return e
			}
		}
	}
}

func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	path := "/v2/slots/" + h.s
	require.Equal(t, "not_streaming", h.request("POST", path+"/ack", `{"lsn":"0/1"}`).code())
	all, stop := h.followEvents(path + "/stream")
	next := onlyChanges(all)
	h.Exec(`insert into account (id) values (1)`, `insert into account (id) values (2)`)
	one, two := next(), next()
	require.Equal(t, one.Resume, one.id)
	for body, code := range map[string]string{
		`{"lsn":"FF/0"}`: "bad_ack", `{"lsn":"x"}`: "bad_ack", `{}`: "bad_ack", `{"x":1}`: "invalid", `[`: "invalid", `{"lsn":"0/1"} {}`: "invalid",
	} {
		a := h.request("POST", path+"/ack", body)
		require.Equal(t, http.StatusBadRequest, a.status, body)
		require.Equal(t, code, a.code(), body)
	}
	a := h.request("POST", path+"/ack", `{"lsn":"`+one.LSN+`"}`)
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.JSONEq(t, `{"acknowledged":"`+one.LSN+`"}`, a.body)
	h.awaitConfirmed(h.s, one.LSN)
	stop()
	h.awaitFree(h.s)

	// The header that a browser sends when it reconnects.
	all, stop = h.followEvents(path+"/stream", "Last-Event-ID", two.id)
	h.Exec(`insert into account (id) values (3)`)
	require.EqualValues(t, 3, onlyChanges(all)().Changes[0].New["id"])
	h.awaitConfirmed(h.s, two.LSN)
	stop()
	h.awaitFree(h.s)
	a = h.request("GET", path+"/stream", "")
	require.Equal(t, http.StatusNotAcceptable, a.status)
	require.Equal(t, "not_acceptable", a.code())
}

func TestATailDisturbsNoSlotAndLeavesNoneBehind(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.Publication = ""; c.Tables = []string{"public.*"} })
	h.Exec(accounts, `create table nokey (v text)`, `create table deferred (id int primary key deferrable)`, `create schema secret`,
		`create table secret.t (id int primary key)`)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	all, stop := h.followEvents("/v2/tail?kinds=insert")
	all()
	h.Exec(`insert into secret.t values (1)`, `insert into nokey values ('x')`, `update nokey set v = 'y'`,
		`insert into deferred values (1)`, `update deferred set id = 2`, `insert into account (id) values (1)`)
	e := onlyChanges(all)()
	require.Equal(t, "account", e.Changes[0].Table)
	require.True(t, e.Final)
	require.Empty(t, e.id, "nothing goes on with it")
	require.Equal(t, 1, cdctest.Query[int](h.Database, `select count(*) from pg_replication_slots where temporary and database = $1`, h.Name))
	stop()
	require.Eventually(t, func() bool {
		return cdctest.Query[int](h.Database, `select count(*) from pg_replication_slots where temporary and database = $1`, h.Name) == 0
	}, cdctest.Patience, 20*time.Millisecond)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	require.EqualValues(t, 1, c.readMessage().Changes[0].New["id"])

	// The next tail has a table that was created later.
	h.Exec(`create table later (id int primary key)`)
	all, _ = h.followEvents("/v2/tail")
	all()
	h.Exec(`insert into later values (1)`)
	require.Equal(t, "later", onlyChanges(all)().Changes[0].Table)

	// It cannot resume, and the error says so.
	lost, _ := h.followEvents("/v2/tail")
	lost()
	h.Exec(`select pg_terminate_backend(active_pid) from pg_replication_slots where temporary and database = '` + h.Name + `'`)
	require.Equal(t, "interrupted", onlyChanges(lost)().Code)
	all, _ = h.followEvents("/v2/tail")
	all()

	// The interrupted tails are not counted as clients any more, soon after they got the error.
	require.Eventually(t, func() bool {
		return strings.Contains(h.request("GET", "/metrics", "").body, "delta_stream_clients 2\n")
	}, cdctest.Patience, 10*time.Millisecond)
	metrics := h.request("GET", "/metrics", "").body
	require.Contains(t, metrics, `delta_stream_slot_lag_bytes{slot="`+h.s+`"}`)
	require.Contains(t, metrics, "delta_stream_database_up 1\n")
}

// Servers with other tables have separate publications. If two are told to share one, the second is refused and changes nothing for the
// first.
func TestTailsOfServersWithOtherTablesAreSeparate(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.Tables = []string{"public.*"} })
	h.request("GET", "/healthz", "") // the server is up
	require.Contains(t, h.log.String(), `no table matches yet" tables=[public.*]`)
	h.Exec(accounts, `create schema other`, `create table other.t (id int primary key)`)
	second := &harness{Database: h.Database, t: t, s: h.s}
	second.startServer(func(c *server.Config) { c.Tables = []string{"other.*"} })
	second.request("GET", "/healthz", "")
	require.NotContains(t, second.log.String(), "no table matches")
	first, _ := h.followEvents("/v2/tail")
	first()
	others, _ := second.followEvents("/v2/tail")
	others()
	h.Exec(`insert into account (id) values (1)`, `insert into other.t values (1)`)
	require.Equal(t, "account", onlyChanges(first)().Changes[0].Table)
	require.Equal(t, "t", onlyChanges(others)().Changes[0].Table)

	published := func() []string {
		return cdctest.Query[[]string](h.Database, `select array_agg(pubname || ' ' || schemaname || '.' || tablename order by 1)
			from pg_publication_tables where pubname like 'delta_stream_tail%'`)
	}
	before := published()
	third := &harness{Database: h.Database, t: t, s: h.s}
	name, _, _ := strings.Cut(before[0], " ")
	third.startServer(func(c *server.Config) { c.Tables, c.Publication = []string{"*"}, name })
	a := third.request("GET", "/v2/tail", "", "Accept", "text/event-stream")
	require.Equal(t, "other_tables", a.code(), a.body)
	require.Contains(t, a.body, "--publication")
	require.Equal(t, before, published())
	// Publications of tails are not listed as slots.
	require.NotContains(t, third.request("GET", "/v2/slots", "").body, "missing")
	require.Equal(t, http.StatusNotFound, third.request("DELETE", "/v2/slots/"+name, "").status)
	name, _, _ = strings.Cut(before[len(before)-1], " ")
	require.Equal(t, "exists", third.request("POST", "/v2/slots", `{"name":"`+name+`","tables":["public.account"],"snapshot":false}`).code())
	require.Equal(t, before, published())
}

// A client that does not read is disconnected. Until then, its buffer is limited: changes that are not sent stay in Postgres.
func TestASlowClientIsDisconnected(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, func(c *server.Config) {
		c.WriteTimeout, c.ClientMemory, c.HeartbeatInterval = time.Second, 1<<20, time.Hour
	})
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	all, _ := h.followEvents("/v2/tail")
	all()
	h.Exec(`insert into account (id, name) select i, repeat('payload', 1000) from generate_series(1, 4000) i`)
	h.awaitFree(h.s)
	require.Eventually(t, func() bool {
		return strings.Contains(h.request("GET", "/metrics", "").body, "delta_stream_slow_clients_total 2\n")
	}, cdctest.Patience, 50*time.Millisecond)
	_ = c.conn.CloseNow()
	require.NotContains(t, h.log.String(), "payload", "no data in the log")
	h.stop()
	h.startServer(nil)

	// It gets everything when it reconnects.
	c = h.dialStream("/v2/slots/" + h.s + "/stream")
	n := 0
	for {
		m := c.readMessage()
		n += len(m.Changes)
		if m.Final {
			c.sendAck(m.LSN)
			h.awaitConfirmed(h.s, m.LSN)
			break
		}
	}
	require.Equal(t, 4000, n)
}
