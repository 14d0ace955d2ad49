package delta_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	sdkpb "go.temporal.io/api/sdk/v1"
)

// silentProxy forwards connections. While it is silent, it accepts data and delivers none, like a cut network.
type silentProxy struct {
	net.Listener
	silent atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newSilentProxy(t *testing.T, target string) *silentProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &silentProxy{Listener: l}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go p.pipe(out, in)
			go p.pipe(in, out)
		}
	}()
	t.Cleanup(p.end)
	return p
}

func (p *silentProxy) pipe(to, from net.Conn) {
	defer to.Close() //nolint:errcheck // two goroutines close it
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if p.silent.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// heal ends the silence: connections that have lost data break, and new ones work.
func (p *silentProxy) heal() {
	p.silent.Store(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

func (p *silentProxy) end() {
	_ = p.Close()
	p.heal()
}

// poolThrough opens a pool through a proxy.
func (h *harness) poolThrough() (*pgxpool.Pool, *silentProxy) {
	h.t.Helper()
	settings, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(h.t, err)
	target := net.JoinHostPort(settings.ConnConfig.Host, strconv.Itoa(int(settings.ConnConfig.Port)))
	proxy := newSilentProxy(h.t, target)
	settings.ConnConfig.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, proxy.Addr().String())
	}
	pool, err := pgxpool.NewWithConfig(h.t.Context(), settings)
	require.NoError(h.t, err)
	return pool, proxy
}

// workflowDetails returns the details that the Temporal UI shows of a workflow; empty if no worker answers.
func (h *harness) workflowDetails(workflowID string) string {
	h.t.Helper()
	value, err := h.Temporal.QueryWorkflow(context.Background(), workflowID, "", "__temporal_workflow_metadata")
	if err != nil {
		return ""
	}
	var metadata sdkpb.WorkflowMetadata
	require.NoError(h.t, value.Get(&metadata))
	return metadata.GetCurrentDetails()
}

// exec changes rows without Delta's knowledge.
func (h *harness) exec(statement string, args ...any) {
	h.t.Helper()
	_, err := h.Pool.Exec(context.Background(), statement, args...)
	require.NoError(h.t, err)
}

// awaitRest waits until nothing is due and nothing is to be touched. Resources that wait for a parent are done when the parent is.
func (h *harness) awaitRest() {
	h.t.Helper()
	restless := ""
	until(h.t, func() bool {
		require.NoError(h.t, h.Pool.QueryRow(h.t.Context(), `SELECT concat((SELECT string_agg(r::text, E'\n') FROM delta_resource r
			WHERE (state IN ('scheduled', 'expired', 'failed', 'pending') AND delta_unsynced(awaited_parents) IS NULL) OR (state = 'synced' AND due_at IS NOT NULL)
			OR greatest(claimed_until, (SELECT c.claimed_until FROM delta_claim c WHERE c.id = r.claim)) > now()),
			(SELECT string_agg(t::text, E'\n') FROM delta_touch t))`).Scan(&restless))
		return restless == ""
	}, "%s", shown[string]{&restless})
}

// atomicCounter makes unique names.
type atomicCounter struct{ n atomic.Int64 }

func (c *atomicCounter) next(prefix string) string { return prefix + strconv.FormatInt(c.n.Add(1), 10) }

func stringOf(v any) string { return fmt.Sprint(v) }

// got receives a value that must come.
func got[T any](t *testing.T, from <-chan T, why ...any) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(patience):
		require.Fail(t, "nothing came through the channel", why...)
	}
	return value
}
