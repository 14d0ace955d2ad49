package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/migrations"
)

func TestUpThenDownThenUpLeavesTheSameSchema(t *testing.T) {
	t.Parallel()
	pool := emptySchema(t, deltatest.New(t), "")

	require.NoError(t, migrations.Up(t.Context(), pool))
	full := dump(t, pool)
	require.Contains(t, full, "delta_resource")
	require.Equal(t, newestVersion(t), readVersion(t, pool))

	// The newest by itself.
	require.NoError(t, migrations.Down(t.Context(), pool))
	require.NotEqual(t, full, dump(t, pool))
	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Equal(t, full, dump(t, pool))

	// All of them.
	for readVersion(t, pool) > 0 {
		require.NoError(t, migrations.Down(t.Context(), pool))
	}
	empty := dump(t, pool)
	for line := range strings.Lines(empty) {
		require.Contains(t, line, "delta_goose_version", "something is left after the last Down")
	}
	require.NoError(t, migrations.Down(t.Context(), pool), "there is nothing to take back")
	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Equal(t, full, dump(t, pool))
}

func TestUpTwiceDoesNothing(t *testing.T) {
	t.Parallel()
	pool := emptySchema(t, deltatest.New(t), "")
	require.NoError(t, migrations.Up(t.Context(), pool))
	list, schema, data := listApplied(t, pool), dump(t, pool), readInstallation(t, pool)

	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Equal(t, list, listApplied(t, pool))
	require.Equal(t, schema, dump(t, pool))
	require.Equal(t, data, readInstallation(t, pool))
}

func TestUpFromManyAtOnceAppliesEachMigrationOnce(t *testing.T) {
	t.Parallel()
	pool := emptySchema(t, deltatest.New(t), "")
	var group errgroup.Group
	start := make(chan struct{})
	for range 8 {
		group.Go(func() error {
			<-start
			return migrations.Up(context.Background(), pool)
		})
	}
	close(start)
	require.NoError(t, group.Wait())
	require.Equal(t, newestVersion(t), readVersion(t, pool))
	var records, versions int
	require.NoError(t, pool.QueryRow(t.Context(),
		"SELECT count(*), count(DISTINCT version_id) FROM delta_goose_version").Scan(&records, &versions))
	require.Equal(t, versions, records)
}

func TestWhoWaitsForTheLockEndsWithItsContext(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	pool := emptySchema(t, env, "", func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["application_name"] = env.Schema + " up" })
	var schema string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT current_schema()").Scan(&schema))
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	id := int64(crc32.ChecksumIEEE([]byte("delta migrations " + schema)))
	_, err = conn.Exec(t.Context(), "SELECT pg_advisory_lock($1)", id)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	up := make(chan error, 1)
	go func() { up <- migrations.Up(ctx, pool) }()
	require.Eventually(t, func() bool {
		var asked bool
		err := env.Pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE application_name = $1 AND query LIKE 'SELECT pg_try_advisory_lock%')`, env.Schema+" up").Scan(&asked)
		return err == nil && asked
	}, time.Minute, 5*time.Millisecond, "it does not ask for the lock")
	require.Empty(t, up, "it waits")
	cancel(errors.New("no patience"))
	require.ErrorContains(t, <-up, schema)

	go func() { up <- migrations.Up(context.Background(), pool) }()
	_, err = conn.Exec(t.Context(), "SELECT pg_advisory_unlock($1)", id)
	require.NoError(t, err)
	require.NoError(t, <-up)
}

func TestUpWorksWithASingleConnection(t *testing.T) {
	t.Parallel()
	pool := emptySchema(t, deltatest.New(t), "", func(c *pgxpool.Config) { c.MaxConns = 1 })
	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Equal(t, newestVersion(t), readVersion(t, pool))
}

// slowly makes the program that migrates slow between some statements.
type slowly struct{ left atomic.Int64 }

func (s *slowly) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "CREATE TABLE") && s.left.Add(-1) >= 0 {
		time.Sleep(300 * time.Millisecond)
	}
	return ctx
}

func (*slowly) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A role's timeout of idle transactions does not end a migration whose program is slow, and is as before afterwards.
func TestUpOutlivesTheIdleTimeoutsOfItsRole(t *testing.T) {
	t.Parallel()
	config := emptySchema(t, deltatest.New(t), "").Config()
	tracer := &slowly{}
	tracer.left.Store(3)
	config.ConnConfig.Tracer, config.MaxConns = tracer, 1
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "100ms"
	config.ConnConfig.RuntimeParams["idle_session_timeout"] = "10min"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Negative(t, tracer.left.Load())
	var inTransaction, inSession string
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('idle_session_timeout')`).
		Scan(&inTransaction, &inSession))
	require.Equal(t, [2]string{"100ms", "10min"}, [2]string{inTransaction, inSession})
}

func TestTheSchemaIsTheFirstOfTheSearchPathWhateverItsName(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	for _, name := range []string{`Sp ace "quoted"-ö`, "select", "1st"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := emptySchema(t, env, name)
			require.NoError(t, migrations.Up(t.Context(), pool))
			require.NoError(t, migrations.Up(t.Context(), pool))
			require.Equal(t, newestVersion(t), readVersion(t, pool))
			require.Equal(t, dump(t, env.Pool), dump(t, pool))
			require.NotEqual(t, readInstallation(t, env.Pool), readInstallation(t, pool), "each schema is an installation of its own")
			require.NoError(t, migrations.Down(t.Context(), pool))
			require.Equal(t, newestVersion(t), readVersion(t, env.Pool), "the other schema is left alone")
		})
	}
}

func TestASchemaThatDoesNotExistIsNamed(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	config, err := pgxpool.ParseConfig(env.DatabaseURL)
	require.NoError(t, err)
	config.ConnConfig.RuntimeParams["search_path"] = "no_such_schema"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	for name, err := range statusOfAll(t.Context(), pool) {
		require.ErrorContains(t, err, `"no_such_schema"`, name)
		require.ErrorContains(t, err, `search_path "no_such_schema" that this user may use: create it`, name)
	}
}

func TestANilPoolIsAnError(t *testing.T) {
	t.Parallel()
	for name, err := range statusOfAll(t.Context(), nil) {
		require.ErrorContains(t, err, "pool is nil", name)
	}
}

func TestADatabaseThatCannotBeReachedIsAnError(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	pool, err := pgxpool.New(t.Context(), env.DatabaseURL)
	require.NoError(t, err)
	pool.Close()
	for name, err := range statusOfAll(t.Context(), pool) {
		require.ErrorContains(t, err, "closed pool", name)
	}
}

// statusOfAll calls every function of the package and returns the errors by name.
func statusOfAll(ctx context.Context, pool *pgxpool.Pool) map[string]error {
	_, versionErr := migrations.Version(ctx, pool)
	_, listErr := migrations.List(ctx, pool)
	return map[string]error{
		"Up": migrations.Up(ctx, pool), "Down": migrations.Down(ctx, pool), "Version": versionErr, "List": listErr,
	}
}

func TestAnApplicationsOwnGooseHistoryIsLeftAlone(t *testing.T) {
	t.Parallel()
	pool := emptySchema(t, deltatest.New(t), "")
	_, err := pool.Exec(t.Context(), `
		CREATE TABLE goose_db_version (
			id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, version_id bigint NOT NULL,
			is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now());
		INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, TRUE), (20990101000000, TRUE)`)
	require.NoError(t, err)
	history := func() (tuples []string) {
		rows, err := pool.Query(t.Context(), "SELECT ctid || ' ' || xmin || ' ' || version_id FROM goose_db_version ORDER BY id")
		require.NoError(t, err)
		tuples, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return tuples
	}
	before := history()

	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Equal(t, newestVersion(t), readVersion(t, pool), "the application's newer version is not Delta's")
	require.Equal(t, before, history())
	require.NoError(t, migrations.Down(t.Context(), pool))
	require.Equal(t, before, history())
}

func TestWhatTheGooseCommandAppliedIsRecognised(t *testing.T) {
	t.Parallel()
	pool := emptySchema(t, deltatest.New(t), "")
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close() //nolint:errcheck // closes the adapter only
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS)
	require.NoError(t, err)
	_, err = provider.Up(t.Context())
	require.NoError(t, err)
	schema := dump(t, pool)

	require.Equal(t, newestVersion(t), readVersion(t, pool))
	for _, s := range listApplied(t, pool) {
		require.NotNil(t, s.AppliedAt, s.Name)
	}
	require.NoError(t, migrations.Up(t.Context(), pool))
	require.Equal(t, schema, dump(t, pool), "there is nothing to apply, nor a second history to keep")

	// And back: the goose command sees the result of Down.
	require.NoError(t, migrations.Down(t.Context(), pool))
	there, err := provider.GetDBVersion(t.Context())
	require.NoError(t, err)
	require.Less(t, there, newestVersion(t))
}

func TestListTellsWhatIsAppliedOldestFirst(t *testing.T) {
	t.Parallel()
	pool := emptySchema(t, deltatest.New(t), "")
	require.Zero(t, readVersion(t, pool))
	list := listApplied(t, pool)
	files, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	require.Len(t, list, len(files))
	for i, s := range list {
		require.Equal(t, files[i], s.Name)
		require.True(t, strings.HasPrefix(s.Name, strings.TrimLeft(strings.Split(s.Name, "_")[0], "0")))
		require.Nil(t, s.AppliedAt)
	}
	require.NoError(t, migrations.Up(t.Context(), pool))
	for _, s := range listApplied(t, pool) {
		require.NotNil(t, s.AppliedAt, s.Name)
	}
	require.NoError(t, migrations.Down(t.Context(), pool))
	list = listApplied(t, pool)
	require.Nil(t, list[len(list)-1].AppliedAt)
}

// goose records the wall clock of the session, without its zone.
func TestTheTimeOfAMigrationIsRightInEveryZone(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	pool := emptySchema(t, env, "", func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["timezone"] = "Asia/Kolkata" })
	began := serverTime(t, pool)
	require.NoError(t, migrations.Up(t.Context(), pool))
	ended := serverTime(t, pool)
	for _, s := range listApplied(t, pool) {
		require.WithinRange(t, *s.AppliedAt, began, ended, s.Name)
	}
}

// serverTime returns the time by the server's clock, which records migrations.
func serverTime(t *testing.T, pool *pgxpool.Pool) (now time.Time) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&now))
	return now
}

// With Postgres' default settings, a fifth of a table would have to be dead before it is vacuumed.
func TestTablesThatChangeOftenAreVacuumedOften(t *testing.T) {
	t.Parallel()
	pool := deltatest.New(t).Pool
	for table, want := range map[string][]string{
		"delta_resource": {"autovacuum_vacuum_scale_factor=0.02", "autovacuum_analyze_scale_factor=0.02", "autovacuum_vacuum_cost_delay=0", "fillfactor=50"},
		"delta_claim":    {"autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=1000", "autovacuum_vacuum_cost_delay=0", "fillfactor=50"},
		"delta_listing":  {"autovacuum_vacuum_scale_factor=0.02", "autovacuum_analyze_scale_factor=0.02", "autovacuum_vacuum_insert_scale_factor=0.1"},
	} {
		var set []string
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT reloptions FROM pg_class WHERE oid = $1::text::regclass", table).Scan(&set))
		require.ElementsMatch(t, want, set, table)
	}
}

var schemas atomic.Int64

// emptySchema returns a pool on a schema without Delta's tables, which is dropped when the test ends.
func emptySchema(t *testing.T, env *deltatest.Env, name string, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	// Test schemas share a database.
	schema := fmt.Sprintf("%s_%d%s", env.Schema, schemas.Add(1), name)
	quoted := pgx.Identifier{schema}.Sanitize()
	_, err := env.Pool.Exec(t.Context(), "CREATE SCHEMA "+quoted)
	require.NoError(t, err)
	config, err := pgxpool.ParseConfig(env.DatabaseURL)
	require.NoError(t, err)
	config.ConnConfig.RuntimeParams["search_path"] = quoted
	config.MaxConns = 12
	for _, c := range change {
		c(config)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() {
		pool.Close()
		_, err := env.Pool.Exec(context.Background(), "DROP SCHEMA "+quoted+" CASCADE")
		require.NoError(t, err)
	})
	return pool
}

// newestVersion returns the version of the last migration.
func newestVersion(t *testing.T) int64 {
	t.Helper()
	files, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	v, err := goose.NumericComponent(files[len(files)-1])
	require.NoError(t, err)
	return v
}

func readVersion(t *testing.T, pool *pgxpool.Pool) int64 {
	t.Helper()
	v, err := migrations.Version(t.Context(), pool)
	require.NoError(t, err)
	return v
}

func listApplied(t *testing.T, pool *pgxpool.Pool) []migrations.Status {
	t.Helper()
	list, err := migrations.List(t.Context(), pool)
	require.NoError(t, err)
	return list
}

// readInstallation returns the database's id and the transaction that wrote it.
func readInstallation(t *testing.T, pool *pgxpool.Pool) (v string) {
	t.Helper()
	err := pool.QueryRow(t.Context(), "SELECT concat_ws(' ', id, xmin, ctid) FROM delta_installation").Scan(&v)
	require.NoError(t, err)
	return v
}
