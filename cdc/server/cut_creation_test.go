package server_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
)

// gate is between a server and Postgres. It can hold back a COMMIT that the server has sent.
type gate struct {
	holdsCommit atomic.Bool
	// held is closed when a COMMIT is held back, which goes on when released is closed.
	held, released chan struct{}
}

func (g *gate) config(h *harness) *pgx.ConnConfig {
	config := h.Config()
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &gatedConn{Conn: conn, gate: g}, err
	}
	return config
}

// gatedConn is a connection that stays open for its held COMMIT after the server has closed it.
type gatedConn struct {
	net.Conn
	gate *gate
	held atomic.Bool
}

func (c *gatedConn) Write(p []byte) (int, error) {
	switch {
	case c.held.Load():
	case bytes.Equal(p, []byte("Q\x00\x00\x00\x0bcommit\x00")) && c.gate.holdsCommit.CompareAndSwap(true, false):
		c.held.Store(true)
		commit := bytes.Clone(p)
		go func() {
			<-c.gate.released
			_ = c.SetDeadline(time.Time{})
			_, _ = c.Conn.Write(commit)
			_ = c.Conn.Close()
		}()
		close(c.gate.held)
	default:
		return c.Conn.Write(p)
	}
	return len(p), nil
}

func (c *gatedConn) Close() error {
	if c.held.Load() {
		return nil
	}
	return c.Conn.Close()
}

// cutOff asks for a slot, and goes away when an event has happened.
func (h *harness) cutOff(body string, happened func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/v2/slots", strings.NewReader(body))
	require.NoError(h.t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if response, err := h.http.Do(request); err == nil {
			_ = response.Body.Close()
			h.t.Errorf("the slot was created, or refused: %s", response.Status)
		}
	}()
	require.Eventually(h.t, happened, cdctest.Patience, time.Millisecond)
	cancel()
	<-ended
}

// The transaction that creates the publication of a slot may commit after its client was cut off.
func TestACommitAfterTheEndOfACreationIsUndone(t *testing.T) {
	t.Parallel()
	g := &gate{held: make(chan struct{}), released: make(chan struct{})}
	h := newHarness(t, nil)
	h.Exec(accounts)
	h.stop()
	h.startWith(g.config(h), nil)
	g.holdsCommit.Store(true)
	h.cutOff(`{"name":"`+h.s+`","tables":["public.account"]}`, func() bool {
		select {
		case <-g.held:
			return true
		default:
			return false
		}
	})
	hasLocks := func(condition string) bool {
		return cdctest.Query[bool](h.Database, `select exists (select from pg_locks where locktype = 'advisory' and `+condition+`
			and database = (select oid from pg_database where datname = current_database()))`)
	}
	require.Eventually(t, func() bool { return hasLocks("not granted") }, cdctest.Patience, time.Millisecond, "undoing waits for the transaction")
	close(g.released)
	require.Eventually(t, func() bool { return !hasLocks("true") }, cdctest.Patience, time.Millisecond, "it has ended")
	require.Equal(t, http.StatusNotFound, h.request("GET", "/v2/slots/"+h.s, "").status)
	require.Zero(t, cdctest.Query[int](h.Database, `select count(*) from pg_publication`))
	require.NotContains(t, h.log.String(), "level=ERROR")
	h.createSlot(h.s, `"tables":["public.account"]`)
}
