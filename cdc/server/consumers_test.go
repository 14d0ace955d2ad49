package server_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/testport"
)

// The environment of a process of this test binary that runs a server.
const (
	childDatabase = "DELTA_TEST_SERVER_DATABASE"
	childListen   = "DELTA_TEST_SERVER_LISTEN"
)

// serveUntilKilled runs the server in such a process.
func serveUntilKilled() {
	err := func() error {
		config, err := pgx.ParseConfig(os.Getenv(childDatabase))
		if err != nil {
			return err
		}
		s, err := server.New(context.Background(), server.Config{Conn: config, HeartbeatInterval: 200 * time.Millisecond})
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", os.Getenv(childListen))
		if err != nil {
			return err
		}
		return s.Serve(context.Background(), listener)
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// startProcess runs a server in a separate process. kill kills it like kill -9.
func (h *harness) startProcess() (kill func()) {
	h.t.Helper()
	if h.listen == "" {
		h.listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(testport.Reserve(h.t)))
		transport := &http.Transport{}
		h.t.Cleanup(transport.CloseIdleConnections)
		h.url, h.http = "http://"+h.listen, &http.Client{Transport: transport}
	}
	c := h.Config()
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), Path: "/" + h.Name}
	if c.TLSConfig == nil {
		u.RawQuery = "sslmode=disable"
	}
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), childDatabase+"="+u.String(), childListen+"="+h.listen)
	command.Stderr = os.Stderr
	require.NoError(h.t, command.Start())
	kill = func() {
		_ = command.Process.Kill()
		_, _ = command.Process.Wait()
	}
	h.t.Cleanup(kill)
	require.Eventually(h.t, func() bool {
		response, err := h.http.Get(h.url + "/livez")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, cdctest.Patience, 20*time.Millisecond)
	return kill
}

// sharedSlot is the answer of GET /v2/slots/{name} for a slot with consumers.
type sharedSlot struct {
	Consumers []struct {
		Name           string
		Attached, Lost bool
		Acknowledged   *string
		LagBytes       *int64 `json:"lag_bytes"`
		Waiting        *int
	}
}

// insertedIDs returns the ids of the rows that a transaction has inserted.
func (m message) insertedIDs() (all []float64) {
	for _, c := range m.Changes {
		if id, ok := c.New["id"].(float64); ok {
			all = append(all, id)
		}
	}
	return all
}

// onlyTransactions skips all other events.
func onlyTransactions(next func() event) func() event {
	return func() event {
		for {
			if e := next(); e.kind == "transaction" {
				return e
			}
		}
	}
}

// Two clients read one slot, over a websocket and over Server-Sent Events. The server is killed in between, and each resumes at its own
// token.
func TestConsumersResumeAfterTheServerIsKilled(t *testing.T) {
	t.Parallel()
	h := &harness{Database: cdctest.New(t), t: t}
	h.s = h.Name
	h.Exec(accounts)
	kill := h.startProcess()
	made := h.createSlot(h.s, `"tables":["public.account"],"snapshot":false,"consumers":["search","cache"]`)
	at := "/v2/slots/" + h.s + "/stream?consumer="
	ackCache := func(lsn string) {
		t.Helper()
		a := h.request("POST", "/v2/slots/"+h.s+"/ack?consumer=cache", `{"lsn":"`+lsn+`"}`)
		require.Equal(t, http.StatusOK, a.status, a.body)
	}
	search := h.dialStream(at + "search&resume=" + made.Resume)
	events, stop := h.followEvents(at + "cache&resume=" + made.Resume)
	cache := onlyTransactions(events)
	var searched message
	for id := 1; id <= 3; id++ {
		h.Exec(fmt.Sprintf(`insert into account (id) values (%d)`, id))
		searched = search.readMessage()
		require.Equal(t, []float64{float64(id)}, searched.insertedIDs())
		search.sendAck(searched.LSN)
	}
	first := cache()
	require.Equal(t, []float64{1}, first.insertedIDs())
	ackCache(first.LSN)
	second := cache()
	require.Equal(t, []float64{2}, second.insertedIDs())
	h.awaitConfirmed(h.s, first.LSN)
	var shown sharedSlot
	require.Eventually(t, func() bool {
		shown = decodeJSON[sharedSlot](t, h.request("GET", "/v2/slots/"+h.s, "").body)
		return len(shown.Consumers) == 2 && shown.Consumers[0].Acknowledged != nil && *shown.Consumers[0].Acknowledged == searched.LSN
	}, cdctest.Patience, 20*time.Millisecond)
	require.Equal(t, "cache", shown.Consumers[1].Name)
	require.True(t, shown.Consumers[1].Attached)
	require.Equal(t, first.LSN, *shown.Consumers[1].Acknowledged)
	require.Greater(t, *shown.Consumers[1].LagBytes, *shown.Consumers[0].LagBytes)

	kill()
	stop()
	h.Exec(`insert into account (id) values (4)`)
	h.startProcess()
	search = h.dialStream(at + "search&resume=" + searched.Resume)
	searched = search.readMessage()
	require.Equal(t, []float64{4}, searched.insertedIDs(), "what it has does not come again")
	search.sendAck(searched.LSN)
	events, _ = h.followEvents(at + "cache&resume=" + second.id)
	cache = onlyTransactions(events)
	require.Equal(t, []float64{3}, cache().insertedIDs(), "the slot has kept what only the other has acknowledged")
	last := cache()
	require.Equal(t, []float64{4}, last.insertedIDs())
	require.True(t, cdctest.Query[bool](h.Database, `select confirmed_flush_lsn < $2::text::pg_lsn from pg_replication_slots where slot_name = $1`, h.s, last.LSN))
	ackCache(last.LSN)
	h.awaitConfirmed(h.s, last.LSN)
}

// A consumer that is too far behind must resync: it gets the rows of the tables beside the changes, over either transport.
func TestASlowConsumerResyncsTheTables(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"websocket", "events"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, func(c *server.Config) { c.ConsumerBuffer, c.ConsumerPatience = 64<<10, -1 })
			h.Exec(accounts, `create table other (id int primary key)`, `insert into other values (7)`)
			made := h.createSlot(h.s, `"tables":["public.*"],"snapshot":false,"consumers":["quick","slow"]`)
			at := "/v2/slots/" + h.s + "/stream?consumer="
			quick := h.dialStream(at + "quick&resume=" + made.Resume)
			for id := range 100 {
				h.Exec(fmt.Sprintf(`insert into account (id, name) values (%d, repeat('x', 2000))`, id))
				m := quick.readMessage()
				require.Equal(t, []float64{float64(id)}, m.insertedIDs())
				quick.sendAck(m.LSN)
			}
			lost := `{slot="` + h.s + `",consumer="slow"}`
			require.InDelta(t, 1, h.scrapeMetrics()["delta_stream_consumer_lost"+lost], 0)
			require.True(t, decodeJSON[sharedSlot](t, h.request("GET", "/v2/slots/"+h.s, "").body).Consumers[1].Lost)
			a := h.request("GET", at+"slow&resume="+made.Resume, "", "Accept", "text/event-stream")
			require.Equal(t, http.StatusGone, a.status, a.body)
			require.Equal(t, "resync_needed", a.code())
			require.Contains(t, a.body, "resync=true")
			h.Exec(`update account set name = 'short'`) // the next change fits into the buffer
			m := quick.readMessage()
			require.Len(t, m.Changes, 100)
			quick.sendAck(m.LSN)

			var next func() message
			stop := func() {}
			connect := func(query string) {
				if transport == "websocket" {
					c := h.dialStream(at + "slow&" + query)
					next, stop = c.readMessage, func() { _ = c.conn.CloseNow() }
					return
				}
				events, cancel := h.followEvents(at + "slow&" + query)
				next, stop = func() message {
					for {
						if e := events(); e.kind != "position" {
							return e.message
						}
					}
				}, cancel
			}
			connect("resync=true")
			rows := map[string]map[float64]bool{"account": {}, "other": {}}
			var resynced message
			for resynced.Type == "" {
				m := next()
				switch m.Type {
				case "transaction":
					require.Empty(t, m.Resume, "it does not have all rows yet: a reconnect starts the resync again")
					for _, c := range m.Changes {
						if c.Kind == "read" {
							rows[c.Table][c.New["id"].(float64)] = true
							require.Contains(t, []any{"short", nil}, c.New["name"])
						}
					}
				case "resynced":
					resynced = m
				default:
					require.Equal(t, "schema", m.Type, m.Error)
				}
			}
			require.Len(t, rows["account"], 100)
			require.Len(t, rows["other"], 1)
			require.NotEmpty(t, resynced.Resume)
			h.Exec(`insert into account (id) values (1000)`)
			last := next()
			require.Equal(t, []float64{1000}, last.insertedIDs())
			require.NotEmpty(t, last.Resume)
			stop()
			h.Exec(`insert into account (id) values (1001)`)
			require.Eventually(t, func() bool {
				return !decodeJSON[sharedSlot](t, h.request("GET", "/v2/slots/"+h.s, "").body).Consumers[1].Attached
			}, cdctest.Patience, 20*time.Millisecond)
			connect("resume=" + last.Resume)
			require.Equal(t, []float64{1001}, next().insertedIDs())
			require.Equal(t, []float64{1000}, quick.readMessage().insertedIDs(), "the other has had nothing of it")
		})
	}
}

func TestARemovedConsumerDoesNotHoldTheSlot(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	made := h.createSlot(h.s, `"tables":["public.account"],"snapshot":false,"consumers":["a"]`)
	consumers := "/v2/slots/" + h.s + "/consumers/"
	require.Equal(t, http.StatusCreated, h.request("PUT", consumers+"b", "").status)
	require.Equal(t, http.StatusOK, h.request("PUT", consumers+"b", "").status)
	at := "/v2/slots/" + h.s + "/stream"
	a, b := h.dialStream(at+"?consumer=a&resume="+made.Resume), h.dialStream(at+"?consumer=b&resume="+made.Resume)
	h.Exec(`insert into account (id) values (1)`)
	m := a.readMessage()
	a.sendAck(m.LSN)
	b.readMessage() // it never acknowledges
	require.Eventually(t, func() bool {
		shown := decodeJSON[sharedSlot](t, h.request("GET", "/v2/slots/"+h.s, "").body)
		return len(shown.Consumers) == 2 && shown.Consumers[0].Acknowledged != nil && *shown.Consumers[0].Acknowledged == m.LSN
	}, cdctest.Patience, 20*time.Millisecond)
	require.True(t, cdctest.Query[bool](h.Database, `select confirmed_flush_lsn < $2::text::pg_lsn from pg_replication_slots where slot_name = $1`, h.s, m.LSN), "b may need it")
	require.InDelta(t, 2, h.scrapeMetrics()["delta_stream_clients"], 0)
	require.Equal(t, http.StatusNoContent, h.request("DELETE", consumers+"b", "").status)
	require.Equal(t, websocket.StatusCode(4404), b.expectClose("unknown_consumer"))
	h.awaitConfirmed(h.s, m.LSN)
	h.stop()
	token := a.newestToken(m.Resume)
	h.startServer(nil) // it stays removed after a restart
	require.Len(t, decodeJSON[sharedSlot](t, h.request("GET", "/v2/slots/"+h.s, "").body).Consumers, 1)

	for query, want := range map[string]string{
		"": "409 consumer_needed", "?consumer=b&resync=true": "404 unknown_consumer", "?consumer=a": "400 bad_resume", "?consumer=a&resync=x": "400 invalid", "?resync=true": "400 invalid",
		"?consumer=a&resume=" + strings.Replace(token, "@", "@x", 1):    "410 resync_needed",
		"?consumer=a&resume=FFFFFFFF/0@" + strings.Split(token, "@")[1]: "410 resync_needed",
	} {
		r := h.request("GET", at+query, "", "Accept", "text/event-stream")
		require.Equal(t, want, fmt.Sprint(r.status, " ", r.code()), query)
	}
	h.dialStream(at + "?consumer=a&resume=" + token)
	r := h.request("GET", at+"?consumer=a&resume="+token, "", "Accept", "text/event-stream")
	require.Equal(t, "409 busy", fmt.Sprint(r.status, " ", r.code()))
	for _, wrong := range []string{"", `"A"`, `"a","a"`, `"` + strings.Repeat("x", 64) + `"`} {
		if wrong != "" {
			r := h.request("POST", "/v2/slots", `{"name":"x","tables":["public.account"],"consumers":[`+wrong+`]}`)
			require.Equal(t, "400 invalid", fmt.Sprint(r.status, " ", r.code()), wrong)
		}
	}
	require.Equal(t, "404 unknown_consumer", func() string { r := h.request("DELETE", consumers+"b", ""); return fmt.Sprint(r.status, " ", r.code()) }())
	require.Equal(t, "404 unknown_slot", func() string {
		r := h.request("PUT", "/v2/slots/nowhere/consumers/b", "")
		return fmt.Sprint(r.status, " ", r.code())
	}())
}

// Transactions that have nothing for a consumer do not make its latest token useless before it gets another one.
func TestAConsumersTokenStaysValidWhileOthersAreServed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.HeartbeatInterval = time.Hour })
	h.Exec(accounts, `create table other (id int primary key)`)
	made := h.createSlot(h.s, `"tables":["public.account","public.other"],"snapshot":false,"consumers":["a","b"]`)
	at := "/v2/slots/" + h.s + "/stream"
	a, b := h.dialStream(at+"?tables=public.account&consumer=a&resume="+made.Resume), h.dialStream(at+"?consumer=b&resume="+made.Resume)
	h.Exec(`insert into account (id) values (1)`)
	m := a.readMessage()
	a.sendAck(m.LSN)
	b.sendAck(b.readMessage().LSN)
	for id := range 5 {
		h.Exec(fmt.Sprintf(`insert into other values (%d)`, id))
		b.sendAck(b.readMessage().LSN)
	}
	h.awaitConfirmed(h.s, m.LSN)
	h.stop()
	h.startServer(nil)
	again := h.dialStream(at + "?tables=public.account&consumer=a&resume=" + m.Resume)
	h.Exec(`insert into account (id) values (2)`)
	require.Equal(t, []float64{2}, again.readMessage().insertedIDs())
}

// newestToken reads to the end of the connection, and returns the latest token.
func (c *client) newestToken(token string) string {
	c.h.t.Helper()
	for {
		m, err := c.readAny()
		if err != nil {
			return token
		}
		if m.Resume != "" {
			token = m.Resume
		}
	}
}

// Heartbeats are always due between two tables of a resync; the next table must be read nevertheless.
func TestAHeartbeatDoesNotEndAResync(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.HeartbeatInterval = time.Millisecond })
	h.Exec(accounts, `insert into account (id) values (1)`, `create table other (id int primary key)`, `insert into other values (7)`)
	h.createSlot(h.s, `"tables":["public.*"],"snapshot":false,"consumers":["a"]`)
	events, _ := h.followEvents("/v2/slots/" + h.s + "/stream?consumer=a&resync=true")
	tables := map[string]bool{}
	for e := events(); e.kind != "resynced"; e = events() {
		for _, c := range e.Changes {
			tables[c.Table] = true
		}
	}
	require.Equal(t, map[string]bool{"account": true, "other": true}, tables)
}
