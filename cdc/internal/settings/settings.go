// Package settings defines the settings of the connections that cdc and its server open, so that a role, a database, a
// server or the environment (PGOPTIONS) cannot change which rows are read, how values are printed, or how long a
// statement may take.
//
// The settings are parameters of the startup message, because these take precedence over ALTER ROLE and ALTER DATABASE
// and apply from the first statement on. A SET after connecting would be undone by RESET ALL and DISCARD ALL. PgBouncer
// refuses such parameters, or ignores those that it is told to ignore. That does not matter, because these connections
// replicate, export snapshots, or hold one for long, which no pooler supports. IsPooler recognizes both cases.
package settings

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// fixedSettings apply to all connections. All supported servers know each of them.
var fixedSettings = map[string]string{
	// Texts are UTF-8, whatever the encoding of the database. The server reports an error for text without a UTF-8
	// form.
	"client_encoding": "UTF8",
	// These determine how values are printed, by queries and by the walsender's output plugin alike, so that snapshots
	// and streams have the same texts.
	"datestyle": "ISO, YMD", "intervalstyle": "postgres", "timezone": "UTC", "extra_float_digits": "3", "bytea_output": "hex",
	"lc_monetary": "C", // of money
	// These determine how constants and expressions are parsed: keys that are arrays, row filters of publications,
	// quoted names.
	"standard_conforming_strings": "on", "array_nulls": "on", "transform_null_equals": "off", "quote_all_identifiers": "off",
	// A policy that hides rows is an error. With row_security on, the rows would silently be missing from snapshots and
	// backfills, although the stream has them.
	"row_security": "off",
	// Statements that need another isolation level, or a read-only transaction, say so when they begin it.
	"default_transaction_isolation": "read committed", "default_transaction_read_only": "off", "default_transaction_deferrable": "off",
	// A snapshot stays open for as long as it is being read.
	"idle_in_transaction_session_timeout": "0",
}

// timeoutSettings are timeouts that a role or a database may have for its applications. Here contexts bound the time. A
// timeout in the connection string is meant for these connections, and is kept.
var timeoutSettings = map[string]string{"lock_timeout": "0", "statement_timeout": "0"}

// sessionTimeouts ends timeouts that some servers would refuse as unknown in a startup message: idle_session_timeout
// came with Postgres 14, and an older server should be refused because of its version; transaction_timeout came with
// 17.
//
// Behind a pooler that ignores the parameters, row_security is on, or as the role sets it. Then none of these settings
// may be in effect.
const sessionTimeouts = `SELECT pg_catalog.current_setting('row_security'); SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.unnest('{idle_session_timeout,transaction_timeout}'::pg_catalog.text[]) AS name
	WHERE pg_catalog.current_setting(name, true) IS NOT NULL`

// WithSettings returns a copy of a configuration that gives connections the settings of this package. Call it only
// once, because each call adds a query to each new connection.
func WithSettings(config *pgx.ConnConfig) *pgx.ConnConfig {
	own := config.Copy()
	own.RuntimeParams = withParameters(own.RuntimeParams)
	before := own.AfterConnect
	own.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if before != nil {
			if err := before(ctx, conn); err != nil {
				return err
			}
		}
		results, err := conn.Exec(ctx, sessionTimeouts).ReadAll()
		switch {
		case err != nil:
			return fmt.Errorf("ending the timeouts of the session: %w", err)
		case len(results) == 0 || len(results[0].Rows) != 1 || string(results[0].Rows[0][0]) != fixedSettings["row_security"]:
			return errIgnored
		}
		return nil
	}
	return own
}

// withParameters adds the parameters of this package.
func withParameters(own map[string]string) map[string]string {
	params := maps.Clone(timeoutSettings)
	maps.Copy(params, own)
	maps.Copy(params, fixedSettings)
	return params
}

// PrepareConfig calls a user's function, which may be nil, with a copy of a configuration, and then adds the settings
// of this package. Changes by the function, such as the host or the password, and these settings both take effect.
func PrepareConfig(ctx context.Context, config *pgx.ConnConfig, before func(context.Context, *pgx.ConnConfig) error) (*pgx.ConnConfig, error) {
	if before != nil {
		config = config.Copy()
		if err := before(ctx, config); err != nil {
			return nil, fmt.Errorf("BeforeConnect: %w", err)
		}
	}
	return WithSettings(config), nil
}

// PreparePool configures the connections of a pool like PrepareConfig. A pool calls BeforeConnect with the result of
// WithSettings, so the parameters are set again after it.
func PreparePool(pool *pgxpool.Config, config *pgx.ConnConfig, before func(context.Context, *pgx.ConnConfig) error) {
	pool.ConnConfig = WithSettings(config)
	if before == nil {
		return
	}
	pool.BeforeConnect = func(ctx context.Context, config *pgx.ConnConfig) error {
		if err := before(ctx, config); err != nil {
			return fmt.Errorf("BeforeConnect: %w", err)
		}
		config.RuntimeParams = withParameters(config.RuntimeParams)
		return nil
	}
}

// errIgnored reports that the parameters of a connection were ignored.
var errIgnored = errors.New("the settings of the connection were ignored")

// PoolerRule is the rule that the address of a pooler breaks.
const PoolerRule = "the address of Postgres itself: this is a pooler, such as PgBouncer, which can neither replicate nor keep a snapshot or the settings of a connection"

// IsPooler reports whether an error of connecting comes from a pooler, which refuses the parameters of the startup
// message or ignores them. Rejected: comparing the PID of the startup with that of the server, because proxies that
// support replication well also invent that number.
func IsPooler(err error) bool {
	const protocolViolation = "08P01" // Postgres itself has 42704 for a parameter that it does not know
	var server *pgconn.PgError
	return errors.Is(err, errIgnored) || errors.As(err, &server) && server.Code == protocolViolation && strings.Contains(server.Message, "startup parameter")
}
