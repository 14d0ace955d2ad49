// Package migrations holds Delta's schema as goose migrations, and applies them.
//
// The files use unqualified names, so they apply to the first schema of the connection's search_path. The goose command can apply them too: point
// GOOSE_MIGRATION_DIR at this folder. The first migration takes over the tables of Delta on River, if it finds them: docs/migrating-from-river.md.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/chariot-giving/delta/internal/pooler"
)

// FS holds the migration files at its root, named VERSION_name.sql.
//
//go:embed *.sql
var FS embed.FS

const (
	// ownTable is the table in which Up records migrations. It is not goose's default table, because an application in the same schema may keep its own
	// history there.
	ownTable = "delta_goose_version"
	// gooseTable is goose's default table. It is used if the goose command has applied Delta's migrations first.
	gooseTable = "goose_db_version"
	// firstVersion identifies a history of Delta's migrations.
	firstVersion = 20261121000001
)

// Status is one migration, with the time when it was applied to the database, or nil.
type Status struct {
	Version   int64
	Name      string
	AppliedAt *time.Time
}

// Up applies all pending migrations. It is safe to call from several processes at once, and does nothing if all are applied.
func Up(ctx context.Context, pool *pgxpool.Pool) error {
	return withProvider(ctx, pool, true, func(p *goose.Provider) error {
		_, err := p.Up(ctx)
		return err
	})
}

// Down reverts the newest applied migration, and drops the data in its tables. It does nothing if none is applied. If an installation of Delta on River was
// taken over and its tables are kept, reverting the first migration writes the data back into them, with the changes since.
func Down(ctx context.Context, pool *pgxpool.Pool) error {
	return withProvider(ctx, pool, true, func(p *goose.Provider) error {
		_, err := p.Down(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		return err
	})
}

// Version returns the version of the newest applied migration, or 0.
func Version(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	var version int64
	err := withProvider(ctx, pool, false, func(p *goose.Provider) (err error) {
		version, err = p.GetDBVersion(ctx)
		return err
	})
	return version, err
}

// List returns all migrations, oldest first, with the times when they were applied.
func List(ctx context.Context, pool *pgxpool.Pool) ([]Status, error) {
	var list []Status
	err := withProvider(ctx, pool, false, func(p *goose.Provider) error {
		statuses, err := p.Status(ctx)
		if err != nil {
			return err
		}
		for _, s := range statuses {
			one := Status{Version: s.Source.Version, Name: s.Source.Path}
			if s.State == goose.StateApplied {
				at, err := appliedAt(ctx, pool, s.AppliedAt)
				if err != nil {
					return err
				}
				one.AppliedAt = &at
			}
			list = append(list, one)
		}
		return nil
	})
	return list, err
}

// appliedAt interprets goose's time, which has no zone, in the zone of the session.
func appliedAt(ctx context.Context, pool *pgxpool.Pool, local time.Time) (at time.Time, err error) {
	err = pool.QueryRow(ctx, `SELECT $1::timestamp AT TIME ZONE current_setting('TimeZone')`, local).Scan(&at)
	return at.UTC(), err
}

// withProvider calls do with a provider for the schema of a pool. It takes a lock if changes is set, which means that do may change the schema.
func withProvider(ctx context.Context, pool *pgxpool.Pool, changes bool, do func(*goose.Provider) error) error {
	if pool == nil {
		return errors.New("migrations: pool is nil: give an open *pgxpool.Pool")
	}
	schema, table, err := locateTable(ctx, pool)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if changes {
		if err := pooler.Refuse(ctx, pool); err != nil {
			return fmt.Errorf("migrations: %w", err)
		}
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close() //nolint:errcheck // closes only the adapter, not the caller's pool

	// The lock is per schema, so that two schemas of one database can be migrated at the same time.
	locker := &sessionLocker{id: int64(crc32.ChecksumIEEE([]byte("delta migrations " + schema)))}
	if err := ensureTable(ctx, db, locker, table); err != nil {
		return fmt.Errorf("migrations: schema %q: %w", schema, readOnlyError(err))
	}
	provider, err := newProvider(db, FS, goose.WithTableName(table), goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if err := do(provider); err != nil {
		return fmt.Errorf("migrations: schema %q: %w", schema, readOnlyError(err))
	}
	return nil
}

// readOnlyError adds the reason why the connection is read-only to an error. Migrations do not override the caller's setting.
func readOnlyError(err error) error {
	const readOnlyTransaction = "25006"
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == readOnlyTransaction {
		return fmt.Errorf("the connection may only read, because default_transaction_read_only is on for the role, the database or the pool's "+
			"connection string, or the server is a standby: %w", err)
	}
	return err
}

func newProvider(db *sql.DB, files fs.FS, options ...goose.ProviderOption) (*goose.Provider, error) {
	// The global registry has Go migrations of the application, which must not run here.
	return goose.NewProvider(goose.DialectPostgres, db, files,
		append(options, goose.WithDisableGlobalRegistry(true))...)
}

// locateTable returns the schema of the migrations, and the table that records them.
func locateTable(ctx context.Context, pool *pgxpool.Pool) (schema, table string, err error) {
	var current *string
	var path, encoding string
	var shared bool
	var server int
	err = pool.QueryRow(ctx, `
		SELECT current_schema(), current_setting('search_path'), getdatabaseencoding(), current_setting('server_version_num')::int / 10000, EXISTS (
			SELECT FROM pg_class WHERE relname = $1 AND relkind = 'r' AND relnamespace = to_regnamespace(quote_ident(current_schema()))
		)`, gooseTable).Scan(&current, &path, &encoding, &server, &shared)
	if err != nil {
		return "", "", fmt.Errorf("asking for the current schema: %w", err)
	}
	if server < 14 {
		return "", "", fmt.Errorf("the server is Postgres %d, and Delta needs 14 or later", server)
	}
	if encoding != "UTF8" {
		return "", "", fmt.Errorf("the encoding of the database is %s, and Delta needs UTF8, which objects are written in: create a new database with "+
			"CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", encoding)
	}
	if current == nil || strings.HasPrefix(*current, "pg_") { // the schema of temporary tables, or the catalog
		return "", "", fmt.Errorf("there is no schema of search_path %q that this user may use: create it (CREATE SCHEMA …), or grant USAGE on it", path)
	}
	if !shared {
		return *current, ownTable, nil
	}
	var ours bool
	err = pool.QueryRow(ctx,
		`SELECT EXISTS (SELECT FROM `+gooseTable+` WHERE version_id = $1)`, firstVersion).Scan(&ours)
	if err != nil {
		return "", "", fmt.Errorf("reading %s.%s: %w", *current, gooseTable, err)
	}
	if ours {
		return *current, gooseTable, nil
	}
	return *current, ownTable, nil
}
