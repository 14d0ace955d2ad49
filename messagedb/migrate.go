package messagedb

import (
	"context"
	"embed"
	"fmt"
	"hash/crc32"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/chariot-giving/delta/internal/pooler"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Migrations is a goose migration set that makes a message store, for databases without Message DB where its installer is not
// wanted. Clients of Message DB 1.3.0 work with it. Its names are unqualified: they land in the first schema of the
// search path, which the functions remember. [Migrate] applies it.
var Migrations fs.FS = mustSub(fs.Sub(migrationFiles, "migrations"))

func mustSub(sub fs.FS, err error) fs.FS {
	if err != nil {
		panic(err) // the folder is there, or this would not have been built
	}
	return sub
}

const migrationTable = "messagedb_goose_version"

// InstalledError is a schema that has a message store that [Migrate] did not make, so that it leaves it alone.
type InstalledError struct{ Schema string }

func (e *InstalledError) Error() string {
	return fmt.Sprintf("messagedb: schema %q has a message store that is not of these migrations: keep it, or migrate another schema", e.Schema)
}

// Migrate makes a message store in a schema, with the schema if there is none, or brings it up to date. An empty schema is
// [DefaultSchema]. It is safe to call from many processes at once, at every start: it does nothing when there is nothing to
// do. A store of Message DB's own installer gives an [*InstalledError]. The role message_store is granted what Message DB
// grants it, if the server has such a role.
func Migrate(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	if pool == nil {
		return newInvalidError(FieldPool, "nil", "must be an open *pgxpool.Pool")
	}
	config := Config{Schema: schema}.WithDefaults()
	if err := config.validate(); err != nil {
		return err
	}
	schema = config.Schema
	if err := pooler.Refuse(ctx, pool); err != nil {
		return fmt.Errorf("messagedb: migrating schema %q: %w", schema, err)
	}
	lockID := int64(crc32.ChecksumIEEE([]byte("messagedb migrations " + schema)))
	if err := prepareSchema(ctx, pool, schema, lockID); err != nil {
		return err
	}
	// Connections of our own, because the search path of the pool's is the caller's.
	own, err := poolWithPath(ctx, pool, schema)
	if err != nil {
		return fmt.Errorf("messagedb: migrating schema %q: %w", schema, err)
	}
	defer own.Close()
	db := stdlib.OpenDBFromPool(own)
	defer db.Close() //nolint:errcheck // closes the adapter only
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID), lock.WithLockTimeout(1, 300))
	if err != nil {
		return fmt.Errorf("messagedb: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, Migrations,
		goose.WithTableName(migrationTable), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("messagedb: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("messagedb: migrating schema %q: %w", schema, err)
	}
	return nil
}

// prepareSchema makes the schema if there is none, and sees that no other message store is in it.
func prepareSchema(ctx context.Context, pool *pgxpool.Pool, schema string, lockID int64) error {
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := checkEncoding(tx.Conn()); err != nil { // of the schema's name
			return err
		}
		if _, err := tx.Exec(ctx, waitLocally); err != nil {
			return err
		}
		// CREATE SCHEMA IF NOT EXISTS fails when two do it at once.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockID); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{schema}.Sanitize())
		return err
	})
	if err != nil {
		return fmt.Errorf("messagedb: making schema %q: %w", schema, explainReadOnly(err))
	}
	var foreign bool
	err = pool.QueryRow(ctx, `SELECT bool_or(relname = 'messages') AND NOT bool_or(relname = $2) FROM pg_class
		WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND relname IN ('messages', $2)
		HAVING count(*) > 0 UNION ALL SELECT false LIMIT 1`, schema, migrationTable).Scan(&foreign)
	if err != nil {
		return fmt.Errorf("messagedb: looking into schema %q: %w", schema, err)
	}
	if foreign {
		return &InstalledError{Schema: schema}
	}
	return nil
}

// ownSettings are of the connections that [Migrate] makes for itself: what a role or a database bounds is not to end it half way, and a policy is not to
// hide what was applied. It is not made to write where the role may only read. They are set after the connection was made, because a pooler refuses
// them before. Not all servers know all of the timeouts: transaction_timeout came with Postgres 17.
const ownSettings = `SET client_encoding TO 'UTF8'; SET default_transaction_isolation TO 'read committed'; SET default_transaction_deferrable TO off;
	SET check_function_bodies TO on; SET row_security TO off;
	SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.unnest(` + timeouts + `) AS name WHERE pg_catalog.current_setting(name, true) IS NOT NULL; `

// waitLocally removes the timeouts of the role and the database from a transaction of this package, so that only its context bounds its wait for a lock.
const waitLocally = `SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.unnest(` + timeouts + `) AS name WHERE pg_catalog.current_setting(name, true) IS NOT NULL`

const timeouts = `'{statement_timeout,lock_timeout,idle_in_transaction_session_timeout,idle_session_timeout,transaction_timeout}'::pg_catalog.text[]`

// poolWithPath connects as the pool does, with settings of its own and the schema first on the search path.
func poolWithPath(ctx context.Context, pool *pgxpool.Pool, schema string) (*pgxpool.Pool, error) {
	config := pool.Config()
	config.MinConns, config.MinIdleConns, config.MaxConns = 0, 0, 4
	settings := ownSettings + "SET search_path TO " + pgx.Identifier{schema}.Sanitize() + ", public, pg_temp"
	after := config.AfterConnect
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if after != nil {
			if err := after(ctx, conn); err != nil {
				return err
			}
		}
		_, err := conn.Exec(ctx, settings)
		return err
	}
	return pgxpool.NewWithConfig(ctx, config)
}
