package cdc_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// database is one test's.
type database struct {
	*cdctest.Database
	tb   testing.TB
	name string
	pool *pgxpool.Pool
}

func newDatabase(tb testing.TB) *database {
	tb.Helper()
	return wrap(tb, cdctest.New(tb))
}

func wrap(tb testing.TB, d *cdctest.Database) *database {
	return &database{Database: d, tb: tb, name: d.Name, pool: d.Pool}
}

// config connects to the database.
func (d *database) config() *pgx.ConnConfig { return d.Config() }

func (d *database) exec(statements ...string) {
	d.tb.Helper()
	d.Exec(statements...)
}

func query[T any](d *database, sql string, args ...any) (value T) {
	d.tb.Helper()
	return cdctest.Query[T](d.Database, sql, args...)
}

func administer(tb testing.TB, statement string) {
	tb.Helper()
	cdctest.Administer(tb, statement)
}
