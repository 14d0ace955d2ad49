//go:build linux

package server_test

import (
	"net/http"
	"syscall"
	"testing"

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

// A standby answers, and cannot be streamed from: a load balancer has to send clients elsewhere.
func TestAServerOnAStandbyIsNotReady(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	primary := cdctest.NewPrivate(t, "wal_level=logical")
	standby := primary.Standby("wal_level=logical", "hot_standby=on")
	h := &harness{Database: standby.Database, t: t, s: "s"}
	h.start(nil)
	ready := h.do("GET", "/readyz", "")
	require.Equal(t, http.StatusServiceUnavailable, ready.status)
	require.Contains(t, ready.body, "standby")
	require.Equal(t, http.StatusOK, h.do("GET", "/healthz", "").status)
	require.Equal(t, http.StatusOK, h.do("GET", "/livez", "").status)
}

// The client notices nothing but a pause, and nothing is lost or comes twice.
func TestPostgresIsRestartedUnderAStream(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	p := cdctest.NewPrivate(t, "wal_level=logical")
	h := &harness{Database: p.Database, t: t, s: "s"}
	h.start(nil)
	h.Exec(accounts)
	h.slot("s", `"tables":["public.account"]`)
	c := h.dial("/v2/slots/s/stream")
	h.Exec(`insert into account (id) values (1)`)
	first := c.read()
	require.EqualValues(t, 1, first.Changes[0].New["id"])
	c.ack(first.LSN)
	h.confirmed("s", first.LSN)
	p.Stop(syscall.SIGQUIT)
	require.Equal(t, http.StatusServiceUnavailable, h.do("GET", "/healthz", "").status)
	require.Equal(t, http.StatusServiceUnavailable, h.do("GET", "/readyz", "").status)
	require.Equal(t, http.StatusOK, h.do("GET", "/livez", "").status, "to restart it would not bring the database back")
	require.Contains(t, h.do("GET", "/metrics", "").body, "delta_stream_database_up 0\n")
	require.Equal(t, http.StatusServiceUnavailable, h.do("GET", "/v2/slots", "").status)
	p.Start()
	h.Exec(`insert into account (id) values (2)`)
	second := c.read()
	require.EqualValues(t, 2, second.Changes[0].New["id"])
	c.ack(second.LSN)
	h.confirmed("s", second.LSN)
	require.Equal(t, "snapshot_gone", h.do("GET", "/v2/slots/s/snapshot/public.account", "").code())
}
