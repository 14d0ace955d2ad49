package server_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
)

// Only a new slot waits for running transactions. A stream of a slot that exists does not, so its client is not sent to look for them.
func TestATimeoutSaysWhatWasWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	h.stop()
	var silent atomic.Bool // new connections are not answered
	config := h.Config()
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if silent.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return dial(ctx, network, address)
	}
	h.startWith(config, func(c *server.Config) { c.Stream.Timeout, c.CreateTimeout = time.Second, time.Second })
	tx, err := h.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `insert into account (id) values (1)`)
	require.NoError(t, err)

	refused := func(a answer) string {
		require.Equal(t, http.StatusServiceUnavailable, a.status, a.body)
		require.Equal(t, "timeout", a.code())
		return a.body
	}
	stream := func(path string) string { return refused(h.request("GET", path, "", "Accept", "text/event-stream")) }
	const waits = "a new slot waits for the transactions that are running"
	require.Contains(t, stream("/v2/tail"), "the slot of the tail was not created within 1s: "+waits)
	made := refused(h.request("POST", "/v2/slots", `{"name":"`+h.s+`_new","tables":["public.account"]}`))
	require.Contains(t, made, "was not created within 1s: "+waits)
	silent.Store(true)
	existing := stream("/v2/slots/" + h.s + "/stream")
	require.Contains(t, existing, "the database did not answer in time")
	require.NotContains(t, existing, "new slot")
}
