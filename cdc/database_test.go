package cdc_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/testproxy"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// database is the database of one test.
type database struct {
	*cdctest.Database
	tb   testing.TB
	name string
	pool *pgxpool.Pool
}

func newDatabase(tb testing.TB) *database {
	tb.Helper()
	return wrapDatabase(tb, cdctest.New(tb))
}

func wrapDatabase(tb testing.TB, d *cdctest.Database) *database {
	return &database{Database: d, tb: tb, name: d.Name, pool: d.Pool}
}

// config returns a configuration for the database.
func (d *database) config() *pgx.ConnConfig { return d.Config() }

// newProxy starts a proxy between clients and the server.
func (d *database) newProxy() *testproxy.Proxy {
	d.tb.Helper()
	config := d.config()
	return testproxy.New(d.tb, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))))
}

func (d *database) exec(statements ...string) {
	d.tb.Helper()
	d.Exec(statements...)
}

func queryValue[T any](d *database, sql string, args ...any) (value T) {
	d.tb.Helper()
	return cdctest.Query[T](d.Database, sql, args...)
}

func administer(tb testing.TB, statement string) {
	tb.Helper()
	cdctest.Administer(tb, statement)
}
