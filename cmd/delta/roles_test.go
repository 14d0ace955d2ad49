package main

import (
	"context"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// documentedRoles are the roles of docs/security.md, in a schema of their own.
type documentedRoles struct {
	*installation
	schema string
}

// sql returns a block of the page, with the names of this test.
func (r *documentedRoles) sql(block string) string {
	r.t.Helper()
	page, err := os.ReadFile("../../docs/security.md")
	require.NoError(r.t, err)
	found := regexp.MustCompile("(?s)<!-- " + block + " -->\n```sql\n(.*?)```").FindSubmatch(page)
	require.NotNil(r.t, found, block)
	text := regexp.MustCompile(`delta_(migrate|client|reader)\b`).ReplaceAllString(string(found[1]), r.schema+"_$1")
	return regexp.MustCompile(`(SCHEMA|search_path =) delta\b`).ReplaceAllString(text, "$1 "+r.schema)
}

// address returns the URL by which a role connects.
func (r *documentedRoles) address(role string) string {
	r.t.Helper()
	u, err := url.Parse(r.DatabaseURL)
	require.NoError(r.t, err)
	u.User = url.UserPassword(r.schema+"_"+role, "of-"+role)
	query := u.Query()
	query.Del("search_path") // the role has it
	u.RawQuery = query.Encode()
	return u.String()
}

// connect returns a pool of a role.
func (r *documentedRoles) connect(role string) *pgxpool.Pool {
	r.t.Helper()
	pool, err := pgxpool.New(r.t.Context(), r.address(role))
	require.NoError(r.t, err)
	r.t.Cleanup(pool.Close)
	return pool
}

func (r *documentedRoles) exec(pool *pgxpool.Pool, sql string) {
	r.t.Helper()
	_, err := pool.Exec(r.t.Context(), sql)
	require.NoError(r.t, err, sql)
}

// loggedPage is a page whose kind has a log of changes.
type loggedPage struct{ page }

func (loggedPage) Kind() string { return "logged" }
func (loggedPage) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, Log: true}
}

type loggedPages struct {
	delta.WorkerDefaults[loggedPage]
	delta.InformerDefaults[loggedPage]
}

func (loggedPages) Work(context.Context, *delta.Resource[loggedPage]) error { return nil }

func (loggedPages) Inform(context.Context, *delta.InformOptions) (<-chan loggedPage, error) {
	none := make(chan loggedPage)
	close(none)
	return none, nil
}

// The rights of docs/security.md are enough for each role, and not more than it needs.
func TestTheDocumentedRolesAreEnough(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "its roles have passwords of their own")
	t.Parallel()
	i := newInstallation(t)
	r := &documentedRoles{i, i.Schema + "_r"}
	r.execSQL(r.sql("roles"))
	t.Cleanup(func() {
		for _, role := range []string{"client", "reader", "migrate"} {
			_, err := i.Pool.Exec(context.Background(), strings.ReplaceAll("DROP OWNED BY name CASCADE; DROP ROLE name", "name", r.schema+"_"+role))
			require.NoError(t, err)
		}
	})
	for _, role := range []string{"migrate", "client", "reader"} {
		r.execSQL("ALTER ROLE " + r.schema + "_" + role + " PASSWORD 'of-" + role + "'")
	}

	up := inProcess(t.Context(), streams{}, "migrate", "up", "--database-url", r.address("migrate"))
	require.Zero(t, up.code, up.stderr)
	owner := r.connect("migrate")
	r.exec(owner, r.sql("rights"))
	r.exec(owner, r.sql("log"))
	again := inProcess(t.Context(), streams{}, "migrate", "up", "--database-url", r.address("migrate"))
	require.Zero(t, again.code, again.stderr)
	r.exec(owner, r.sql("rights"))

	// A client works, with an informer and a log of changes, and makes partitions.
	controllers := delta.NewControllers()
	delta.AddController(controllers, &pages{list: []page{{Path: "listed"}}})
	delta.AddController(controllers, loggedPages{})
	pool := r.connect("client")
	c, err := delta.NewClient(pool, &delta.Config{
		Controllers: controllers, Temporal: i.Temporal, TemporalNamespace: i.TemporalNamespace, WorkflowIDPrefix: i.Prefix, Logger: i.Logger,
		Namespaces: map[string]delta.NamespaceConfig{"default": {MaxWorkers: 2, RateLimit: 1000}},
	})
	require.NoError(t, err)
	i.startClient(c)
	_, err = c.Inform(t.Context(), loggedPage{page{Path: "a"}}, nil)
	require.NoError(t, err)
	_, err = c.Sync(t.Context(), loggedPage{page{Path: "a"}}, nil)
	require.NoError(t, err)
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "page", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Listed)
	require.Eventually(t, func() bool {
		var made int
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_inherits WHERE inhparent = 'delta_change'::regclass").Scan(&made))
		return made > 1
	}, testTimeout, 20*time.Millisecond, "it makes partitions of the log")
	row, err := c.Delete(t.Context(), "logged", "a")
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateDeleted, row.State)
	require.NoError(t, c.PauseKind(t.Context(), "logged"))
	require.NoError(t, c.ResumeKind(t.Context(), "logged"))
	down := inProcess(t.Context(), streams{}, "migrate", "down", "--yes", "--database-url", r.address("client"))
	require.NotZero(t, down.code)
	for _, sql := range []string{"DROP TABLE delta_resource", "ALTER TABLE delta_resource ADD COLUMN a int", "UPDATE delta_goose_version SET is_applied = FALSE"} {
		_, err := pool.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "42501", sql)
	}

	// A reader reads everything, and changes nothing.
	reader := *i.Env
	reader.DatabaseURL = r.address("reader")
	reading := &installation{Env: &reader, t: t}
	for _, args := range [][]string{
		{"resources", "list"},
		{"resources", "get", "logged", "a"},
		{"resources", "history", "logged", "a"},
		{"resources", "explain", "page", "listed"},
		{"kinds"},
		{"informs"},
		{"doctor"},
	} {
		result := reading.run(args...)
		require.Zero(t, result.code, "%v: %s%s", args, result.stdout, result.stderr)
	}
	for _, args := range [][]string{{"metrics", "--once"}, {"namespaces", "list"}} {
		var result result
		require.Eventually(t, func() bool { // metrics are read once, within 5 s
			result = inProcess(t.Context(), streams{}, append(args[:len(args):len(args)], "--database-url", reader.DatabaseURL)...)
			return result.code == exitOK || strings.Contains(result.stderr, "permission denied")
		}, testTimeout, time.Millisecond)
		require.Zero(t, result.code, "%v: %s", args, result.stderr)
	}
	console := reading.startConsole(nil)
	for _, path := range []string{"", "kind?kind=page", "resources", "resource?kind=logged&id=a", "streams", "commands", "doctor", "tail"} {
		status, text := console.get(path, "")
		require.Equal(t, 200, status, "%s: %s", path, text)
		require.NotContains(t, text, "permission denied", path)
	}
	touch := reading.run("resources", "touch", "page", "listed")
	require.NotZero(t, touch.code)
	require.Contains(t, touch.stderr, "permission denied")
}
