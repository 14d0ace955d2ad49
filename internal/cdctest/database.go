package cdctest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/testdb"
)

var server struct {
	once  sync.Once
	admin *testdb.Server
}

// Patience is how long a test waits for an event that must happen. It is long so that a busy machine does not make
// tests fail; a test that passes does not wait for it.
const Patience = 2 * time.Minute

// Main runs the tests of a package, and fails if goroutines are left.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		// Goroutines of closed connections end a moment later, but goleak itself waits for one second only.
		err := goleak.Find()
		for end := time.Now().Add(Patience); err != nil && time.Now().Before(end); {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Database is the database of one test. It is dropped, with its slots, when the test has ended.
type Database struct {
	Name string
	Pool *pgxpool.Pool

	tb     testing.TB
	config func() *pgx.ConnConfig
}

// Admin returns a configuration for a database of the server that stays, as a superuser.
func Admin(tb testing.TB) *pgx.ConnConfig { return admin(tb).Config() }

func admin(tb testing.TB) *testdb.Server {
	tb.Helper()
	server.once.Do(func() {
		there, err := testdb.Of(deltatest.New(tb).DatabaseURL)
		require.NoError(tb, err)
		server.admin = there
	})
	require.NotNil(tb, server.admin, "the test that started Postgres has failed")
	return server.admin
}

// New makes a database for a test.
func New(tb testing.TB) *Database {
	tb.Helper()
	there := admin(tb)
	d := &Database{tb: tb, Name: "cdc_" + strings.ToLower(rand.Text()[:12])}
	d.config = func() *pgx.ConnConfig {
		config := there.Config()
		config.Database = d.Name
		return config
	}
	require.NoError(tb, there.Create(tb.Context(), d.Name))
	config, err := pgxpool.ParseConfig("")
	require.NoError(tb, err)
	config.ConnConfig, config.MaxConns = d.Config(), 8
	d.Pool, err = pgxpool.NewWithConfig(tb.Context(), config)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		d.Pool.Close()
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		_, err := there.Drop(ctx, d.Name)
		require.NoError(tb, err)
	})
	return d
}

// Config returns a configuration for the database, as a superuser.
func (d *Database) Config() *pgx.ConnConfig {
	config := d.config()
	// Decoding must see a commit at once.
	config.RuntimeParams["synchronous_commit"] = "on"
	return config
}

// Exec runs statements, each in its own transaction.
func (d *Database) Exec(statements ...string) {
	d.tb.Helper()
	for _, s := range statements {
		_, err := d.Pool.Exec(context.Background(), s)
		require.NoError(d.tb, err, s)
	}
}

// PluginSlot makes a slot with the plugin wal2json. If the server does not have the plugin, which only Debian's has,
// the test is skipped, because there is nothing to compare with.
func (d *Database) PluginSlot(name string) {
	d.tb.Helper()
	_, err := d.Pool.Exec(context.Background(), `SELECT pg_create_logical_replication_slot($1, 'wal2json')`, name)
	if server := (*pgconn.PgError)(nil); errors.As(err, &server) && server.Code == "58P01" { // undefined_file
		d.tb.Skipf("this Postgres, version %s, does not have the plugin wal2json: apt-get install postgresql-NN-wal2json, or .ci/postgres",
			Query[string](d, `SHOW server_version`))
	}
	require.NoError(d.tb, err)
}

// NeedsVersion skips a test that needs a later major version of Postgres.
func (d *Database) NeedsVersion(major int) {
	d.tb.Helper()
	if version := Query[int](d, `SELECT current_setting('server_version_num')::int / 10000`); version < major {
		d.tb.Skipf("needs Postgres %d, this is %d", major, version)
	}
}

// Query returns the value of a query with one row and one column.
func Query[T any](d *Database, sql string, args ...any) (value T) {
	d.tb.Helper()
	require.NoError(d.tb, d.Pool.QueryRow(context.Background(), sql, args...).Scan(&value), sql)
	return value
}

// Administer runs a statement in a database of the server that stays. It retries while an object is in use, because Postgres
// itself waits only five seconds for terminated processes to leave a database.
func Administer(tb testing.TB, statement string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	there := admin(tb)
	err := there.Exec(ctx, statement)
	for testdb.IsInUse(err) && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		err = there.Exec(ctx, statement)
	}
	require.NoError(tb, err, statement)
}
