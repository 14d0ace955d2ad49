package testdb_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/testdb"
)

// patience bounds each wait for an event that must happen.
const patience = 2 * time.Minute

func newName() string { return "testdb_" + strings.ToLower(rand.Text()[:12]) }

func openServer(t *testing.T) *testdb.Server {
	t.Helper()
	server, err := testdb.Of(deltatest.New(t).DatabaseURL)
	require.NoError(t, err)
	return server
}

func connect(t *testing.T, server *testdb.Server, database string) *pgx.Conn {
	t.Helper()
	config := server.Config()
	config.Database = database
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func drop(t *testing.T, server *testdb.Server, name string) (ended int) {
	t.Helper()
	ended, err := server.Drop(context.Background(), name)
	require.NoError(t, err)
	return ended
}

func count(t *testing.T, conn *pgx.Conn, what string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM "+what, args...).Scan(&n))
	return n
}

// dropTemplate drops a template, which other servers of tests keep.
func dropTemplate(t *testing.T, server *testdb.Server, name string) {
	t.Cleanup(func() { drop(t, server, name) })
}

func TestATemplateIsMadeOnceAndCopied(t *testing.T) {
	t.Parallel()
	server := openServer(t)
	var filled atomic.Int32
	template := testdb.Template{Name: newName(), Fill: func(ctx context.Context, pool *pgxpool.Pool) error {
		filled.Add(1)
		_, err := pool.Exec(ctx, "CREATE TABLE in_template (); CREATE SCHEMA more")
		return err
	}}
	dropTemplate(t, server, template.Name)
	var copies errgroup.Group
	for range 5 {
		copies.Go(func() error {
			name := newName()
			if err := server.Copy(t.Context(), name, template); err != nil {
				return err
			}
			config := server.Config()
			config.Database = name
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if err != nil {
				return err
			}
			_, err = conn.Exec(t.Context(), "SELECT FROM in_template")
			_ = conn.Close(t.Context())
			_, dropped := server.Drop(context.Background(), name)
			return errors.Join(err, dropped)
		})
	}
	require.NoError(t, copies.Wait())
	require.EqualValues(t, 1, filled.Load())

	// Nobody can change what others will copy.
	config := server.Config()
	config.Database = template.Name
	_, err := pgx.ConnectConfig(t.Context(), config)
	require.ErrorContains(t, err, "not currently accepting connections")
}

func TestATemplateThatCouldNotBeFilledIsMadeAgain(t *testing.T) {
	t.Parallel()
	server := openServer(t)
	broken := errors.New("broken")
	fails := true
	template := testdb.Template{Name: newName(), Fill: func(ctx context.Context, pool *pgxpool.Pool) error {
		if _, err := pool.Exec(ctx, "CREATE TABLE half ()"); err != nil || !fails {
			return err
		}
		return broken
	}}
	dropTemplate(t, server, template.Name)
	name := newName()
	require.ErrorIs(t, server.Copy(t.Context(), name, template), broken)
	conn := connect(t, server, "postgres")
	require.Zero(t, count(t, conn, "pg_database WHERE datname IN ($1, $2)", name, template.Name))

	fails = false
	require.NoError(t, server.Copy(t.Context(), name, template))
	require.Zero(t, drop(t, server, name))
}

func TestWhatUsesADatabaseIsEnded(t *testing.T) {
	t.Parallel()
	server := openServer(t)
	name := newName()
	require.NoError(t, server.Create(t.Context(), name))
	left, idle := connect(t, server, name), connect(t, server, name)
	_, err := left.Exec(t.Context(), "CREATE TABLE a (); BEGIN; SELECT FROM a")
	require.NoError(t, err)
	_, err = left.Exec(t.Context(), "COMMIT; SELECT pg_create_logical_replication_slot('"+name+"', 'pgoutput')")
	require.NoError(t, err)
	// A reader of the slot, which keeps it in use.
	config := server.Config()
	config.Database = name
	config.RuntimeParams["replication"] = "database"
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	walsender, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = walsender.Close(context.Background()) })
	read := make(chan error, 1)
	go func() {
		_, err := walsender.PgConn().Exec(t.Context(), fmt.Sprintf(`START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names 'none')`, name)).ReadAll()
		read <- err
	}()
	bystander := connect(t, server, "postgres")
	require.Eventually(t, func() bool {
		var active bool
		return bystander.QueryRow(t.Context(), "SELECT active FROM pg_replication_slots WHERE slot_name = $1", name).Scan(&active) == nil && active
	}, patience, 20*time.Millisecond)

	require.Equal(t, 3, drop(t, server, name))
	require.Error(t, <-read)
	require.Error(t, left.Ping(t.Context()))
	require.Error(t, idle.Ping(t.Context()))
	require.NoError(t, bystander.Ping(t.Context()), "a connection to another database was ended")
	require.Zero(t, count(t, bystander, "pg_database WHERE datname = $1", name))
	require.Zero(t, count(t, bystander, "pg_replication_slots WHERE slot_name = $1", name))
	require.Zero(t, drop(t, server, name), "dropping it once more does nothing")
}

func TestTheConnectionOfAServerIsReplaced(t *testing.T) {
	t.Parallel()
	env, name := deltatest.New(t), newName()
	server, err := testdb.NewServer(env.DatabaseURL) // the tests beside this one have another
	require.NoError(t, err)
	require.NoError(t, server.Exec(t.Context(), "SET application_name = '"+name+"'"))
	conn := connect(t, server, "postgres")
	terminate := func() int {
		return count(t, conn, "(SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = $1) a", name)
	}
	require.Equal(t, 1, terminate())
	require.NoError(t, server.Exec(t.Context(), "SET application_name = '"+name+"'"))
	require.Equal(t, 1, terminate(), "its connection stays, for the next call")
}
