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
)

var server struct {
	once  sync.Once
	admin *pgx.ConnConfig
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

// Admin returns a configuration for the server's own database, as a superuser.
func Admin(tb testing.TB) *pgx.ConnConfig {
	tb.Helper()
	server.once.Do(func() {
		config, err := pgx.ParseConfig(deltatest.New(tb).DatabaseURL)
		require.NoError(tb, err)
		delete(config.RuntimeParams, "search_path")
		delete(config.RuntimeParams, "application_name")
		server.admin = config
	})
	require.NotNil(tb, server.admin, "the test that started Postgres has failed")
	return server.admin.Copy()
}

// New makes a database for a test.
func New(tb testing.TB) *Database {
	tb.Helper()
	admin := Admin(tb)
	d := &Database{tb: tb, Name: "cdc_" + strings.ToLower(rand.Text()[:12])}
	d.config = func() *pgx.ConnConfig {
		config := admin.Copy()
		config.Database = d.Name
		return config
	}
	Administer(tb, "CREATE DATABASE "+d.Name)
	config, err := pgxpool.ParseConfig("")
	require.NoError(tb, err)
	config.ConnConfig, config.MaxConns = d.Config(), 8
	d.Pool, err = pgxpool.NewWithConfig(tb.Context(), config)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		d.Pool.Close()
		// A slot cannot be dropped until its reader has ended, so Administer tries again.
		Administer(tb, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = '`+d.Name+`'`)
		Administer(tb, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '`+d.Name+`'`)
		Administer(tb, "DROP DATABASE "+d.Name+" WITH (FORCE)")
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

// Administer runs a statement in the server's own database. It retries while an object is in use, because Postgres
// itself waits only five seconds for terminated processes to leave a database.
func Administer(tb testing.TB, statement string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	err := execAsAdmin(ctx, statement)
	for isObjectInUse(err) && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		err = execAsAdmin(ctx, statement)
	}
	require.NoError(tb, err, statement)
}

// isObjectInUse reports whether a statement has failed because another process uses the slot or the database.
func isObjectInUse(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.Code == "55006" // object_in_use
}

func execAsAdmin(ctx context.Context, statement string) error {
	conn, err := pgx.ConnectConfig(ctx, server.admin.Copy())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}
