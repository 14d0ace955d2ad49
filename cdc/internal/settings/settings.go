// Package settings decides the settings of the connections that cdc and its server make themselves, so that a role, a database, a
// server or the environment (PGOPTIONS) cannot change what is read, how values are printed, or how long something may take.
//
// The settings are parameters of the startup message, because these win over ALTER ROLE and ALTER DATABASE, and hold from the first
// statement on. A SET after the connection was made would do as well, but RESET ALL
// and DISCARD ALL would undo it. PgBouncer refuses such parameters, or passes over those that it is told to, which does not matter: these connections
// replicate, export snapshots, or hold one for long, and no pooler can serve them. IsPooler knows both.
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

// fixed are of all connections. Each exists since Postgres 14 at least.
var fixedSettings = map[string]string{
	// Text is UTF-8, whatever the database has it in. What UTF-8 cannot be made of is an error of the server.
	"client_encoding": "UTF8",
	// How values are printed, by queries and by the walsender's output plugin alike: snapshots and streams have the same texts.
	"datestyle": "ISO, YMD", "intervalstyle": "postgres", "timezone": "UTC", "extra_float_digits": "3", "bytea_output": "hex",
	"lc_monetary": "C", // of money
	// How constants and expressions are read: keys that are arrays, the row filters of publications, quoted names.
	"standard_conforming_strings": "on", "array_nulls": "on", "transform_null_equals": "off", "quote_all_identifiers": "off",
	// A policy that hides rows is an error. With row_security on, they would be missing without a word from snapshots and
	// backfills, though the stream has them.
	"row_security": "off",
	// Statements that need another isolation, or may only read, begin their transaction so.
	"default_transaction_isolation": "read committed", "default_transaction_read_only": "off", "default_transaction_deferrable": "off",
	// A snapshot is held for as long as somebody reads it.
	"idle_in_transaction_session_timeout": "0",
}

// bounds are timeouts that a role or a database has for the sake of its applications. Contexts bound what is done here. One that
// the connection string names is meant for these connections, and stays.
var timeoutSettings = map[string]string{"lock_timeout": "0", "statement_timeout": "0"}

// later are timeouts that not all servers know, which would refuse them in a startup message: idle_session_timeout came with
// Postgres 14, and an older one is to be refused by its version; transaction_timeout came with 17.
//
// A pooler that passes over the parameters has the server's row_security, which is on, or that of a role: then none of these settings may hold.
const sessionTimeouts = `SELECT pg_catalog.current_setting('row_security'); SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.unnest('{idle_session_timeout,transaction_timeout}'::pg_catalog.text[]) AS name
	WHERE pg_catalog.current_setting(name, true) IS NOT NULL`

// WithSettings returns a copy of a configuration whose connections have the settings of this package. Call it once: each call has a
// connection that is made ask the server once more.
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

// withParameters adds those of this package.
func withParameters(own map[string]string) map[string]string {
	params := maps.Clone(timeoutSettings)
	maps.Copy(params, own)
	maps.Copy(params, fixedSettings)
	return params
}

// PrepareConfig gives a configuration to a user's function, which may be nil, and makes it one of this package after that: what the function changes, such as
// the host or the password, holds, and these settings do too.
func PrepareConfig(ctx context.Context, config *pgx.ConnConfig, before func(context.Context, *pgx.ConnConfig) error) (*pgx.ConnConfig, error) {
	if before != nil {
		config = config.Copy()
		if err := before(ctx, config); err != nil {
			return nil, fmt.Errorf("BeforeConnect: %w", err)
		}
	}
	return WithSettings(config), nil
}

// PreparePool has the connections of a pool be as those of Connecting. A pool calls BeforeConnect with a configuration that is Own's already, so that the
// parameters are set once more behind it.
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

// errIgnored is a connection whose parameters were passed over.
var errIgnored = errors.New("the settings of the connection were passed over")

// PoolerRule is what the address of a pooler breaks.
const PoolerRule = "the address of Postgres itself: this is a pooler, such as PgBouncer, which can neither replicate nor keep a snapshot or the settings of a connection"

// IsPooler reports whether an error of connecting is that of a pooler, which refuses the parameters of the startup message, or passes over them. Rejected: to
// compare the number of the process that the startup has told with that of the server, because proxies that serve replication well make up
// that number, too.
func IsPooler(err error) bool {
	const protocolViolation = "08P01" // Postgres itself has 42704 for a parameter that it does not know
	var server *pgconn.PgError
	return errors.Is(err, errIgnored) || errors.As(err, &server) && server.Code == protocolViolation && strings.Contains(server.Message, "startup parameter")
}
