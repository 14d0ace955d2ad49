package v1_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// Each test here is for a defect of PGDeltaStream.

func TestTheProcessSurvivesADeadWalsender(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	c := s.dialStream(slot)
	for i := range 3 {
		s.Exec(fmt.Sprintf(`insert into test_table values (%d, 'a')`, 100+i))
		lsn, rows := c.receiveRows()
		require.Equal(t, []string{fmt.Sprintf("insert test_table %d", 100+i)}, rows, "once, and on the same websocket")
		c.sendAck(lsn)
		s.eventually(`SELECT coalesce(bool_or(pg_terminate_backend(active_pid)), false) FROM pg_replication_slots WHERE slot_name = $1`, slot)
	}
}

func TestAnInvalidAcknowledgementLosesNoChanges(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	s.Exec(`insert into test_table values (100, 'a')`, `insert into test_table values (101, 'b')`)
	for mad, why := range map[string]string{"FF/0": "beyond what was delivered", "0/1": "behind what is acknowledged"} {
		c := s.dialStream(slot)
		first, rows := c.receiveRows()
		require.Equal(t, []string{"insert test_table 100"}, rows)
		c.sendAck(mad)
		text, code := c.awaitEnd()
		require.Contains(t, text, why)
		require.Equal(t, websocket.StatusPolicyViolation, code)
		s.awaitBefore(slot, first)
	}
	c := s.dialStream(slot)
	first, rows := c.receiveRows()
	require.Equal(t, []string{"insert test_table 100"}, rows)
	second, rows := c.receiveRows()
	require.Equal(t, []string{"insert test_table 101"}, rows)
	var lsn cdc.LSN
	require.NoError(t, lsn.UnmarshalText([]byte(second)))
	c.sendAck((lsn - 1).String())
	text, _ := c.awaitEnd()
	require.Contains(t, text, "not the end of a transaction")
	s.awaitBefore(slot, first)
}

func TestAGarbageAcknowledgementIsAnswered(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	s.Exec(`insert into test_table values (100, 'a')`)
	for _, garbage := range []string{`hello`, `{"lsn":"zzz"}`, `{"lsn":5}`, `{"lsn":null}`, `{}`, `[]`, `{"lsn":"0/1/2"}`, `"0/1"`, ``, `{"lsn":""}`, "\xff"} {
		c := s.dialStream(slot)
		ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
		require.NoError(t, c.conn.Write(ctx, websocket.MessageBinary, []byte(garbage)))
		cancel()
		text, code := c.awaitEnd()
		require.Contains(t, text, "invalid acknowledgement", garbage)
		require.Equal(t, websocket.StatusInvalidFramePayloadData, code, garbage)
	}
	c := s.dialStream(slot)
	c.sendText(`{"lsn":"` + strings.Repeat("0", 5000) + `"}`)
	_, code := c.awaitEnd()
	require.Contains(t, []websocket.StatusCode{websocket.StatusMessageTooBig, -1}, code, "what it has not read can have the connection reset")
	first, rows := s.dialStream(slot).receiveRows()
	require.Equal(t, []string{"insert test_table 100"}, rows)
	s.awaitBefore(slot, first)
}

func TestAnUnknownSlotIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	for _, slot := range []string{"delta_none1", `x"; drop`, "\x00", strings.Repeat("x", 5000)} {
		status, text := s.dialRefused(slot)
		require.Equal(t, http.StatusNotFound, status)
		require.Contains(t, text, "unknown slot")
	}
	slot := s.init()
	_, err := cdc.CreateSlot(t.Context(), s.Pool, s.Name+"_other", cdc.SlotOptions{})
	require.NoError(t, err)
	status, text := s.dialRefused(s.Name + "_other")
	require.Equal(t, http.StatusNotFound, status, "a slot of somebody else")
	require.Contains(t, text, "unknown slot")
	s.Exec(`select pg_drop_replication_slot('` + slot + `')`)
	status, text = s.dialRefused(slot)
	require.Equal(t, http.StatusNotFound, status)
	require.Contains(t, text, "it was dropped")
	require.NotEqual(t, slot, s.init())
}

func TestASecondClientIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	c := s.dialStream(slot)
	status, text := s.dialRefused(slot)
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, text, "in use by another client")
	s.Exec(`insert into test_table values (100, 'a')`)
	_, rows := c.receiveRows()
	require.Equal(t, []string{"insert test_table 100"}, rows, "the first client goes on")
	// When it has disconnected, the next client is accepted at once: the server waits until Postgres has released the slot.
	for range 5 {
		require.NoError(t, c.conn.CloseNow())
		c = s.dialStream(slot)
		_, rows = c.receiveRows()
		require.Equal(t, []string{"insert test_table 100"}, rows)
	}
}

func TestInitKeepsSlotsOfOthers(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	foreign := []string{"delta_" + s.Name + "1", "my_delta_" + s.Name, s.Name + "_wal2json_delta_1"}
	for i, name := range foreign {
		s.Exec(`select pg_create_logical_replication_slot('` + name + `', '` + []string{"pgoutput", "test_decoding", "test_decoding"}[i] + `')`)
	}
	s.Exec(`create publication delta_stream_other_changes`)
	first := s.init()
	second := s.init()
	require.NotEqual(t, first, second)
	const exists = `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`
	require.False(t, cdctest.Query[bool](s.Database, exists, first), "the former one is dropped")

	// Another program has created a slot of that name after the process died. Its plugin shows that it is not ours.
	s.close()
	s.Exec(`select pg_drop_replication_slot('`+second+`')`, `select pg_create_logical_replication_slot('`+second+`', 'test_decoding')`)
	next := serveOn(t, s.Database)
	third := next.init()
	require.NotEqual(t, second, third)
	for _, name := range append(foreign, second, third) {
		require.True(t, cdctest.Query[bool](s.Database, exists, name), name)
	}
	next.close()
	last := serveOn(t, s.Database)
	last.init()
	require.False(t, cdctest.Query[bool](s.Database, exists, third), "our own is known after a restart")
	for _, name := range append(foreign, second) {
		require.True(t, cdctest.Query[bool](s.Database, exists, name), name)
	}
}

func TestTwoInitsInOneSecondHaveTwoNames(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	seen := map[string]bool{}
	var mu sync.Mutex
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			slot := s.init()
			mu.Lock()
			defer mu.Unlock()
			seen[slot] = true
		})
	}
	work.Wait()
	require.Len(t, seen, 4)
	require.Equal(t, 1, cdctest.Query[int](s.Database, `SELECT count(*)::int FROM pg_replication_slots WHERE database = current_database()`), "one session at a time")
}

func TestTableAndColumnNamesInjectNoSQL(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	s.init()
	for _, table := range []string{
		"pg_authid", "pg_catalog.pg_authid", `"pg_authid"`, "information_schema.tables", "test_table, pg_authid", "test_table; drop table test_table", "(select * from pg_authid) x",
		`test_table" union select * from pg_authid --`, "test_table offset 0 limit 1 --", `"`, `"test_table`, ".", "..", "test_table.", ".test_table", "a.b.c", "\u0000", strings.Repeat("x", 3000),
	} {
		body, err := json.Marshal(map[string]any{"table": table, "offset": 0, "limit": 5})
		require.NoError(t, err)
		status, answer := s.request(http.MethodPost, "/v1/snapshot/data", string(body))
		require.Equal(t, http.StatusNotFound, status, "%s: %s", table, answer)
		require.Contains(t, answer, `"error":"unable to get snapshot data"`)
		require.Contains(t, answer, "there is no table")
	}
	for _, column := range []string{"id; drop table test_table", "id desc --", "(select rolpassword from pg_authid limit 1)", `id" --`, "1", "ctid", "nothing", "\u0000", "test_table.id"} {
		body, err := json.Marshal(map[string]any{"table": "test_table", "offset": 0, "limit": 5, "order_by": map[string]string{"column": column, "order": "ASC"}})
		require.NoError(t, err)
		status, answer := s.request(http.MethodPost, "/v1/snapshot/data", string(body))
		require.Equal(t, http.StatusBadRequest, status, "%s: %s", column, answer)
		require.Contains(t, answer, "has no column")
	}
	status, _ := s.request(http.MethodPost, "/v1/snapshot/data", `{"table": "test_table", "offset": 0, "limit": 5, "order_by": {"column": "id", "order": "ASC; drop table test_table"}}`)
	require.Equal(t, http.StatusBadRequest, status)
	require.JSONEq(t, `[{"id":1,"name":"abc"},{"id":2,"name":"abc1"}]`, s.readSnapshot(`{"table": "test_table", "offset": 0, "limit": 5}`))
}

func TestABadTableNameKeepsTheSnapshot(t *testing.T) {
	t.Parallel()
	s := newServer(t, append(testTable, `create table unordered (id int primary key, j json)`))
	s.init()
	for range 10 { // more than the pool has connections
		status, _ := s.request(http.MethodPost, "/v1/snapshot/data", `{"table": "nothing", "offset": 0, "limit": 5}`)
		require.Equal(t, http.StatusNotFound, status)
		// This one fails in the snapshot's own transaction.
		status, answer := s.request(http.MethodPost, "/v1/snapshot/data", `{"table": "unordered", "offset": 0, "limit": 5, "order_by": {"column": "j", "order": "ASC"}}`)
		require.Equal(t, http.StatusBadRequest, status, answer)
		requireSame(t, `[{"id":1,"name":"abc"}]`, s.readSnapshot(`{"table": "test_table", "offset": 0, "limit": 1}`))
	}
}

func TestSnapshotsAreReadConcurrently(t *testing.T) {
	t.Parallel()
	s := newServer(t, []string{`create table t (id int primary key)`, `insert into t select generate_series(0, 999)`})
	s.init()
	s.Exec(`delete from t`)
	var work sync.WaitGroup
	for i := range 12 {
		work.Go(func() {
			for page := range 10 {
				body := fmt.Sprintf(`{"table": "t", "offset": %d, "limit": 100, "order_by": {"column": "id", "order": "ASC"}}`, page*100)
				status, answer := s.request(http.MethodPost, "/v1/snapshot/data", body)
				if status != http.StatusOK || !strings.HasPrefix(answer, fmt.Sprintf(`[{"id":%d},`, page*100)) || strings.Count(answer, "id") != 100 {
					t.Errorf("reader %d, page %d: %d %.100s", i, page, status, answer)
				}
			}
		})
	}
	work.Wait()
}

func TestSnapshotsAreReadWhileStreaming(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	c := s.dialStream(slot)
	s.Exec(`insert into test_table values (100, 'a')`)
	lsn, _ := c.receiveRows()
	c.sendAck(lsn)
	s.eventually(`SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1`, slot, lsn)
	require.JSONEq(t, `[{"id":1,"name":"abc"},{"id":2,"name":"abc1"}]`, s.readSnapshot(`{"slotName": "`+slot+`", "table": "test_table", "offset": 0, "limit": 5}`))
}

// Clients of PGDeltaStream expect times, bytea and JSON of snapshots in the format of Go's JSON. For other types, PGDeltaStream writes the
// internals of its driver, such as {"Int":15,"Exp":-1,"Status":2} for 1.5; here these have the format of the stream.
func TestOtherTypesInSnapshotsHaveTheFormatOfStreams(t *testing.T) {
	t.Parallel()
	s := newServer(t, []string{
		`create type mood as enum ('a "b"')`,
		`create table t (id int primary key, n numeric(10,4), nan numeric, f float8, inf float8, u uuid, a text[], e mood, iv interval, yes boolean, none text, c char(5), "Q ""x""" text)`,
		`insert into t values (1, 1.5, 'NaN', 0.1, 'Infinity', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{a,"b c",NULL}', 'a "b"', '1 day 02:00', true, null, 'x', E'\n')`,
		`create domain whole as int check (value > 0)`, `create domain digit as whole check (value < 10)`,
		`create table pgds (id int primary key, b bytea, j jsonb, text json, nothing jsonb, ts timestamp, tz timestamptz, d date, never timestamptz,
			old date, one digit)`,
		`insert into pgds values (1, '\x00ff', '{"b": [1, "x y"], "a":1.50}', ' {"k" : "a  b", "k" : 2} ', null,
			'2026-01-01 01:02:03.40', '2026-01-01 00:00+02', '2026-01-01', 'infinity', '0044-03-15 BC', 7)`,
	})
	slot := s.init()
	want := `[{"id":1,"b":"AP8=","j":{"a":1.50,"b":[1,"x y"]},"text":{"k":"a  b","k":2},"nothing":null,` +
		`"ts":"2026-01-01T01:02:03.4Z","tz":"2025-12-31T22:00:00Z","d":"2026-01-01T00:00:00Z","never":"infinity","old":"0044-03-15 BC","one":7}]`
	require.Equal(t, want, s.readSnapshot(`{"table": "pgds", "offset": 0, "limit": 5}`))

	answer := s.readSnapshot(`{"table": "t", "offset": 0, "limit": 5}`)
	s.Exec(`insert into t select 2, n, nan, f, inf, u, a, e, iv, yes, none, c, "Q ""x""" from t`)
	var frame struct {
		Change []struct {
			ColumnNames  []string
			ColumnValues []json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal([]byte(s.dialStream(slot).receiveText()), &frame))
	var row strings.Builder
	for i, name := range frame.Change[0].ColumnNames {
		quoted, err := json.Marshal(name)
		require.NoError(t, err)
		value := string(frame.Change[0].ColumnValues[i])
		if name == "id" {
			require.Equal(t, "2", value)
			value = "1"
		}
		row.WriteString("," + string(quoted) + ":" + value)
	}
	require.Equal(t, "[{"+row.String()[1:]+"}]", answer, "the same bytes")
	require.Contains(t, answer, `"n":1.5000,"nan":null,"f":0.1,"inf":null,"u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`)
}
