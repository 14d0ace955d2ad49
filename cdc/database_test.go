package cdc_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/chariot-giving/delta/delta/deltatest"
)

// server is the Postgres that the tests of this process share. Each test has a database of its own.
var server struct {
	once  sync.Once
	admin *pgx.ConnConfig
}

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// database is one test's.
type database struct {
	tb   testing.TB
	name string
	pool *pgxpool.Pool
}

func newDatabase(tb testing.TB) *database {
	tb.Helper()
	server.once.Do(func() {
		config, err := pgx.ParseConfig(deltatest.New(tb).DatabaseURL)
		require.NoError(tb, err)
		delete(config.RuntimeParams, "search_path")
		delete(config.RuntimeParams, "application_name")
		server.admin = config
	})
	require.NotNil(tb, server.admin, "the test that started Postgres has failed")
	d := &database{tb: tb, name: "cdc_" + strings.ToLower(rand.Text()[:12])}
	administer(tb, "CREATE DATABASE "+d.name)
	config, err := pgxpool.ParseConfig("")
	require.NoError(tb, err)
	config.ConnConfig, config.MaxConns = d.config(), 8
	d.pool, err = pgxpool.NewWithConfig(tb.Context(), config)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		d.pool.Close()
		administer(tb, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = '`+d.name+`'`)
		for range 50 {
			if administerQuietly(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '`+d.name+`'`) == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		administer(tb, "DROP DATABASE "+d.name+" WITH (FORCE)")
	})
	return d
}

// config connects to the database.
func (d *database) config() *pgx.ConnConfig {
	config := server.admin.Copy()
	config.Database = d.name
	// What is written is to be there for decoding at once.
	config.RuntimeParams["synchronous_commit"] = "on"
	return config
}

func (d *database) exec(statements ...string) {
	d.tb.Helper()
	for _, s := range statements {
		_, err := d.pool.Exec(context.Background(), s)
		require.NoError(d.tb, err, s)
	}
}

func query[T any](d *database, sql string, args ...any) (value T) {
	d.tb.Helper()
	require.NoError(d.tb, d.pool.QueryRow(context.Background(), sql, args...).Scan(&value), sql)
	return value
}

func administer(tb testing.TB, statement string) {
	tb.Helper()
	require.NoError(tb, administerQuietly(statement), statement)
}

func administerQuietly(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, server.admin.Copy())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}
