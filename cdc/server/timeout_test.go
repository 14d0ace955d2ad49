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

	stream := func(path string) answer { return h.request("GET", path, "", "Accept", "text/event-stream") }
	// On a busy machine, the time may be over before the creation of the slot has begun, and then the answer does not speak of transactions.
	waitsFor := func(text string, create func() answer) {
		t.Helper()
		require.Eventually(t, func() bool {
			a := create()
			return a.status == http.StatusServiceUnavailable && a.code() == "timeout" &&
				strings.Contains(a.body, text+" was not created within 1s: a new slot waits for the transactions that are running")
		}, cdctest.Patience, time.Millisecond)
	}
	waitsFor("the slot of the tail", func() answer { return stream("/v2/tail") })
	waitsFor(`_new\"`, func() answer {
		return h.request("POST", "/v2/slots", `{"name":"`+h.s+`_new","tables":["public.account"]}`)
	})
	silent.Store(true)
	existing := stream("/v2/slots/" + h.s + "/stream")
	require.Equal(t, http.StatusServiceUnavailable, existing.status, existing.body)
	require.Equal(t, "timeout", existing.code())
	require.Contains(t, existing.body, "the database did not answer in time")
	require.NotContains(t, existing.body, "new slot")
}
