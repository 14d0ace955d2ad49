package v1_test

import (
	"net/http"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// testTable is the table in PGDeltaStream's documents, here with two rows.
var testTable = []string{`create table test_table (id serial primary key, name text)`, `insert into test_table (name) values ('abc'), ('abc1')`}

func TestTheWalkThroughOfPGDeltaStream(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	s.Exec(`insert into test_table (name) values ('newval1')`)
	require.JSONEq(t, `[{"id":1,"name":"abc"},{"id":2,"name":"abc1"}]`,
		s.readSnapshot(`{"slotName": "`+slot+`", "table": "test_table", "offset": 0, "limit": 5, "order_by": {"column": "id", "order": "ASC"}}`))
	requireSame(t, `[{"id":2,"name":"abc1"}]`, s.readSnapshot(`{"table": "test_table", "offset": 0, "limit": 1, "order_by": {"column": "id", "order": "desc"}}`))
	requireSame(t, `[{"id":2,"name":"abc1"}]`, s.readSnapshot(`{"table": "test_table", "offset": 1, "limit": 5}`))
	requireSame(t, `[]`, s.readSnapshot(`{"table": "public.test_table", "offset": 7, "limit": 5}`))

	c := s.dialStream(slot)
	frame := c.receiveText()
	require.Regexp(t, `^`+regexp.QuoteMeta(`{"nextlsn":"`)+`[0-9A-F]+/[0-9A-F]+`+regexp.QuoteMeta(
		`","change":[{"kind":"insert","schema":"public","table":"test_table","columnnames":["id","name"],"columntypes":["integer","text"],"columnvalues":[3,"newval1"]}]}`)+`$`, frame)
	s.Exec(`update test_table set name = 'x' where id = 1`, `delete from test_table where id = 2`)
	first, rows := c.receiveRows()
	require.Equal(t, []string{"update test_table 1"}, rows)
	_, rows = c.receiveRows()
	require.Equal(t, []string{"delete test_table 2"}, rows)
	c.sendAck(first)
	s.eventually(`SELECT confirmed_flush_lsn = $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1`, slot, first)
	require.NoError(t, c.conn.CloseNow())

	// Unacknowledged transactions are sent again.
	_, rows = s.dialStream(slot).receiveRows()
	require.Equal(t, []string{"delete test_table 2"}, rows)
	status, _ := s.request(http.MethodPost, "/v1/init", "")
	require.Equal(t, http.StatusMethodNotAllowed, status)
	status, _ = s.request(http.MethodGet, "/v1/nothing", "")
	require.Equal(t, http.StatusNotFound, status)
}

func TestASessionSurvivesARestart(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	s.Exec(`insert into test_table values (10, 'a')`)
	c := s.dialStream(slot)
	_, rows := c.receiveRows()
	require.Equal(t, []string{"insert test_table 10"}, rows)
	go s.handler.Close()
	text, code := c.awaitEnd()
	require.Equal(t, "the server is shutting down", text)
	require.EqualValues(t, 1001, code)
	s.close()

	next := serveOn(t, s.Database)
	status, answer := next.request(http.MethodPost, "/v1/snapshot/data", `{"table": "test_table", "offset": 0, "limit": 5}`)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.JSONEq(t, `{"error":"snapshot not available: call /init to initialize a new slot and snapshot"}`, answer)
	_, rows = next.dialStream(slot).receiveRows()
	require.Equal(t, []string{"insert test_table 10"}, rows)
}

func TestPayloadsAreNotLogged(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	s.Exec(`insert into test_table (name) values ('a secret')`)
	s.readSnapshot(`{"table": "test_table", "offset": 0, "limit": 5}`)
	c := s.dialStream(slot)
	require.Contains(t, c.receiveText(), "a secret")
	c.sendText(`{"lsn": "another secret"}`)
	_, _ = c.awaitEnd()
	s.Exec(`select pg_terminate_backend(active_pid) from pg_replication_slots where active and database = current_database()`)
	s.close()
	require.NotContains(t, s.log.String(), "secret")
	require.NotContains(t, s.log.String(), "abc1")
}

func TestFramesEqualThoseOfThePlugin(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	s.PluginSlot(s.Name)
	s.Exec(`insert into test_table (name) values ('newval1'), (E'quo"te\\ é\n'), (null)`, `update test_table set name = 'y' where id = 1`, `update test_table set id = 50 where id = 2`, `delete from test_table`)
	rows, err := s.Pool.Query(t.Context(), `select data from pg_logical_slot_get_changes($1, null, null, 'include-lsn', 'on', 'pretty-print', 'off')`, s.Name)
	require.NoError(t, err)
	frames, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, frames, 4)
	c := s.dialStream(slot)
	for _, frame := range frames {
		requireSame(t, frame, c.receiveText())
	}
}
