//go:build linux

package server_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// Postgres ignores a request to cancel a command that it has not read yet, and a request can be lost.
func TestACreationEndsWhoseCancellationIsLost(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	// Not the server that tests share: until the transaction ends, none of them could create a slot.
	h := &harness{Database: cdctest.NewPrivate(t, "wal_level=logical").Database, t: t, s: "s"}
	h.startWith(cdctest.LoseCancels(h.Config()), nil)
	h.Exec(accounts)
	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `insert into account (id) values (1)`)
	require.NoError(t, err)
	for _, snapshot := range []string{"true", "false"} {
		name := h.s + "_" + snapshot
		h.cutOff(`{"name":"`+name+`","tables":["public.account"],"snapshot":`+snapshot+`}`, func() bool {
			return cdctest.Query[bool](h.Database, `select exists (select from pg_replication_slots where slot_name = $1)`, name)
		})
		require.Eventually(t, func() bool { return h.request("GET", "/v2/slots/"+name, "").status == http.StatusNotFound }, cdctest.Patience, 10*time.Millisecond)
		require.NotContains(t, h.log.String(), "level=ERROR", "the transaction that the slot waits for still runs")
	}
}
