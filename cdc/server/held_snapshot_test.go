package server_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// heldSlot is the answer of GET /v2/slots/{name} for a slot with a held snapshot.
type heldSlot struct {
	Snapshot bool
	PID      int
	Held     *struct {
		Since  time.Time
		PID    int
		Tables []lockedTable
	}
	Reading []lockedTable
}

type lockedTable struct {
	Table string
	PID   int
	Since time.Time
}

func TestASnapshotLocksATableUntilItWasRead(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.SnapshotGrace = 3 * time.Second })
	h.Exec(accounts, `insert into account (id) select generate_series(1, 5)`, `create table other (id int primary key)`)
	h.createSlot(h.s, `"tables":["public.*"]`)
	at := "/v2/slots/" + h.s
	show := func() heldSlot { return decodeJSON[heldSlot](t, h.request("GET", at, "").body) }
	locker := func() int {
		return cdctest.Query[int](h.Database, `select coalesce(sum(pid), 0) from pg_locks where locktype = 'relation' and relation = 'account'::regclass`)
	}
	first := decodeJSON[struct{ Next string }](t, h.request("GET", at+"/snapshot/public.account?limit=3", "").body)
	require.NotEmpty(t, first.Next)
	state := show()
	require.True(t, state.Snapshot)
	require.WithinDuration(t, time.Now(), state.Held.Since, cdctest.Patience)
	require.Equal(t, 1, cdctest.Query[int](h.Database, `select count(*) from pg_stat_activity where pid = $1 and backend_type = 'walsender'`, state.Held.PID))
	require.Len(t, state.Held.Tables, 1)
	require.Equal(t, "public.account", state.Held.Tables[0].Table)
	require.Equal(t, locker(), state.Held.Tables[0].PID)
	require.False(t, state.Held.Tables[0].Since.IsZero())

	last := h.request("GET", at+"/snapshot/public.account?limit=3&after="+first.Next, "")
	require.Contains(t, last.body, `"next":null`)
	require.Zero(t, locker())
	require.Empty(t, show().Held.Tables)
	h.Exec(`alter table account add column n int`)
	require.Equal(t, last.body, h.request("GET", at+"/snapshot/public.account?limit=3&after="+first.Next, "").body, "the last page can be asked for again")
	require.Zero(t, locker())

	c := h.dialStream(at + "/stream")
	require.Equal(t, cdctest.Query[int](h.Database, `select active_pid from pg_replication_slots where slot_name = $1`, h.s), show().PID)
	require.NoError(t, c.conn.CloseNow())
	require.True(t, show().Snapshot, "one table was not read yet")
	require.Contains(t, h.request("GET", at+"/snapshot/public.other", "").body, `"next":null`)
	require.Eventually(t, func() bool { return !show().Snapshot }, cdctest.Patience, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		return cdctest.Query[int](h.Database, `select count(*) from pg_stat_activity where pid = $1 and backend_start <= $2`, state.Held.PID, state.Held.Since) == 0
	}, cdctest.Patience, 20*time.Millisecond, "vacuum is not held back")
	require.Equal(t, "snapshot_gone", h.request("GET", at+"/snapshot/public.other", "").code())
}

func TestASnapshotEndsAfterSnapshotMax(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.SnapshotMax = time.Second })
	h.Exec(accounts, `insert into account (id) select generate_series(1, 5)`)
	h.createSlot(h.s, `"tables":["public.*"]`)
	require.Eventually(t, func() bool {
		a := h.request("GET", "/v2/slots/"+h.s+"/snapshot/public.account?limit=3", "")
		return a.status == http.StatusGone && a.code() == "snapshot_gone"
	}, cdctest.Patience, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		return strings.Contains(h.log.String(), "SnapshotMax") && decodeJSON[heldSlot](t, h.request("GET", "/v2/slots/"+h.s, "").body).Held == nil
	}, cdctest.Patience, 20*time.Millisecond, "its end is logged, and it is let go of, after it cannot be read any more")
	h.Exec(`alter table account add column n int`)
}

// The snapshot of /v1 is listed, measured and limited like others.
func TestTheSnapshotOfV1IsListedWithItsLocks(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts, `insert into account (id) values (1)`)
	made := decodeJSON[struct{ SlotName string }](t, h.request("GET", "/v1/init", "").body)
	a := h.request("POST", "/v1/snapshot/data", `{"table":"account","limit":10}`)
	require.Equal(t, http.StatusOK, a.status, a.body)
	held := decodeJSON[heldSlot](t, h.request("GET", "/v2/slots/"+made.SlotName, "").body).Held
	require.NotNil(t, held)
	require.Len(t, held.Tables, 1)
	require.Equal(t, "public.account", held.Tables[0].Table)
	require.Equal(t, held.Tables[0].PID, cdctest.Query[int](h.Database, `select pid from pg_locks where locktype = 'relation' and relation = 'account'::regclass`))
	now := h.scrapeMetrics()
	require.Positive(t, now[`delta_stream_snapshot_held_seconds{slot="`+made.SlotName+`"}`])
	require.Positive(t, now[`delta_stream_table_locked_seconds{slot="`+made.SlotName+`",table="public.account"}`])
}

func TestTheSnapshotOfV1EndsAfterSnapshotMax(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *server.Config) { c.SnapshotMax = time.Second })
	h.Exec(accounts, `insert into account (id) values (1)`)
	made := decodeJSON[struct{ SlotName string }](t, h.request("GET", "/v1/init", "").body)
	require.Eventually(t, func() bool { // keep reading
		response, err := h.http.Post(h.url+"/v1/snapshot/data", "application/json", strings.NewReader(`{"table":"account","limit":10}`))
		if err != nil { // the answer is aborted after its beginning
			return false
		}
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		return err == nil && response.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(text), "SnapshotMax")
	}, cdctest.Patience, 20*time.Millisecond)
	require.Nil(t, decodeJSON[heldSlot](t, h.request("GET", "/v2/slots/"+made.SlotName, "").body).Held)
	h.Exec(`alter table account add column n int`)
	require.Contains(t, h.log.String(), "SnapshotMax")
}

// In a resync, a table is read in chunks, each of which locks it for a moment.
func TestTheLockOfAResyncChunkIsListed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts, `insert into account (id) values (1)`, `create index account_name on account (name)`)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false,"consumers":["a"]`)
	show := func() heldSlot { return decodeJSON[heldSlot](t, h.request("GET", "/v2/slots/"+h.s, "").body) }

	// A chunk waits for the transactions that can write into the table. Then this one blocks, because it cannot plan its statement: see cdc.
	writer, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = writer.Rollback(context.Background()) }()
	_, err = writer.Exec(t.Context(), `lock table account in row exclusive mode`)
	require.NoError(t, err)
	c := h.dialStream("/v2/slots/" + h.s + "/stream?consumer=a&resync=true")
	require.Eventually(t, func() bool {
		return cdctest.Query[bool](h.Database, `select exists (select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and query like '%virtualtransaction FROM pg_locks%')`)
	}, cdctest.Patience, 20*time.Millisecond)
	require.Empty(t, show().Reading)
	stopper, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = stopper.Rollback(context.Background()) }()
	_, err = stopper.Exec(t.Context(), `alter index account_name set tablespace pg_default`)
	require.NoError(t, err)
	require.NoError(t, writer.Rollback(t.Context()))

	var state heldSlot
	require.Eventually(t, func() bool { state = show(); return len(state.Reading) == 1 }, cdctest.Patience, 20*time.Millisecond)
	require.Equal(t, "public.account", state.Reading[0].Table)
	require.False(t, state.Reading[0].Since.IsZero())
	require.Nil(t, state.Held)
	require.False(t, state.Snapshot)
	require.Equal(t, state.Reading[0].PID, cdctest.Query[int](h.Database, `select pid from pg_locks where locktype = 'relation' and relation = 'account'::regclass and mode = 'AccessShareLock'`))
	require.Positive(t, h.scrapeMetrics()[`delta_stream_table_locked_seconds{slot="`+h.s+`",table="public.account"}`])
	require.NoError(t, stopper.Rollback(t.Context()))
	require.Equal(t, []float64{1}, c.readMessage().insertedIDs())
	require.Eventually(t, func() bool { return len(show().Reading) == 0 }, cdctest.Patience, 20*time.Millisecond)
}
