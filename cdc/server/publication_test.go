package server_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestAnUnpublishedSlotIsListedAndCanBeDeleted(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string][]string{
		"dropped":    {`drop publication "%s"`},
		"made again": {`drop publication "%s"`, `create table other (id int primary key)`, `create publication "%s" for table other`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, nil)
			h.Exec(accounts)
			h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
			at := "/v2/slots/" + h.s
			c := h.dialStream(at + "/stream")
			h.Exec(`insert into account (id) values (1)`)
			c.sendAck(c.readMessage().LSN)
			for _, statement := range harm {
				h.Exec(strings.ReplaceAll(statement, "%s", h.s))
			}
			// Nothing is written, so the stream itself would wait.
			require.Equal(t, websocket.StatusCode(4410), c.expectClose("resync_needed"))
			h.stop()
			h.startServer(nil) // another process knows it, too
			require.Contains(t, h.request("GET", at, "").body, `"status":"unpublished"`)
			a := h.request("GET", at+"/stream", "", "Accept", "text/event-stream")
			require.Equal(t, http.StatusGone, a.status)
			require.Equal(t, "resync_needed", a.code())
			require.Contains(t, a.body, "publication")
			require.Eventually(t, func() bool { return h.request("DELETE", at, "").status == http.StatusNoContent }, cdctest.Patience, 20*time.Millisecond)
			require.Equal(t, http.StatusNotFound, h.request("GET", at, "").status)
			require.Equal(t, len(harm) > 1, cdctest.Query[bool](h.Database, `select exists (select from pg_publication)`), "somebody else's stays")
			h.Exec(`drop publication if exists "` + h.s + `"`)
			h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
		})
	}
}

// An entry in the ledger must not make the slot of another program ours.
func TestAForeignSlotWithALedgerNameIsNotTouched(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	at := "/v2/slots/" + h.s
	noted := func() bool {
		return cdctest.Query[bool](h.Database, `select exists (select from pg_publication where obj_description(oid, 'pg_publication') like '%"'||$1||'"%')`, h.s)
	}
	lose := func() {
		h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
		h.Exec(`select pg_drop_replication_slot('`+h.s+`')`, `drop publication "`+h.s+`"`)
	}

	lose()
	shown := h.request("GET", at, "")
	require.Equal(t, http.StatusOK, shown.status, shown.body)
	require.Contains(t, shown.body, `"own":true`)
	require.Contains(t, shown.body, `"status":"missing"`)
	require.Equal(t, "resync_needed", h.request("GET", at+"/stream", "", "Accept", "text/event-stream").code())
	h.Exec(`select pg_create_logical_replication_slot('` + h.s + `', 'pgoutput')`) // by another program, after the slot was seen to be missing
	require.Contains(t, h.request("GET", at, "").body, `"own":false`)
	a := h.request("DELETE", at, "")
	require.Equal(t, http.StatusForbidden, a.status)
	require.Equal(t, "foreign_slot", a.code())
	require.Contains(t, a.body, "was missing before")
	h.Exec(`select pg_drop_replication_slot('` + h.s + `')`)
	require.Equal(t, http.StatusNoContent, h.request("DELETE", at, "").status)
	require.False(t, noted())
	require.Equal(t, http.StatusNotFound, h.request("GET", at, "").status)

	lose()
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`) // created again, it works like any other
	require.Contains(t, h.request("GET", at, "").body, `"status":"reserved"`)
	require.Equal(t, http.StatusNoContent, h.request("DELETE", at, "").status)
	require.False(t, noted())

	lose()
	h.PluginSlot(h.s)
	require.Contains(t, h.request("GET", at, "").body, `"own":false`)
	a = h.request("DELETE", at, "")
	require.Equal(t, http.StatusForbidden, a.status)
	require.Contains(t, a.body, `wal2json`)
	require.Equal(t, 1, cdctest.Query[int](h.Database, `select count(*) from pg_replication_slots where slot_name = $1`, h.s))
}

func TestTableChangesAreAnnounced(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts, `create table b (id int primary key)`)
	h.createSlot(h.s, `"tables":["public.account","public.b"],"snapshot":false`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	h.Exec(`insert into account (id) values (1)`)
	require.Equal(t, "transaction", c.readMessage().Type)
	h.Exec(`alter table account add more text`, `insert into account (id) values (2)`)
	m := c.readMessage()
	require.Equal(t, "schema", m.Type)
	require.Equal(t, []string{"more"}, m.Added)
	require.Equal(t, "account", m.Table)
	m = c.readMessage()
	require.Equal(t, "transaction", m.Type)
	require.Equal(t, "insert", m.Changes[0].Kind)
	h.Exec(`drop table b`)
	m = c.readMessage()
	require.Equal(t, "schema", m.Type)
	require.Equal(t, []string{"public.b"}, m.Unpublished)
}

func TestTablesOfAnyNameAreServed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"in/out", "a.b", `say "x"`, "Upper", "two words", "a*b", `back\slash`, "comma,d", "100%"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, nil)
			quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
			h.Exec(`create table `+quoted+` (id int primary key)`, `insert into `+quoted+` values (1)`)
			h.createSlot(h.s, `"tables":["public.*"]`)
			at := "/v2/slots/" + h.s
			for _, spelling := range []string{"public." + name, `"public".` + quoted} {
				a := h.request("GET", at+"/snapshot/"+url.PathEscape(spelling), "")
				require.Equal(t, http.StatusOK, a.status, a.body)
				require.Contains(t, a.body, `"new":{"id":1}`)
			}
			pattern := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `,`, `\,`).Replace("public." + name)
			c := h.dialStream(at + "/stream?tables=" + url.QueryEscape(pattern))
			h.Exec(`insert into ` + quoted + ` values (2)`)
			require.Equal(t, name, c.readMessage().Changes[0].Table)
		})
	}
}

func TestASpillFolderIsNamedToTheClient(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "gone")
	h := newHarness(t, func(c *server.Config) { c.ClientMemory, c.Stream.SpillFolder = 64<<10, folder })
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	h.Exec(`insert into account (id, name) select i, repeat('x', 1000) from generate_series(1, 5000) i`)
	m := c.readMessage()
	require.Equal(t, "error", m.Type)
	require.Equal(t, "spill_failed", m.Code)
	require.Contains(t, m.Error, folder)
	require.Contains(t, m.Error, "--spill-folder")
}
