package messagedb

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"
)

// goEncoding is Postgres' name for the encoding of Go strings.
const goEncoding = "UTF8"

// checkEncoding refuses a connection on which Postgres takes text for something other than UTF-8, the encoding that Go sends: it would store
// other characters than were written, and give back text that is no UTF-8. pgx sets nothing, so such a connection has the encoding of the
// database unless it is told otherwise. The server reports its setting without being asked.
//
// Rejected: to set the encoding. The connection belongs to the caller, which may rely on its setting, and behind a pooler other clients share it.
func checkEncoding(conn *pgx.Conn) error {
	if conn == nil {
		return nil // a test's transaction
	}
	switch encoding := conn.PgConn().ParameterStatus("client_encoding"); encoding {
	case goEncoding, "": // a pooler that does not pass it on
		return nil
	default:
		return newInvalidError(FieldClientEncoding, encoding, "must be "+goEncoding+": open the pool with client_encoding=UTF8 in its connection string, "+
			"or have the role connect so (ALTER ROLE … SET client_encoding = 'UTF8')")
	}
}

// utf8Pool checks each connection of a pool before it sends anything over it.
type utf8Pool struct{ pool *pgxpool.Pool }

func (p utf8Pool) acquireChecked(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return nil, asClosed(ctx, err)
	}
	if err := checkEncoding(conn.Conn()); err != nil {
		conn.Release()
		return nil, err
	}
	return conn, nil
}

// asClosed names a pool that was closed while it connected: it cancels the connecting, which the caller did not.
func asClosed(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, context.Canceled) && !errors.Is(err, puddle.ErrClosedPool) {
		return fmt.Errorf("%w: %w", puddle.ErrClosedPool, err)
	}
	return err
}

// Exec runs a statement that returns no rows.
func (p utf8Pool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	conn, err := p.acquireChecked(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer conn.Release()
	return conn.Exec(ctx, sql, args...)
}

// Begin begins a transaction.
func (p utf8Pool) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := p.pool.Begin(ctx)
	if err != nil {
		return nil, asClosed(ctx, err)
	}
	if err := checkEncoding(tx.Conn()); err != nil {
		_ = tx.Rollback(ctx) // the error says more
		return nil, err
	}
	return tx, nil
}

// Query runs a statement on a connection of the pool, which goes back when the rows are closed.
func (p utf8Pool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	conn, err := p.acquireChecked(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		conn.Release()
		return nil, err
	}
	return &pooledRows{Rows: rows, conn: conn}, nil
}

// pooledRows give their connection back.
type pooledRows struct {
	pgx.Rows
	conn *pgxpool.Conn // nil when it was
}

func (r *pooledRows) Close() {
	r.Rows.Close()
	if r.conn != nil {
		r.conn.Release()
		r.conn = nil
	}
}

func (r *pooledRows) Next() bool {
	next := r.Rows.Next()
	if !next {
		r.Close()
	}
	return next
}

// utf8Tx checks the connection of a caller's transaction in the same way.
type utf8Tx struct{ tx pgx.Tx }

func (t utf8Tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := checkEncoding(t.tx.Conn()); err != nil {
		return nil, err
	}
	return t.tx.Query(ctx, sql, args...)
}
