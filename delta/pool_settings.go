package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/db"
)

// The pool is the caller's, perhaps with a pooler behind it, so Delta changes no settings there. Its statements do not
// depend on most of them. This file refuses the few with which they would be wrong, instead of overriding settings of the
// user's.

// encodingCheck remembers that the connections of a pool carry UTF-8.
type encodingCheck struct {
	pool   *pgxpool.Pool
	passed atomic.Bool
}

// checkPool checks connections of the pool until one was right, because all are made in the same way. It sends no request.
func (e *encodingCheck) checkPool(ctx context.Context) error {
	if e.passed.Load() {
		return nil
	}
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if err := checkEncoding(conn.Conn()); err != nil {
		return err
	}
	e.passed.Store(true)
	return nil
}

// checkEncoding refuses a connection that would change text. Go's text is UTF-8, and pgx declares that to the server only
// if the connection string has client_encoding. Servers report both settings when a connection is made; a pooler may omit
// them.
func checkEncoding(conn *pgx.Conn) error {
	if conn == nil {
		return nil // a transaction that a test made
	}
	const utf8 = "UTF8"
	if encoding := conn.PgConn().ParameterStatus("server_encoding"); encoding != "" && encoding != utf8 {
		return inputError("server_encoding", encoding, "must be UTF8, which objects are written in: create the database again with "+
			"CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0")
	}
	if encoding := conn.PgConn().ParameterStatus("client_encoding"); encoding != "" && encoding != utf8 {
		return inputError("client_encoding", encoding, "must be UTF8: leave it out of the pool's connection string, and of what "+
			"ALTER ROLE and ALTER DATABASE have set, or put client_encoding=UTF8 into the connection string")
	}
	return nil
}

// checkSettings refuses settings of the pool's connections with which a client cannot work its kinds.
func (c *Client) checkSettings(ctx context.Context) error {
	settings, err := db.New().FindSettings(ctx, c.pool, []string{"default_transaction_isolation", "default_transaction_read_only"})
	if err != nil {
		return fmt.Errorf("reading the settings of the pool's connections: %w", err)
	}
	var wrong []error
	for _, s := range settings {
		if err := checkSetting(s); err != nil {
			wrong = append(wrong, err)
		}
	}
	hidden, err := db.New().FindHiddenTables(ctx, c.pool)
	if err != nil {
		return fmt.Errorf("looking for policies: %w", schemaError(err))
	}
	if len(hidden) > 0 {
		wrong = append(wrong, inputError("row-level security", strings.Join(hidden, ", "), "must hide no rows of Delta's tables from the pool's role, "+
			"which would not be worked: drop the policies, give the role BYPASSRLS, or let it own the tables without FORCE ROW LEVEL SECURITY"))
	}
	return errors.Join(wrong...)
}

func checkSetting(s db.Setting) error {
	const remedy = ", and %s has set it: change that, or put %s into the connection string of the pool that Delta gets. Delta overrides no setting of yours"
	switch {
	case s.Name == "default_transaction_read_only" && s.Value == "on":
		return inputError(s.Name, s.Value, "must be off, because every step writes"+remedy, setBy(s.Source), s.Name+"=off")
	case s.Name == "default_transaction_isolation" && s.Value != "read committed" && s.Value != "read uncommitted":
		// Statements wait for each other's rows, and then continue with the new versions. At another level each such wait
		// ends in an error, and the functions that count the slots of limit keys under a lock would count the rows of
		// before the lock.
		return inputError(s.Name, s.Value, "must be read committed, because statements count what others have written while they waited"+remedy,
			setBy(s.Source), s.Name+"=read%20committed")
	}
	return nil
}

// setBy describes the source of a setting, as in pg_settings.
func setBy(source string) string {
	switch source {
	case "user":
		return "the role (ALTER ROLE … SET)"
	case "database":
		return "the database (ALTER DATABASE … SET)"
	case "database user":
		return "the role in this database (ALTER ROLE … IN DATABASE … SET)"
	case "global":
		return "the server (ALTER ROLE ALL SET)"
	case "client":
		return "the connection (its connection string, or PGOPTIONS)"
	case "session":
		return "the pool (such as in its AfterConnect)"
	default:
		return "the server (" + source + ")"
	}
}
