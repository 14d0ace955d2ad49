package messagedb_test

import (
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/exampletest"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/testdb"
	"github.com/chariot-giving/delta/messagedb"
)

// server is shared by the tests of this process: it has a template database for each kind of store, and each test gets a copy.
var server struct {
	once  sync.Once
	there *testdb.Server
	admin *pgx.ConnConfig
	err   error
}

// templates begins the names of this process's templates. Another process may have another version of what is in them.
var templates = newName() + "_"

func newName() string { return "messagedb_" + strings.ToLower(rand.Text()[:12]) }

// kinds are the ways to install a message store. Both must behave the same.
var kinds = map[string]func(ctx context.Context, pool *pgxpool.Pool) error{
	"official":   installOfficial,
	"migrations": func(ctx context.Context, pool *pgxpool.Pool) error { return messagedb.Migrate(ctx, pool, "") },
}

func TestMain(m *testing.M) {
	closeExamples := openExamples()
	code := m.Run()
	closeExamples()
	dropTemplates()
	if code == 0 {
		if err := findLeaked(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// openExamples gives the examples a store, in DATABASE_URL as they expect it, if any of them is to run.
func openExamples() (done func()) {
	if !exampletest.AreChosen() {
		return func() {}
	}
	tb := exampletest.Open()
	if err := os.Setenv("DATABASE_URL", databaseURL(newStore(tb).config.ConnConfig)); err != nil {
		panic(err)
	}
	return tb.Close
}

// findLeaked names goroutines that do not end. Those that do may take their time on a busy machine.
func findLeaked() (err error) {
	for end := time.Now().Add(time.Minute); ; {
		if err = goleak.Find(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// start finds a Postgres. The test kit keeps it running as long as this process lives.
func start(tb testing.TB) {
	tb.Helper()
	server.once.Do(func() {
		env := deltatest.New(tb)
		if server.there, server.err = testdb.Of(env.DatabaseURL); server.err == nil {
			server.admin = server.there.Config()
		}
	})
	require.NoError(tb, server.err)
	require.NotNil(tb, server.admin, "the test that started Postgres has failed")
}

// store is a database with a message store in it, for one test.
type store struct {
	pool   *pgxpool.Pool
	client *messagedb.Client
	config *pgxpool.Config
}

// newStore makes a database with the official schema.
func newStore(tb testing.TB, change ...func(*pgxpool.Config)) *store {
	tb.Helper()
	return newStoreOf(tb, "official", change...)
}

// onBoth runs a test against each kind of store.
func onBoth(t *testing.T, test func(t *testing.T, s *store)) {
	t.Helper()
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, newStoreOf(t, kind))
		})
	}
}

func newStoreOf(tb testing.TB, kind string, change ...func(*pgxpool.Config)) *store {
	tb.Helper()
	start(tb)
	database, err := copyTemplate(tb.Context(), kind)
	require.NoError(tb, err)
	config := databaseConfig(database)
	config.MaxConns = 16
	config.ConnConfig = hostile.Through(tb, config.ConnConfig)
	for _, c := range change {
		c(config)
	}
	pool, err := pgxpool.NewWithConfig(tb.Context(), config)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		closed := make(chan struct{})
		go func() { pool.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(time.Minute):
			tb.Errorf("%d connections of the test's pool were never released", pool.Stat().AcquiredConns())
		}
		if _, err := server.there.Drop(context.Background(), database); err != nil {
			tb.Error(err)
		}
	})
	client, err := messagedb.NewClient(pool, &messagedb.Config{Logger: quiet})
	require.NoError(tb, err)
	return &store{pool: pool, client: client, config: config}
}

// quiet is the log of tests that cause errors on purpose.
var quiet = slog.New(slog.DiscardHandler)

// clientWith makes another client of the store.
func (s *store) clientWith(tb testing.TB, config messagedb.Config) *messagedb.Client {
	tb.Helper()
	config.Logger = quiet
	client, err := messagedb.NewClient(s.pool, &config)
	require.NoError(tb, err)
	return client
}

func databaseConfig(database string) *pgxpool.Config {
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		panic(err)
	}
	config.ConnConfig = server.admin.Copy()
	config.ConnConfig.Database = database
	return config
}

func databaseURL(c *pgx.ConnConfig) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), Path: "/" + c.Database}
	if c.TLSConfig == nil {
		u.RawQuery = "sslmode=disable"
	}
	if c.DefaultQueryExecMode == pgx.QueryExecModeCacheDescribe {
		u.RawQuery += "&default_query_exec_mode=cache_describe"
	}
	return u.String()
}

func runAsAdmin(ctx context.Context, statements ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return server.there.Exec(ctx, statements...)
}

// copyTemplate makes a database with a store.
func copyTemplate(ctx context.Context, kind string) (string, error) {
	database := newName()
	return database, server.there.Copy(ctx, database, testdb.Template{Name: templates + kind, Fill: func(ctx context.Context, pool *pgxpool.Pool) error {
		return errors.Join(makeRole(ctx, pool), kinds[kind](ctx, pool))
	}})
}

// makeRole makes a role, which belongs to the whole server. Other test processes may make it at the same time.
func makeRole(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, `DO $$ BEGIN
		CREATE ROLE message_store WITH LOGIN;
	EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
	END $$`)
	return err
}

func dropTemplates() {
	if server.there == nil {
		return
	}
	for kind := range kinds {
		if _, err := server.there.Drop(context.Background(), templates+kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

const (
	officialPackage   = "@eventide/message-db@1.3.1"
	officialFile      = "eventide-message-db-1.3.1.tgz"
	officialIntegrity = "n3hdE5YAZNXTr2HK9gG0GJ6dusgdE544LTvS+21/yOEHBvNuUzNmXXw5vS05vpe6RSuhzTRy5Wg0q7c1VfJg+A=="
)

// installation is the order of the package's install.sh, without what makes the database and the role.
var installation = []string{
	"schema/message-store.sql", "extensions/pgcrypto.sql", "tables/messages.sql", "types/message.sql",
	"functions/message-store-version.sql", "functions/hash-64.sql", "functions/acquire-lock.sql", "functions/category.sql",
	"functions/is-category.sql", "functions/id.sql", "functions/cardinal-id.sql", "functions/stream-version.sql",
	"functions/write-message.sql", "functions/get-stream-messages.sql", "functions/get-category-messages.sql",
	"functions/get-last-stream-message.sql", "indexes/messages-id.sql", "indexes/messages-stream.sql",
	"indexes/messages-category.sql", "views/stream-summary.sql", "views/type-summary.sql", "views/stream-type-summary.sql",
	"views/type-stream-summary.sql", "views/category-type-summary.sql", "views/type-category-summary.sql",
	"privileges/schema.sql", "privileges/table.sql", "privileges/sequence.sql", "privileges/functions.sql", "privileges/views.sql",
}

// installOfficial runs the SQL of the npm package, file by file.
func installOfficial(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := officialFiles(ctx)
	if err != nil {
		return err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	for _, name := range installation {
		text, ok := files["package/database/"+name]
		if !ok {
			return fmt.Errorf("%s has no file database/%s", officialPackage, name)
		}
		if _, err := conn.Conn().PgConn().Exec(ctx, text).ReadAll(); err != nil {
			return fmt.Errorf("%s of %s: %w", name, officialPackage, err)
		}
	}
	return nil
}

// officialFiles are the files of the npm package, which is fetched once and kept in the user's cache.
func officialFiles(ctx context.Context) (map[string]string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "delta", "message-db")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	archive := filepath.Join(dir, officialFile)
	b, err := os.ReadFile(archive)
	if errors.Is(err, os.ErrNotExist) {
		b, err = fetchOfficial(ctx, archive)
	}
	if err != nil {
		return nil, err
	}
	if sum := sha512.Sum512(b); base64.StdEncoding.EncodeToString(sum[:]) != officialIntegrity {
		_ = os.Remove(archive)
		return nil, fmt.Errorf("%s is not the package that these tests were written for: its sha512 is %x", archive, sum)
	}
	return readArchive(b)
}

// fetchOfficial downloads the package with npm, and moves it into place atomically.
func fetchOfficial(ctx context.Context, archive string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tmp, err := os.MkdirTemp(filepath.Dir(archive), "fetch-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	command := exec.CommandContext(ctx, "npm", "pack", "--silent", officialPackage)
	command.Dir = tmp
	if out, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("these tests need Message DB's own schema, from npm: `npm pack %s` in %s: %w\n%s\n(put %s into %s to do without npm)",
			officialPackage, tmp, err, out, officialFile, filepath.Dir(archive))
	}
	if err := os.Rename(filepath.Join(tmp, officialFile), archive); err != nil {
		return nil, err
	}
	return os.ReadFile(archive)
}
