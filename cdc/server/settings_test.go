package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// newHarnessOf starts a server that connects with its own role to its own database.
func newHarnessOf(t *testing.T, config *pgx.ConnConfig) *harness {
	t.Helper()
	h := &harness{t: t, s: config.Database}
	h.startWith(config, nil)
	return h
}

func execAs(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := conn.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

// snapshotPage is a page of a snapshot.
type snapshotPage struct {
	Rows []change
}

func TestSettingsOfARoleOrDatabaseDoNotChangeTheServer(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, c := range hostile.Cases() {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			config := hostile.Make(t, cdctest.Admin(t), c)
			owner := hostile.Owner(t, cdctest.Admin(t), config)
			execAs(t, owner, `CREATE TABLE "Täble" (id int PRIMARY KEY, at timestamptz, raw bytea, lasts interval)`,
				`INSERT INTO "Täble" VALUES (1, '2026-03-04 05:06:07+00', decode('dead00ef', 'hex'), make_interval(days => -1, hours => 2))`)
			h := newHarnessOf(t, config)
			time.Sleep(time.Second) // longer than the idle timeouts of the role
			made := h.createSlot(h.s, `"tables":["public.*"]`)
			require.Equal(t, []string{"public.Täble"}, made.Tables)
			a := h.request("GET", "/v2/slots/"+h.s+"/snapshot/"+url.PathEscape("public.Täble"), "")
			require.Equal(t, http.StatusOK, a.status, a.body)
			want := map[string]any{"id": 1.0, "at": "2026-03-04 05:06:07+00", "raw": `\xdead00ef`, "lasts": "-1 days +02:00:00"}
			rows := decodeJSON[snapshotPage](t, a.body).Rows
			require.Len(t, rows, 1)
			require.Equal(t, want, rows[0].New)
			c := h.dialStream("/v2/slots/" + h.s + "/stream")
			execAs(t, owner, `UPDATE "Täble" SET at = at`)
			m := c.readMessage()
			require.Equal(t, want, m.Changes[0].New, "%+v", m)
			require.Equal(t, "Täble", m.Changes[0].Table)

			require.Equal(t, http.StatusOK, h.request("GET", "/v1/init", "").status)
			a = h.request("POST", "/v1/snapshot/data", `{"table":"public.Täble","limit":10}`)
			require.Equal(t, http.StatusOK, a.status, a.body)
			require.Contains(t, a.body, "2026-03-04")
		})
	}
}

func TestNamesAreUTF8InEveryDatabaseEncoding(t *testing.T) {
	t.Parallel()
	for encoding, name := range map[string]string{"LATIN1": "größe", "EUC_JP": "大きさ", "SQL_ASCII": "größe"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			config := hostile.MakeEncoded(t, cdctest.Admin(t), encoding)
			execAs(t, hostile.Owner(t, cdctest.Admin(t), config), `CREATE TABLE "`+name+`" (id int PRIMARY KEY, "`+name+`" text)`, `INSERT INTO "`+name+`" VALUES (1, '`+name+`')`)
			h := newHarnessOf(t, config)
			require.Equal(t, []string{"public." + name}, h.createSlot(h.s, `"tables":["public.*"]`).Tables)
			a := h.request("GET", "/v2/slots/"+h.s+"/snapshot/"+url.PathEscape("public."+name), "")
			require.Equal(t, http.StatusOK, a.status, a.body)
			rows := decodeJSON[snapshotPage](t, a.body).Rows
			require.Len(t, rows, 1)
			require.Equal(t, map[string]any{"id": 1.0, name: name}, rows[0].New)
			require.Equal(t, http.StatusOK, h.request("GET", "/v1/init", "").status)
			a = h.request("POST", "/v1/snapshot/data", `{"table":"`+name+`","limit":10}`)
			require.Equal(t, http.StatusOK, a.status, a.body)
			require.Equal(t, 2, strings.Count(a.body, name), a.body)
		})
	}
}

func TestASnapshotOfATableWithAPolicyIsRefused(t *testing.T) {
	t.Parallel()
	config := hostile.MakeEncoded(t, cdctest.Admin(t), "UTF8")
	execAs(t, hostile.Owner(t, cdctest.Admin(t), config), `CREATE TABLE t (id int PRIMARY KEY, tenant text)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`,
		`ALTER TABLE t ENABLE ROW LEVEL SECURITY`, `ALTER TABLE t FORCE ROW LEVEL SECURITY`, `CREATE POLICY p ON t USING (tenant = 'a')`)
	h := newHarnessOf(t, config)
	h.createSlot(h.s, `"tables":["public.t"]`)
	a := h.request("GET", "/v2/slots/"+h.s+"/snapshot/public.t", "")
	require.Equal(t, http.StatusForbidden, a.status, a.body)
	require.Equal(t, "row_security", a.code())
	require.Contains(t, a.body, "public.t")
	require.Contains(t, a.body, "BYPASSRLS")
	require.Equal(t, http.StatusOK, h.request("GET", "/v1/init", "").status)
	a = h.request("POST", "/v1/snapshot/data", `{"table":"t","limit":10}`)
	require.Equal(t, http.StatusInternalServerError, a.status, a.body)
	require.Contains(t, a.body, "BYPASSRLS")

	cdctest.Administer(t, `ALTER ROLE `+config.User+` BYPASSRLS`)
	require.Equal(t, http.StatusOK, h.request("GET", "/v1/init", "").status)
	a = h.request("POST", "/v1/snapshot/data", `{"table":"t","limit":10}`)
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.Equal(t, 2, strings.Count(a.body, `"id"`), a.body)
}
