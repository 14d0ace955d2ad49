package server_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// Only a new slot waits for running transactions. A stream of a slot that exists does not, so its client is not sent to look for them.
func TestATimeoutSaysWhatWasWaitedFor(t *testing.T) {
	soak.Long(t)
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
	const waits, late = " was not created within 1s: a new slot waits for the transactions that are running", "the database did not answer in time"
	// On a busy machine, the time may be over before the creation of the slot has begun.
	waitsFor := func(what string, create func() string) {
		t.Helper()
		for until := time.Now().Add(cdctest.Patience); ; {
			body := create()
			if strings.Contains(body, what+waits) {
				return
			}
			require.Contains(t, body, late)
			require.True(t, time.Now().Before(until), body)
		}
	}
	waitsFor("the slot of the tail", func() string { return stream("/v2/tail") })
	waitsFor(`_new\"`, func() string {
		return refused(h.request("POST", "/v2/slots", `{"name":"`+h.s+`_new","tables":["public.account"]}`))
	})
	silent.Store(true)
	existing := stream("/v2/slots/" + h.s + "/stream")
	require.Contains(t, existing, late)
	require.NotContains(t, existing, "new slot")
}
