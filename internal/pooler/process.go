package pooler

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// processOf reports whether a connection leads to a pooler, which invents the process id that it tells a client. process is the process of the
// server connection that the pooler has just used.
func processOf(ctx context.Context, conn *pgx.Conn) (pooled bool, process string, err error) {
	// This is the simple protocol, because a pooler may not support prepared statements.
	results, err := conn.PgConn().Exec(ctx, "SELECT pg_catalog.pg_backend_pid()").ReadAll()
	if err != nil {
		return false, "", fmt.Errorf("reading the process id of a connection: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return false, "", errors.New("reading the process id of a connection: no answer")
	}
	process = string(results[0].Rows[0][0])
	return process != strconv.FormatUint(uint64(conn.PgConn().PID()), 10), process, nil
}
