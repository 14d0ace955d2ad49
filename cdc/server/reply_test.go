package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
)

// cutConn is a connection that loses its other end when it is cut.
type cutConn struct {
	net.Conn
	cut *atomic.Bool
}

// Read checks for the cut after the read, because pgx may have started a read in the background before the cut.
func (c cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.cut.Load() {
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}

// A lost connection is reported as the database's fault, not the server's, with each protocol that a statement can use: pgx returns another
// error for each.
func TestAConnectionLostInAStatementIsUnreachable(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	for name, run := range map[string]func(context.Context, *pgx.Conn) error{
		"simple": func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.PgConn().Exec(ctx, "SELECT 1").ReadAll()
			return err
		},
		"extended": func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SELECT 1")
			return err
		},
		"closed before": func(ctx context.Context, conn *pgx.Conn) error {
			_, _ = conn.Exec(ctx, "SELECT 1")
			_, err := conn.Exec(ctx, "SELECT 1")
			return err
		},
	} {
		var cut atomic.Bool
		config := d.Config()
		dial := config.DialFunc
		config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return cutConn{conn, &cut}, err
		}
		conn, err := pgx.ConnectConfig(t.Context(), config)
		require.NoError(t, err)
		cut.Store(true)
		err = run(t.Context(), conn)
		require.Error(t, err, name)
		answer := explainError(err)
		require.Equal(t, http.StatusServiceUnavailable, answer.status, "%s: %v", name, err)
		require.Equal(t, "database", answer.Code, name)
		require.Error(t, conn.Ping(t.Context()), name)
		_ = conn.Close(context.Background())
	}
}
