package bridge_test

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
)

// proxy stands between a client and a server, and can freeze: nothing passes, and no connection ends.
type proxy struct {
	address string

	listener net.Listener
	server   string
	frozen   chan struct{}
	once     sync.Once
	work     sync.WaitGroup
	mu       sync.Mutex
	all      []net.Conn
}

func newProxy(t *testing.T, server string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{address: listener.Addr().String(), listener: listener, server: server, frozen: make(chan struct{})}
	p.work.Go(p.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		p.freeze()
		p.mu.Lock()
		for _, c := range p.all {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

func (p *proxy) freeze() { p.once.Do(func() { close(p.frozen) }) }

func (p *proxy) serve() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = from.Close()
			continue
		}
		p.mu.Lock()
		p.all = append(p.all, from, to)
		p.mu.Unlock()
		p.work.Go(func() { p.copy(to, from) })
		p.work.Go(func() { p.copy(from, to) })
	}
}

func (p *proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-p.frozen:
			_, _ = io.Copy(io.Discard, from)
			return
		default:
		}
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

// throughProxy starts a client that reaches Postgres, and Temporal if that is asked for, through a proxy.
func (h *harness) throughProxy(controllers *delta.Controllers, temporalToo bool) (*delta.Client, *proxy, *proxy) {
	h.t.Helper()
	config, err := pgxpool.ParseConfig(h.DatabaseURL)
	require.NoError(h.t, err)
	postgres := newProxy(h.t, net.JoinHostPort(config.ConnConfig.Host, strconv.Itoa(int(config.ConnConfig.Port))))
	config.ConnConfig.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, postgres.address)
	}
	config.ConnConfig.RuntimeParams["wal_sender_timeout"] = "0" // the server itself never notices that nothing comes
	pool, err := pgxpool.NewWithConfig(h.t.Context(), config)
	require.NoError(h.t, err)
	reach, temporal := h.Temporal, (*proxy)(nil)
	if temporalToo {
		temporal = newProxy(h.t, h.TemporalAddress)
		reach, err = client.Dial(client.Options{HostPort: temporal.address, Namespace: h.TemporalNamespace, Logger: delta.TemporalLogger(h.Logger)})
		require.NoError(h.t, err)
		h.t.Cleanup(reach.Close)
	}
	c, err := delta.NewClient(pool, &delta.Config{
		Controllers: controllers, Temporal: reach, TemporalNamespace: h.TemporalNamespace, WorkflowIDPrefix: h.Prefix, Logger: h.Logger,
	})
	require.NoError(h.t, err)
	require.NoError(h.t, c.Start(context.Background()))
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Stop(ctx) // it is cut off
	})
	return c, postgres, temporal
}

// Another client goes on with the table when the one that ran it is gone without a word, and Postgres has not noticed: it still keeps the slot for a connection
// that nothing comes from.
func TestAnotherClientGoesOnWithTheTable(t *testing.T) {
	t.Parallel()
	for name, temporalToo := range map[string]bool{"of one that is gone": true, "of one that does not reach Postgres": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, createAccount, `INSERT INTO account VALUES (1, 'free')`)
			_, postgres, temporal := h.throughProxy(h.table(newAccounts()), temporalToo)
			h.read(1)
			worker := newAccounts()
			c := h.start(h.table(worker))
			epoch := func() (n int) {
				require.NoError(t, h.Pool.QueryRow(t.Context(), `SELECT epoch FROM delta_source`).Scan(&n))
				return n
			}
			before := epoch()
			postgres.freeze()
			if temporal != nil {
				temporal.freeze()
			}
			h.exec(`INSERT INTO account VALUES (2, 'paid')`, `DELETE FROM account WHERE number = 1`)
			h.synced(c, worker, account{Number: 2, Plan: "paid"})
			h.deleted(c, worker, "1")
			require.Greater(t, epoch(), before)
		})
	}
}

func TestAClientThatStopsLeavesTheTableToAnotherOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t, createAccount, `INSERT INTO account VALUES (1, 'free')`)
	first := h.start(h.table(newAccounts()))
	h.read(1)
	worker := newAccounts()
	c := h.start(h.table(worker))
	require.NoError(t, first.Stop(t.Context()))
	h.exec(`INSERT INTO account VALUES (2, 'paid')`)
	h.synced(c, worker, account{Number: 2, Plan: "paid"})
	sources, err := c.Sources(t.Context())
	require.NoError(t, err)
	require.Zero(t, sources[0].Failures, "a stop is no failure: %s", sources[0].Error)
}
