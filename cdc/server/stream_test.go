package server_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

const accounts = `create table account (id int primary key, name text, balance numeric(12,2), big bigint, ok bool, at timestamptz, doc jsonb, f float8)`

func TestASnapshotAndItsStreamFitTogether(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	row := `(%d, 'Ann "x"', 12.50, 9007199254740993, true, '2026-01-02 03:04:05.678901+01', '{"a": null}', 'NaN')`
	h.Exec(accounts, `insert into account values `+fmt.Sprintf(row, 1)+`,`+fmt.Sprintf(row, 2)+`,`+fmt.Sprintf(row, 3))
	made := h.createSlot(h.s, `"tables":["public.*"]`)
	require.Equal(t, []string{"public.account"}, made.Tables)
	h.Exec(`insert into account values `+fmt.Sprintf(row, 4), `update account set balance = 1e20::numeric(38)/1e12 where id = 1`, `delete from account where id = 2`)

	// Pages of the snapshot at the slot's position.
	type page struct {
		Table table
		Rows  []change
		Next  *string
		LSN   string
	}
	first := decodeJSON[page](t, h.request("GET", "/v2/slots/"+h.s+"/snapshot/public.account?limit=2", "").body)
	require.Len(t, first.Rows, 2)
	require.NotNil(t, first.Next)
	require.Equal(t, made.LSN, first.LSN)
	second := decodeJSON[page](t, h.request("GET", "/v2/slots/"+h.s+"/snapshot/public.account?limit=2&after="+*first.Next, "").body)
	require.Len(t, second.Rows, 1)
	require.Nil(t, second.Next)
	values := map[string]any{
		"id": 1.0, "name": `Ann "x"`, "balance": "12.50", "big": "9007199254740993", "ok": true, "at": "2026-01-02 02:04:05.678901+00",
		"doc": `{"a": null}`, "f": "NaN",
	}
	require.Equal(t, "read", first.Rows[0].Kind)
	require.Equal(t, values, first.Rows[0].New)
	require.Equal(t, map[string]any{"id": 1.0}, first.Rows[0].Key)

	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	inserted := c.readMessage()
	require.True(t, inserted.Final)
	require.NotZero(t, inserted.CommitTime)
	require.Equal(t, "account", inserted.Tables[0].Table)
	require.True(t, inserted.Tables[0].Columns[0].Key)
	require.Equal(t, "numeric", inserted.Tables[0].Columns[2].Type)
	values["id"] = 4.0
	require.Equal(t, values, inserted.Changes[0].New, "as in the snapshot")
	updated := c.readMessage()
	require.Equal(t, "update", updated.Changes[0].Kind)
	require.Equal(t, "100000000.00", updated.Changes[0].New["balance"])
	require.Empty(t, updated.Tables, "it was described")
	deleted := c.readMessage()
	require.Equal(t, map[string]any{"id": 2.0}, deleted.Changes[0].Key)
	require.Nil(t, deleted.Changes[0].New)
	c.sendAck(deleted.LSN)
	h.awaitConfirmed(h.s, deleted.LSN)
}

func TestAClientResumesAtItsToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	made := h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	h.Exec(`insert into account (id) values (1)`, `insert into account (id) values (2)`, `insert into account (id) values (3)`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream?resume=" + made.Resume)
	one, two, three := c.readMessage(), c.readMessage(), c.readMessage()
	c.sendAck(one.LSN)
	h.awaitConfirmed(h.s, one.LSN)
	_ = c.conn.Close(websocket.StatusNormalClosure, "") // the other side may be late
	h.awaitFree(h.s)

	// Without a token, all unacknowledged transactions are sent again; with one, those after it.
	c = h.dialStream("/v2/slots/" + h.s + "/stream")
	require.Equal(t, two.LSN, c.readMessage().LSN)
	_ = c.conn.CloseNow()
	h.awaitFree(h.s)
	c = h.dialStream("/v2/slots/" + h.s + "/stream?resume=" + two.Resume)
	require.Equal(t, three.LSN, c.readMessage().LSN)
	h.awaitConfirmed(h.s, two.LSN)
	c.sendAck(three.LSN)
	h.awaitConfirmed(h.s, three.LSN)
	_ = c.conn.CloseNow()
	h.awaitFree(h.s)

	// Acknowledged transactions are not sent again, even if the client has lost them.
	a := h.request("GET", "/v2/slots/"+h.s+"/stream?resume="+one.Resume, "", "Accept", "text/event-stream")
	require.Equal(t, http.StatusGone, a.status)
	require.Equal(t, "resync_needed", a.code())

	// After a restart, it resumes.
	h.stop()
	h.Exec(`insert into account (id) values (4)`)
	h.startServer(nil)
	c = h.dialStream("/v2/slots/" + h.s + "/stream?resume=" + three.Resume)
	four := c.readMessage()
	require.EqualValues(t, 4, four.Changes[0].New["id"])
	_ = c.conn.CloseNow()
	h.awaitFree(h.s)

	// A token of an earlier slot of this name is refused.
	require.Equal(t, http.StatusNoContent, h.request("DELETE", "/v2/slots/"+h.s, "").status)
	require.Zero(t, cdctest.Query[int](h.Database, `select count(*) from pg_publication where pubname = '`+h.s+`'`))
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	require.Equal(t, "resync_needed", h.request("GET", "/v2/slots/"+h.s+"/stream?resume="+four.Resume, "", "Accept", "text/event-stream").code())
}

// None of these moves the slot past what was delivered.
func TestAnInvalidAcknowledgementEndsTheStreamWithoutLoss(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	h.Exec(`insert into account (id) values (1)`, `insert into account (id) values (2)`)
	for _, text := range []string{`{"lsn":"FF/0"}`, `{"lsn":"0/1"}`, `{"lsn":"x"}`, `{"lsn":7}`, `garbage`, `{}`, `[]`, "\x00", `{"lsn":"FFFFFFFFF/0"}`, `{"lsn":"0/0"}`} {
		c := h.dialStream("/v2/slots/" + h.s + "/stream")
		require.EqualValues(t, 1, c.readMessage().Changes[0].New["id"], "it comes again")
		require.EqualValues(t, 2, c.readMessage().Changes[0].New["id"])
		c.sendText(text)
		require.Equal(t, websocket.StatusCode(4400), c.expectClose("bad_ack"), text)
		h.awaitFree(h.s)
	}
	for _, token := range []string{"FF/0@x", "0/1", "x", "@", "0/0@y", "FF/0"} {
		a := h.request("GET", "/v2/slots/"+h.s+"/stream", "", "Accept", "text/event-stream", "Last-Event-ID", token)
		require.GreaterOrEqual(t, a.status, 400, token)
		require.Contains(t, []string{"bad_resume", "resync_needed"}, a.code(), token)
	}
}

func TestALargeTransactionComesInParts(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	h.Exec(`insert into account (id, name) select i, repeat('x', 100) from generate_series(1, 2500) i`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	next, parts := 1, 0
	for {
		m := c.readMessage()
		require.Equal(t, parts, m.Part)
		parts++
		for _, one := range m.Changes {
			require.EqualValues(t, next, one.New["id"])
			next++
		}
		require.LessOrEqual(t, len(m.Changes), 1000)
		if m.Final {
			require.NotEmpty(t, m.Resume)
			break
		}
		require.Empty(t, m.Resume)
	}
	require.Equal(t, 2501, next)
	require.GreaterOrEqual(t, parts, 3)
}

func TestManySlotsAndFilters(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts, `create table other (id int primary key, v text)`, `alter table other replica identity full`)
	h.createSlot(h.s+"_a", `"tables":["public.*"],"snapshot":false`)
	h.createSlot(h.s+"_b", `"tables":["public.other"],"snapshot":false`)
	a := h.dialStream("/v2/slots/" + h.s + "_a/stream?tables=public.acc*&kinds=delete,message")
	b := h.dialStream("/v2/slots/" + h.s + "_b/stream")
	require.Equal(t, "busy", h.request("GET", "/v2/slots/"+h.s+"_b/stream", "", "Accept", "text/event-stream").code())
	// Also by a program other than this server.
	h.createSlot(h.s+"_c", `"tables":["public.other"],"snapshot":false`)
	other, err := cdc.Open(t.Context(), cdc.Config{Conn: h.Config(), Slot: h.s + "_c", Publications: []string{h.s + "_c"}})
	require.NoError(t, err)
	busy := h.request("GET", "/v2/slots/"+h.s+"_c/stream", "", "Accept", "text/event-stream")
	require.Equal(t, http.StatusConflict, busy.status)
	require.Equal(t, "busy", busy.code())
	other.Close()
	h.Exec(`insert into account (id) values (1)`, `insert into other values (1, 'x')`, `select pg_logical_emit_message(true, 'p', 'hello')`,
		`delete from account`, `update other set v = 'y'`, `truncate other`)
	require.Equal(t, "hello", a.readMessage().Changes[0].Content)
	deleted := a.readMessage()
	require.Equal(t, "delete", deleted.Changes[0].Kind)
	require.Equal(t, "insert", b.readMessage().Changes[0].Kind)
	updated := b.readMessage()
	require.Equal(t, map[string]any{"id": 1.0, "v": "x"}, updated.Changes[0].Old)
	require.Nil(t, updated.Changes[0].Key)
	last := b.readMessage()
	require.Equal(t, "truncate", last.Changes[0].Kind)
	// Transactions that were filtered out do not hold the slot back.
	a.sendAck(deleted.LSN)
	h.awaitConfirmed(h.s+"_a", last.LSN)

	// A schema change is sent before the first change with the new schema.
	h.Exec(`begin; insert into other values (2, 'a'); alter table other add more bool; insert into other values (3, 'b', true); commit`)
	first, changed, second := b.readMessage(), b.readMessage(), b.readMessage()
	require.Equal(t, "schema", changed.Type)
	require.Equal(t, []string{"more"}, changed.Added)
	require.Len(t, second.Tables, 1)
	require.Len(t, second.Tables[0].Columns, 3)
	require.Equal(t, first.LSN, second.LSN)
	require.Equal(t, true, second.Changes[0].New["more"])
}

func TestUnchangedValuesAreNamed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(`create table t (id int primary key, n int, big text)`, `alter table t alter big set storage external`)
	h.createSlot(h.s, `"tables":["public.t"],"snapshot":false`)
	h.Exec(`insert into t values (1, 1, repeat('x', 10000))`, `update t set n = 2`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	require.Len(t, c.readMessage().Changes[0].New["big"], 10000)
	updated := c.readMessage().Changes[0]
	require.Equal(t, []string{"big"}, updated.Unchanged)
	require.Equal(t, map[string]any{"id": 1.0, "n": 2.0}, updated.New)
}

func TestAClientThatDoesNotAcknowledgeWaits(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.MaxUnacknowledged = 2 })
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	h.Exec(`insert into account (id) values (1)`, `insert into account (id) values (2)`, `insert into account (id) values (3)`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	c.readMessage()
	two := c.readMessage()
	for range 3 { // only heartbeats are sent
		m, err := c.readAny()
		require.NoError(t, err)
		require.Equal(t, "position", m.Type)
		require.Equal(t, two.Resume, m.Resume)
	}
	c.sendAck(two.LSN)
	require.EqualValues(t, 3, c.readMessage().Changes[0].New["id"])
}

func TestAStoppedServerTellsItsClients(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"]`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	_, err := c.readAny()
	require.NoError(t, err)
	go h.stop()
	require.Equal(t, websocket.StatusGoingAway, c.expectClose("closing"))
}

func TestAClientIsToldOfALostSlot(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	h.Exec(`insert into account (id) values (1)`)
	c.sendAck(c.readMessage().LSN)
	// Another program drops the slot under the stream.
	require.Eventually(t, func() bool {
		_, err := h.Pool.Exec(t.Context(), `select pg_terminate_backend(active_pid), pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '`+h.s+`'`)
		return err == nil
	}, cdctest.Patience, time.Millisecond)
	require.Equal(t, websocket.StatusCode(4410), c.expectClose("resync_needed"))
	// The stream that got the error holds the slot for a moment longer.
	require.Eventually(t, func() bool {
		status := h.request("GET", "/v2/slots/"+h.s+"/stream", "", "Accept", "text/event-stream").status
		return status != http.StatusConflict && assert.Equal(t, http.StatusGone, status)
	}, cdctest.Patience, time.Millisecond)
	require.Equal(t, http.StatusNoContent, h.request("DELETE", "/v2/slots/"+h.s, "").status)
	require.Equal(t, http.StatusNotFound, h.request("DELETE", "/v2/slots/"+h.s, "").status)
}

// The type that a client is told determines how its values are written, also for domains.
func TestDomainsAreWrittenAsTheirBaseType(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(`create domain positive as int check (value > 0)`, `create domain agreed as bool`, `create type public.int4 as enum ('four')`,
		`create table account (id positive primary key, ok agreed, t public.int4, at timetz)`, `insert into account values (1, true, 'four', '12:00+01')`)
	h.createSlot(h.s, `"tables":["public.account"]`)
	h.Exec(`update account set ok = false`)
	page := decodeJSON[struct {
		Table table
		Rows  []change
	}](t, h.request("GET", "/v2/slots/"+h.s+"/snapshot/public.account", "").body)
	m := h.dialStream("/v2/slots/" + h.s + "/stream").readMessage()
	require.Equal(t, map[string]any{"id": 1.0, "ok": true, "t": "four", "at": "12:00:00+01"}, page.Rows[0].New)
	require.Equal(t, map[string]any{"id": 1.0, "ok": false, "t": "four", "at": "12:00:00+01"}, m.Changes[0].New)
	require.Equal(t, m.Tables[0], page.Table)
	var types []string
	for _, c := range page.Table.Columns {
		types = append(types, c.Type)
	}
	require.Equal(t, []string{"int4", "bool", "public.int4", "timetz"}, types)
}
