package activities_test

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

type poolConfig = pgxpool.Config

// otherPool is a pool of its own on the harness's database.
func otherPool(t *testing.T, h *harness, change func(*poolConfig)) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(h.env.DatabaseURL)
	require.NoError(t, err)
	change(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// losing makes a pool lose the answer of an UPDATE that took effect, once for each time it is armed.
type losing struct {
	armed atomic.Bool
	lost  atomic.Int64
	// answer is another one that is lost, and most how often it is; once where it is 0.
	answer string
	most   int64
}

func (l *losing) configure(c *poolConfig) {
	dial := c.ConnConfig.DialFunc
	c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &losingConn{conn, l}, nil
	}
}

type losingConn struct {
	net.Conn
	losing *losing
}

func (c *losingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	answer := cmp.Or(c.losing.answer, "UPDATE 1\x00")
	if err == nil && bytes.Contains(p[:n], []byte(answer)) && c.losing.armed.CompareAndSwap(true, false) {
		c.losing.armed.Store(c.losing.lost.Add(1) < c.losing.most)
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}
