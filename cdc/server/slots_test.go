package server_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestASlotForFailovers(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	a := h.request("POST", "/v2/slots", `{"name":"`+h.s+`","tables":["public.account"],"failover":true}`)
	if cdctest.Query[int](h.Database, `select current_setting('server_version_num')::int`) < 170000 {
		require.Equal(t, 400, a.status)
		require.Contains(t, a.body, "Postgres 17 or later")
		return
	}
	require.Equal(t, 201, a.status, a.body)
	require.Contains(t, h.request("GET", "/v2/slots/"+h.s, "").body, `"failover":true`)
}

// Postgres 18 would refuse updates of these tables.
func TestGeneratedColumnsOfAnIdentity(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts, `create table computed (id int primary key, g int generated always as (id + 1) stored)`, `alter table computed replica identity full`)
	status, expected := 201, []string{"insert computed", "update computed", "delete computed", "insert account"}
	if cdctest.Query[int](h.Database, `select current_setting('server_version_num')::int`) >= 180000 {
		status, expected = 422, expected[3:]
	}
	require.Equal(t, status, h.request("POST", "/v2/slots", `{"name":"`+h.s+`","tables":["public.computed"]}`).status)
	all, _ := h.followEvents("/v2/tail")
	all()
	h.Exec(`insert into computed values (1)`, `update computed set id = 2`, `delete from computed`, `insert into account (id) values (1)`)
	next := onlyChanges(all)
	for _, change := range expected {
		e := next()
		require.Equal(t, change, fmt.Sprint(e.Changes[0].Kind, " ", e.Changes[0].Table))
	}
}

func TestBadInputHasAClearAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) {
		c.MaxBody, c.MaxRows, c.Publication = 1000, 50, "the_tail"
		c.Tables = []string{"public.*"}
	})
	h.Exec(accounts, `create table nokey (v text)`, `create table deferred (id int primary key deferrable)`, `create schema secret`, `create table secret.t (id int primary key)`,
		`create table "a'b.c;drop" (id int primary key)`, `insert into "a'b.c;drop" values (1)`)
	foreign := h.s + "_foreign"
	_, err := cdc.CreateSlot(t.Context(), h.Pool, foreign, cdc.SlotOptions{})
	require.NoError(t, err)
	made := h.createSlot(h.s, `"tables":["public.account","public.a*"]`)
	at := "/v2/slots/" + h.s
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"POST", "/v2/slots", `{`, 400, "invalid"},
		{"POST", "/v2/slots", `{"name":"x","tabels":[]}`, 400, "invalid"},
		{"POST", "/v2/slots", `{"name":"x","tables":["` + strings.Repeat("x", 1000) + `"]}`, 413, "too_large"},
		{"POST", "/v2/slots", `{"name":"x"}`, 400, "invalid"},
		{"POST", "/v2/slots", `{"tables":["public.account"]}`, 400, "invalid"},
		{"POST", "/v2/slots", `{"name":"Bad Name","tables":["public.account"]}`, 400, "invalid"},
		{"POST", "/v2/slots", `{"name":"x'; drop table account; --","tables":["public.account"]}`, 400, "invalid"},
		{"POST", "/v2/slots", `{"name":"x","tables":["[a"]}`, 400, "invalid"},
		{"POST", "/v2/slots", `{"name":"x","tables":["public.nowhere"]}`, 404, "unknown_table"},
		{"POST", "/v2/slots", `{"name":"x","tables":["pg_catalog.pg_authid"]}`, 404, "unknown_table"},
		{"POST", "/v2/slots", `{"name":"x","tables":["secret.t"]}`, 403, "table_not_allowed"},
		{"POST", "/v2/slots", `{"name":"x","tables":["public.nokey"]}`, 422, "no_primary_key"},
		{"POST", "/v2/slots", `{"name":"x","tables":["public.deferred"]}`, 422, "no_primary_key"},
		{"POST", "/v2/slots", `{"name":"` + h.s + `","tables":["public.account"]}`, 409, "exists"},
		{"POST", "/v2/slots", `{"name":"` + foreign + `","tables":["public.account"]}`, 409, "exists"},
		{"POST", "/v2/slots", `{"name":"the_tail","tables":["public.account"]}`, 400, "invalid"},
		{"GET", "/v2/slots/nowhere", ``, 404, "unknown_slot"},
		{"DELETE", "/v2/slots/nowhere", ``, 404, "unknown_slot"},
		{"DELETE", "/v2/slots/" + foreign, ``, 403, "foreign_slot"},
		{"GET", "/v2/slots/" + foreign + "/snapshot/public.account", ``, 403, "foreign_slot"},
		{"GET", at + "/snapshot/public.nowhere", ``, 404, "unknown_table"},
		{"GET", at + "/snapshot/secret.t", ``, 404, "unknown_table"},
		{"GET", at + "/snapshot/public.account;drop%20table%20account", ``, 404, "unknown_table"},
		{"GET", at + "/snapshot/public.account?limit=0", ``, 400, "invalid"},
		{"GET", at + "/snapshot/public.account?limit=51", ``, 400, "invalid"},
		{"GET", at + "/snapshot/public.account?limit=x", ``, 400, "invalid"},
		{"GET", at + "/snapshot/public.account?after=x", ``, 400, "bad_after"},
		{"GET", "/nowhere", ``, 404, "unknown_path"},
		{"PUT", "/v2/slots", ``, 405, "method"},
		{"POST", "/healthz", ``, 405, "method"},
	} {
		a := h.request(c.method, c.path, c.body)
		require.Equal(t, c.status, a.status, "%s %s %s: %s", c.method, c.path, c.body, a.body)
		require.Equal(t, c.code, a.code(), c.path)
	}
	for query, code := range map[string]string{"?kinds=read": "invalid", "?tables=[a": "invalid", "?resume=x": "bad_resume"} {
		a := h.request("GET", at+"/stream"+query, "", "Accept", "text/event-stream")
		require.Equal(t, 400, a.status, query)
		require.Equal(t, code, a.code())
	}
	for path, code := range map[string]string{"/v2/slots/nowhere/stream": "unknown_slot", "/v2/slots/" + foreign + "/stream": "foreign_slot"} {
		require.Equal(t, code, h.request("GET", path, "", "Accept", "text/event-stream").code())
	}
	key := base64.RawURLEncoding.EncodeToString([]byte(`{"i":"` + strings.Split(made.Resume, "@")[1] + `","t":"public.account","k":["1'; drop table account"]}`))
	a := h.request("GET", at+"/snapshot/public.account?after="+key, "")
	require.Equal(t, 400, a.status, a.body)
	require.Equal(t, "invalid", a.code())
	// The existing slot is unaffected.
	require.Contains(t, h.request("GET", at+"/snapshot/public.a'b.c;drop", "").body, `"new":{"id":1}`)
	require.Equal(t, 1, cdctest.Query[int](h.Database, `select count(*) from pg_publication where pubname not like 'delta_stream_slots_%'`), "a slot that was refused leaves nothing")
	_, err = cdc.LookupSlot(t.Context(), h.Pool, foreign)
	require.NoError(t, err)
}

func TestASnapshotIsReadConcurrentlyWithItsStream(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts, `insert into account (id) select generate_series(1, 500)`)
	h.createSlot(h.s, `"tables":["public.account"]`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	h.Exec(`delete from account where id > 100`)
	require.Len(t, c.readMessage().Changes, 400)
	var readers sync.WaitGroup
	for range 6 {
		readers.Go(func() {
			after, n := "", 0
			for {
				a := h.request("GET", "/v2/slots/"+h.s+"/snapshot/public.account?limit=120&after="+after, "")
				p := decodeJSON[struct {
					Rows []change
					Next string
				}](t, a.body)
				n += len(p.Rows)
				if after = p.Next; after == "" {
					break
				}
			}
			if n != 500 {
				t.Errorf("%d rows", n)
			}
		})
	}
	readers.Wait()

	path := "/v2/slots/" + h.s + "/snapshot"
	a := h.request("GET", path+"/public.account?limit=1", "")
	next := decodeJSON[struct{ Next string }](t, a.body).Next
	require.Equal(t, http.StatusNoContent, h.request("DELETE", path, "").status)
	for _, a := range []answer{h.request("DELETE", path, ""), h.request("GET", path+"/public.account?after="+next, "")} {
		require.Equal(t, http.StatusGone, a.status)
		require.Equal(t, "snapshot_gone", a.code())
	}
	require.Equal(t, "busy", h.request("DELETE", "/v2/slots/"+h.s, "").code())
}

func TestAnIdleSnapshotEnds(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.SnapshotIdle, c.MaxSnapshots = time.Millisecond, 1 })
	h.Exec(accounts)
	for i := range 2 {
		h.createSlot(fmt.Sprint(h.s, "_", i), `"tables":["public.account"]`)
		require.Eventually(t, func() bool {
			return h.request("GET", fmt.Sprint("/v2/slots/", h.s, "_", i, "/snapshot/public.account"), "").status == http.StatusGone
		}, cdctest.Patience, 10*time.Millisecond)
	}
}

// A process that dies before it has created the slot leaves a publication.
func TestASlotIsCreatedOverALeftoverPublication(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.MaxSnapshots = 1 })
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"]`)
	a := h.request("POST", "/v2/slots", `{"name":"`+h.s+`_2","tables":["public.account"]}`)
	require.Equal(t, "no_room", a.code())
	h.stop()
	h.Exec(`select pg_drop_replication_slot('` + h.s + `')`)
	h.startServer(nil)
	require.Contains(t, h.request("GET", "/v2/slots/"+h.s, "").body, `"status":"missing"`)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	require.Contains(t, h.request("GET", "/v2/slots/"+h.s, "").body, `"status":"reserved"`)

	// A creation that times out leaves nothing.
	h.stop()
	h.startServer(func(c *server.Config) { c.CreateTimeout = 300 * time.Millisecond })
	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `insert into account (id) values (1)`)
	require.NoError(t, err)
	a = h.request("POST", "/v2/slots", `{"name":"`+h.s+`_3","tables":["public.account"]}`)
	require.Equal(t, http.StatusServiceUnavailable, a.status, a.body)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, http.StatusNotFound, h.request("GET", "/v2/slots/"+h.s+"_3", "").status)
	h.stop()
	h.startServer(nil)
	h.createSlot(h.s+"_3", `"tables":["public.account"]`)
}

// Each creation takes connections of the shared pool, and must not wait for one that another creation holds: such a wait would only end
// with CreateTimeout, and with an error.
func TestManySlotsAreCreatedAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	var makers sync.WaitGroup
	for i := range 12 {
		makers.Go(func() {
			a := h.request("POST", "/v2/slots", fmt.Sprintf(`{"name":"%s_%d","tables":["public.account"],"snapshot":false}`, h.s, i))
			if a.status != http.StatusCreated {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	makers.Wait()
}

func TestASlotThatIsReadKeepsItsSnapshot(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts, `insert into account (id) values (1)`)
	h.createSlot(h.s, `"tables":["public.account"]`)
	h.dialStream("/v2/slots/" + h.s + "/stream")
	require.Equal(t, "busy", h.request("DELETE", "/v2/slots/"+h.s, "").code())
	require.Equal(t, http.StatusOK, h.request("GET", "/v2/slots/"+h.s+"/snapshot/public.account", "").status)
}

// A dot may belong to the schema or to the table. Two tables with the same full name must not be confused when checking their uses.
func TestTablesWithDotsInNamesAreNotMixedUp(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(`create schema "a.b"`, `create schema a`, `create table "a.b".c (id int)`, `create table a."b.c" (id int primary key)`,
		`create schema "d.e"`, `create schema d`, `create table "d.e".f (id int primary key)`, `create table d."e.f" (id int)`)
	for _, name := range []string{"a.b.c", "d.e.f"} {
		a := h.request("POST", "/v2/slots", `{"name":"`+h.s+`","tables":["`+name+`"],"snapshot":false}`)
		require.Equal(t, "no_primary_key", a.code(), a.body)
	}
	all, _ := h.followEvents("/v2/tail")
	all()
	h.Exec(`insert into "a.b".c values (1)`, `update "a.b".c set id = 2`, `insert into d."e.f" values (1)`, `update d."e.f" set id = 2`)
}
