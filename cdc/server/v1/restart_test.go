//go:build linux

package v1_test

import (
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestAServerThatCannotDecodeIsExplained(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	p := cdctest.NewPrivate(t, "wal_level=replica")
	s := serveOn(t, p.Database)
	status, answer := s.request(http.MethodGet, "/v1/init", "")
	require.Equal(t, http.StatusInternalServerError, status)
	require.JSONEq(t, `{"error":"unable to init session","detail":"wal_level \"replica\": logical: ALTER SYSTEM SET wal_level = 'logical', then restart the server"}`, answer)
	require.Zero(t, cdctest.Query[int](p.Database, `SELECT count(*)::int FROM pg_publication`), "nothing is left behind")
}

func TestAStreamSurvivesADatabaseRestart(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	p := cdctest.NewPrivate(t, "wal_level=logical")
	p.Exec(testTable...)
	p.Exec(`create type mood as enum ('ok')`, `create table later (id int primary key, m mood)`)
	s := serveOn(t, p.Database)
	slot := s.init()
	s.readSnapshot(`{"table": "test_table", "limit": 1}`)
	c := s.dialStream(slot)
	s.Exec(`insert into test_table values (100, 'a')`)
	lsn, _ := c.receiveRows()
	c.sendAck(lsn)
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		p.Stop(signal)
		p.Start()
		p.Pool.Reset()
		// The names of this table's types are looked up after the restart.
		s.Exec(`insert into later select coalesce(max(id) + 1, 1), 'ok' from later`)
		frame := c.receiveText()
		require.Contains(t, frame, `"columntypes":["integer","mood"]`)
		// The snapshot has ended with Postgres, and the error says so.
		require.Eventually(t, func() bool {
			status, _ := s.request(http.MethodPost, "/v1/snapshot/data", `{"table": "test_table", "limit": 1}`)
			return status == http.StatusServiceUnavailable
		}, cdctest.Patience, 20*time.Millisecond)
	}
	second := s.init()
	require.NotEqual(t, slot, second)
	require.NotEmpty(t, s.readSnapshot(`{"table": "test_table", "limit": 1}`))
}
