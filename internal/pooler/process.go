package pooler

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// processOf reports whether a connection is not one to Postgres itself: a pooler makes up the number of the process that a client is told.
// process is that of the connection of the server which the pooler has just used.
func processOf(ctx context.Context, conn *pgx.Conn) (pooled bool, process string, err error) {
	// Without a prepared statement, which a pooler may not have.
	results, err := conn.PgConn().Exec(ctx, "SELECT pg_catalog.pg_backend_pid()").ReadAll()
	if err != nil {
		return false, "", fmt.Errorf("asking for the process of a connection: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return false, "", errors.New("asking for the process of a connection: no answer")
	}
	process = string(results[0].Rows[0][0])
	return process != strconv.FormatUint(uint64(conn.PgConn().PID()), 10), process, nil
}
