package deltatest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/migrations"
)

// patience bounds each wait for an event that must happen.
const patience = 2 * time.Minute

func TestTestsAreIsolated(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	require.NotEqual(t, a.Schema, b.Schema)
	require.NotEqual(t, a.Prefix, b.Prefix)
	require.True(t, strings.HasPrefix(a.Prefix, "TestTestsAreIsolated-"))

	mustExec(t, a.Pool, `create table mine (n int)`)
	mustExec(t, a.Pool, `insert into delta_namespace (name, resource_expiry, synced_retention, degraded_retention, deleted_retention)
		values ('x', '1h', '1h', '1h', '1h')`)
	require.Equal(t, 1, countRows(t, a.Pool, `select count(*) from delta_namespace where name = 'x'`))
	require.Equal(t, 0, countRows(t, b.Pool, `select count(*) from delta_namespace where name = 'x'`))
	_, err := b.Pool.Exec(t.Context(), `select from mine`)
	require.ErrorContains(t, err, "does not exist")

	// Another process needs only the URL.
	conn, err := pgx.Connect(t.Context(), a.DatabaseURL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	var schema string
	require.NoError(t, conn.QueryRow(t.Context(), `select current_schema()`).Scan(&schema))
	require.Equal(t, a.Schema, schema)
}

// A copy of a copy would share the ids of workflows and the hashes of object ids.
func TestEachDatabaseIsAnInstallationOfItsOwn(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	for _, column := range []string{"id", "salt", "created_at"} {
		values := map[string]bool{}
		for _, env := range []*Env{a, b} {
			var value string
			require.NoError(t, env.Pool.QueryRow(t.Context(), "select "+column+"::text from delta_installation").Scan(&value))
			values[value] = true
		}
		require.Len(t, values, 2, column)
	}
	version, err := migrations.Version(t.Context(), a.Pool)
	require.NoError(t, err)
	require.NotZero(t, version, "the migrations are known to have run")
}

// An external server may have the templates of other versions of Delta.
func TestATemplateIsNamedByItsMigrations(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, files := range []fstest.MapFS{
		{"1_a.sql": {Data: []byte("x")}},
		{"1_a.sql": {Data: []byte("y")}},
		{"1_a.sql": {Data: []byte("x")}, "2_b.sql": {Data: []byte("x")}},
		{"2_b.sql": {Data: []byte("x")}},
	} {
		name, err := templateName(files)
		require.NoError(t, err)
		require.Regexp(t, `^delta_template_[0-9a-f]{12}$`, name)
		names[name] = true
	}
	require.Len(t, names, 4)
}

func mustExec(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func countRows(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func TestTemporalIsReal(t *testing.T) {
	t.Parallel()
	env := New(t)
	w := worker.New(env.Temporal, env.Prefix, worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context) (string, error) {
		return "done", workflow.Sleep(ctx, time.Millisecond)
	}, workflow.RegisterOptions{Name: "real"})
	require.NoError(t, w.Start())
	defer w.Stop()
	run, err := env.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: env.Prefix, TaskQueue: env.Prefix}, "real")
	require.NoError(t, err)
	var result string
	require.NoError(t, run.Get(t.Context(), &result))
	require.Equal(t, "done", result)
}

func TestCleanupLeavesNothing(t *testing.T) {
	t.Parallel()
	outer := New(t)
	var inner *Env
	var schedule string
	t.Run("inner", func(t *testing.T) {
		inner = New(t)
		schedule = inner.Prefix + "-every-hour"
		_, err := inner.Temporal.ScheduleClient().Create(t.Context(), client.ScheduleOptions{
			ID:     schedule,
			Spec:   client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Hour}}},
			Action: &client.ScheduleWorkflowAction{ID: inner.Prefix, TaskQueue: inner.Prefix, Workflow: "none"},
		})
		require.NoError(t, err)
		// The clean-up removes listed schedules, and Temporal lists a new one a moment later.
		require.Eventually(t, func() bool {
			list, err := inner.Temporal.ScheduleClient().List(t.Context(), client.ScheduleListOptions{PageSize: 1000})
			for err == nil && list.HasNext() {
				var entry *client.ScheduleListEntry
				if entry, err = list.Next(); err == nil && entry.ID == schedule {
					return true
				}
			}
			return false
		}, patience, 10*time.Millisecond)
	})
	require.Equal(t, 0, countRows(t, outer.Pool, `select count(*) from pg_database where datname = $1`, inner.Schema))
	require.Eventually(t, func() bool {
		return countRows(t, outer.Pool, `select count(*) from pg_stat_activity where application_name = $1`, inner.Schema) == 0
	}, patience, 10*time.Millisecond, "connections stayed open")
	require.Error(t, inner.Pool.Ping(t.Context()), "the pool is still open")
	_, err := outer.Temporal.ScheduleClient().GetHandle(t.Context(), schedule).Describe(t.Context())
	require.ErrorAs(t, err, new(*serviceerror.NotFound))

	// The databases of other tests stay.
	require.Equal(t, 0, countRows(t, outer.Pool, `select count(*) from delta_resource`))
}

func TestTerminateWorkflows(t *testing.T) {
	t.Parallel()
	mine, other := New(t), New(t)
	for _, env := range []*Env{mine, other} {
		_, err := env.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: env.Prefix + "/w", TaskQueue: env.Prefix}, "none")
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		ids, err := openWorkflows(t.Context(), mine)
		return err == nil && len(ids) == 1
	}, patience, 20*time.Millisecond)
	require.NoError(t, mine.terminateWorkflows(t.Context()))
	for env, want := range map[*Env]enums.WorkflowExecutionStatus{
		mine: enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, other: enums.WORKFLOW_EXECUTION_STATUS_RUNNING,
	} {
		d, err := env.Temporal.DescribeWorkflow(t.Context(), env.Prefix+"/w", "")
		require.NoError(t, err)
		require.Equal(t, want, d.Status)
	}
}

// recorder is a testing.TB that records failures and lines.
type recorder struct {
	testing.TB
	mu      sync.Mutex
	errors  []string
	lines   []string
	cleanup []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Name() string     { return "recorder" }
func (r *recorder) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Log(args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprint(args...))
}

func (r *recorder) runCleanups() {
	for i := len(r.cleanup) - 1; i >= 0; i-- {
		r.cleanup[i]()
	}
}

func TestConnectionsLeftOpenAreEnded(t *testing.T) {
	t.Parallel()
	bystander := New(t)
	inner := &recorder{TB: t}
	env, err := openEnv(inner, nil)
	require.NoError(t, err)

	// Another process, or another pool of the test, has a lock.
	left, err := pgx.Connect(t.Context(), env.DatabaseURL)
	require.NoError(t, err)
	_, err = left.Exec(t.Context(), `begin; select from delta_resource`)
	require.NoError(t, err)
	held, err := bystander.Pool.Begin(t.Context())
	require.NoError(t, err)

	inner.runCleanups()
	require.Empty(t, inner.errors)
	require.Error(t, left.Ping(t.Context()), "the blocking connection is still open")
	require.NoError(t, held.Rollback(t.Context()), "a connection of another test was ended")
	require.Equal(t, 0, countRows(t, bystander.Pool, `select count(*) from pg_database where datname = $1`, env.Schema))
}

func TestLogLinesGoToTheirTest(t *testing.T) {
	t.Parallel()
	inner := &recorder{TB: t}
	env, err := openEnv(inner, nil)
	require.NoError(t, err)
	sdk := slog.New(errorsOnly{env.Logger.Handler()}).With("of", "the SDK").WithGroup("g")

	env.Logger.Warn("is shown", "n", 1)
	env.Logger.Info("is not")
	sdk.Error("is shown")
	sdk.Warn("is not")
	require.Len(t, inner.lines, 2)
	require.Contains(t, inner.lines[0], `level=WARN msg="is shown" n=1`)
	require.Contains(t, inner.lines[1], `level=ERROR msg="is shown" of="the SDK"`)
	require.NotContains(t, inner.lines[1], "\n")

	inner.runCleanups()
	env.Logger.Error("after the end")
	require.Len(t, inner.lines, 2)
}

func TestOptionsAreApplied(t *testing.T) {
	t.Parallel()
	var identity string
	env := New(t, WithMaxConns(3), WithTemporalOptions(func(o *client.Options) {
		o.Identity = "me"
		identity = o.Identity
	}))
	require.Equal(t, int32(3), env.Pool.Config().MaxConns)
	require.Equal(t, "me", identity)
	require.Equal(t, int32(16), New(t).Pool.Config().MaxConns)
}

// The second use in a process is fast, because it asks no supervisor, looks for no programs, and starts nothing. BenchmarkNew
// measures it.
func TestSecondUseStartsNothing(t *testing.T) {
	first := New(t) // may start the servers
	if _, given := stack.ExternalDatabase(); given && stack.ExternalTemporal() {
		t.Skip("both servers are external: there is nothing to start")
	}
	conn, known := shared.conn, shared.server
	require.NotNil(t, conn)
	t.Setenv("PATH", "")
	t.Setenv("DELTA_TEMPORAL_CLI", "/does/not/exist")
	t.Setenv("TMPDIR", "/does/not/exist")
	t.Run("use", func(t *testing.T) {
		second := New(t)
		require.Equal(t, first.TemporalAddress, second.TemporalAddress)
	})
	require.Same(t, conn, shared.conn)
	require.Equal(t, known, shared.server)
}

func BenchmarkNew(b *testing.B) {
	New(b)
	for b.Loop() {
		inner := &recorder{TB: b}
		if _, err := openEnv(inner, nil); err != nil {
			b.Fatal(err)
		}
		inner.runCleanups()
	}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	require.Equal(t, "TestA-sub-case-id", uniquePrefix("TestA/sub case", "id"))
	require.Equal(t, strings.Repeat("x", 40)+"-id", uniquePrefix(strings.Repeat("x", 99), "id"))
	require.Equal(t, "a-id", uniquePrefix("/a/", "id"))
}

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for _, base := range []string{
		"postgres://u:p@localhost:1/db",
		"postgresql://u:p@localhost:1/db?search_path=other&application_name=x&sslmode=disable",
		"postgresql://localhost:1/db?dbname=other&database=another",
		"host=localhost port=1 user=u password=p dbname=db search_path=other",
	} {
		got, err := withDatabase(base, "mine")
		require.NoError(t, err)
		config, err := pgx.ParseConfig(got)
		require.NoError(t, err)
		require.Equal(t, "mine", config.RuntimeParams["search_path"])
		require.Equal(t, "mine", config.RuntimeParams["application_name"])
		require.Equal(t, "localhost", config.Host)
		require.Equal(t, "mine", config.Database)
	}
	_, err := withDatabase("postgres://u:secret@ho st/db", "mine")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestEnvironmentIsHonoured(t *testing.T) {
	running := New(t)
	t.Setenv("DELTA_DATABASE_URL", running.DatabaseURL)
	t.Setenv("TEMPORAL_ADDRESS", running.TemporalAddress)
	t.Setenv("TMPDIR", t.TempDir())
	require.True(t, stack.ExternalTemporal())
	env := New(t)
	require.NotEqual(t, running.Schema, env.Schema)
	require.Equal(t, running.TemporalAddress, env.TemporalAddress)
	require.Equal(t, "default", env.TemporalNamespace)
	var port, other int
	for pool, to := range map[*pgxpool.Pool]*int{running.Pool: &port, env.Pool: &other} {
		require.NoError(t, pool.QueryRow(context.Background(), `select inet_server_port()`).Scan(to))
	}
	require.Equal(t, port, other)
	entries, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	require.Empty(t, entries, "something was started")
}
