package server_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// A typing error in a pattern would make the client wait for ever, and acknowledge the changes that it wanted.
func TestAPatternWithoutATableIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(`create table account (id int primary key)`)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	h.Exec(`insert into account values (1)`)
	before, err := cdc.LookupSlot(t.Context(), h.Pool, h.s)
	require.NoError(t, err)
	for _, path := range []string{
		"/v2/slots/" + h.s + "/stream?tables=public.acount", "/v2/slots/" + h.s + "/stream?tables=public.account,account", "/v2/tail?tables=account",
	} {
		answer := h.request("GET", path, "", "Accept", "text/event-stream")
		require.Equal(t, http.StatusNotFound, answer.status, answer.body)
		require.Contains(t, answer.body, "unknown_table")
		require.Contains(t, answer.body, "public.account", "the tables that there are")
	}
	after, err := cdc.LookupSlot(t.Context(), h.Pool, h.s)
	require.NoError(t, err)
	require.Equal(t, before.Confirmed, after.Confirmed)
	next, _ := h.followEvents("/v2/slots/" + h.s + "/stream?tables=*.acc*")
	for e := next(); e.kind != "transaction"; e = next() {
		require.NotEqual(t, "error", e.kind)
	}
}

// Only the owner may publish a table, so a tail has the tables of the role.
func TestATailHasOnlyTheTablesOfItsRole(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	role := d.Name
	d.Exec(`create role ` + role + ` login replication password 'x'`)
	t.Cleanup(func() {
		d.Exec(`drop owned by ` + role + ` cascade`)
		cdctest.Administer(t, `drop role `+role)
	})
	d.Exec(`create table mine (id int primary key)`, `create table other (id int primary key)`, `alter table mine owner to `+role,
		`grant create on database `+d.Name+` to `+role)
	h := &harness{Database: d, t: t, s: d.Name}
	h.startServer(func(c *server.Config) {
		c.Conn.User, c.Conn.Password = role, "x"
	})
	next, stop := h.followEvents("/v2/tail")
	defer stop()
	for e := next(); e.kind != "position"; e = next() {
		require.NotEqual(t, "error", e.kind)
	}
	h.Exec(`insert into other values (1)`, `insert into mine values (2)`)
	for {
		if e := next(); e.kind == "transaction" {
			require.Len(t, e.Changes, 1)
			require.Equal(t, "mine", e.Changes[0].Table)
			break
		}
	}
}
