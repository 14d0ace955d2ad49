//go:build linux

package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestAServerThatCannotDecode(t *testing.T) {
	t.Parallel()
	p := cdctest.NewPrivate(t, "wal_level=replica")
	_, err := server.New(t.Context(), server.Config{Conn: p.Config()})
	require.ErrorContains(t, err, "ALTER SYSTEM SET wal_level = 'logical', then restart the server")
	var invalid *cdc.InvalidError
	require.ErrorAs(t, err, &invalid)
}

// A standby answers, but its slots cannot be streamed: a load balancer must send clients elsewhere.
func TestAServerOnAStandbyIsNotReady(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	primary := cdctest.NewPrivate(t, "wal_level=logical")
	standby := primary.Standby("wal_level=logical", "hot_standby=on")
	h := &harness{Database: standby.Database, t: t, s: "s"}
	h.startServer(nil)
	require.Eventually(t, func() bool { // a probe waits 5 s
		ready := h.request("GET", "/readyz", "")
		return ready.status == http.StatusServiceUnavailable && strings.Contains(ready.body, "standby")
	}, cdctest.Patience, time.Millisecond)
	require.Eventually(t, func() bool { return h.request("GET", "/healthz", "").status == http.StatusOK }, cdctest.Patience, time.Millisecond)
	require.Equal(t, http.StatusOK, h.request("GET", "/livez", "").status)
}

// The client notices only a pause, and nothing is lost or sent twice.
func TestPostgresIsRestartedUnderAStream(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	p := cdctest.NewPrivate(t, "wal_level=logical")
	h := &harness{Database: p.Database, t: t, s: "s"}
	h.startServer(nil)
	h.Exec(accounts)
	h.createSlot("s", `"tables":["public.account"]`)
	c := h.dialStream("/v2/slots/s/stream")
	h.Exec(`insert into account (id) values (1)`)
	first := c.readMessage()
	require.EqualValues(t, 1, first.Changes[0].New["id"])
	c.sendAck(first.LSN)
	h.awaitConfirmed("s", first.LSN)
	p.Stop(syscall.SIGQUIT)
	require.Equal(t, http.StatusServiceUnavailable, h.request("GET", "/healthz", "").status)
	require.Equal(t, http.StatusServiceUnavailable, h.request("GET", "/readyz", "").status)
	require.Equal(t, http.StatusOK, h.request("GET", "/livez", "").status, "to restart it would not bring the database back")
	require.Contains(t, h.request("GET", "/metrics", "").body, "delta_stream_database_up 0\n")
	require.Equal(t, http.StatusServiceUnavailable, h.request("GET", "/v2/slots", "").status)
	p.Start()
	h.Exec(`insert into account (id) values (2)`)
	second := c.readMessage()
	require.EqualValues(t, 2, second.Changes[0].New["id"])
	c.sendAck(second.LSN)
	h.awaitConfirmed("s", second.LSN)
	require.Equal(t, "snapshot_gone", h.request("GET", "/v2/slots/s/snapshot/public.account", "").code())
}

// Neither a client that does not acknowledge nor one that does not read keeps Postgres from stopping, and nothing is lost.
func TestPostgresStopsUnderClientsThatDoNotAcknowledge(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	p := cdctest.NewPrivate(t, "wal_level=logical")
	h := &harness{Database: p.Database, t: t, s: "s"}
	h.startServer(func(c *server.Config) { c.ClientMemory, c.WriteTimeout = 64<<10, cdctest.Patience })
	h.Exec(accounts, `create table large (id int primary key, v text)`)
	h.createSlot("s", `"tables":["public.account"],"snapshot":false`)
	h.createSlot("deaf", `"tables":["public.large"],"snapshot":false`)
	c := h.dialStream("/v2/slots/s/stream")
	h.dialStream("/v2/slots/deaf/stream") // it never reads
	h.Exec(`insert into account (id) values (1)`)
	first := c.readMessage()
	c.sendAck(first.LSN)
	h.awaitConfirmed("s", first.LSN)
	h.Exec(`insert into account (id) values (2)`)
	c.readMessage()
	for id := range 400 {
		h.Exec(fmt.Sprintf(`insert into large values (%d, repeat('x', 100000))`, id))
	}
	require.Eventually(t, func() bool {
		return cdctest.Query[int](h.Database, `select count(*) from pg_stat_activity where wait_event = 'WalSenderWriteData'`) == 1
	}, cdctest.Patience, 20*time.Millisecond)
	p.Stop(syscall.SIGINT)
	p.Start()
	require.NoError(t, c.conn.CloseNow())
	require.Eventually(t, func() bool { return h.request("GET", "/readyz", "").status == http.StatusOK }, cdctest.Patience, 20*time.Millisecond)
	h.awaitFree("s")
	c = h.dialStream("/v2/slots/s/stream?resume=" + first.Resume)
	require.EqualValues(t, 2, c.readMessage().Changes[0].New["id"], "it was not acknowledged")
}
