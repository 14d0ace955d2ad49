package delta_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/stack"
)

const maintainedEvery = 200 * time.Millisecond

// numbered returns a name for each number from one to before another.
func numbered(prefix string, from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprintf("%s%02d", prefix, i))
	}
	return all
}

func (h *harness) passMirrors(c *delta.Client) *delta.InformRun {
	h.t.Helper()
	run, err := c.RunInform(h.t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
	require.NoError(h.t, err)
	return run
}

func (h *harness) ids() (ids []int64) {
	h.t.Helper()
	require.NoError(h.t, h.Pool.QueryRow(h.t.Context(), "SELECT array_agg(id) FROM delta_resource").Scan(&ids))
	return ids
}

func (h *harness) requireRestored(config *delta.Config) {
	h.t.Helper()
	c := h.client(config)
	err := c.Start(h.t.Context())
	require.ErrorIs(h.t, err, delta.ErrRestoredDatabase)
	require.ErrorContains(h.t, err, "delta restored adopt")
	require.ErrorContains(h.t, err, "delta restored separate")
	checks := h.client(config).Doctor(h.t.Context()).Checks
	at := slices.IndexFunc(checks, func(c delta.Check) bool { return c.Name == "prefix" })
	require.Equal(h.t, delta.CheckFailure, checks[at].State)
	require.Contains(h.t, checks[at].Remedy, "delta restored")
}

// Postgres goes back to a backup while Temporal has seen more, under a client that runs. The client and others notice, and once an operator has decided,
// everything is as the outside world says, although ids are given out again that workflows know.
func TestPostgresGoesBack(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "it has a server of its own")
	t.Parallel()
	server := keepServer(t, stack.StartPostgres)
	h := newHarness(t).on(server.DatabaseURL)
	var world outsideWorld
	listed := &upstream[mirror]{all: newMirrors(20)}
	var logs logBuffer
	config := world.configFor(h, listed)
	config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	c := h.start(config)

	h.informPlans(c, "1", numbered("a", 0, 10)...)
	h.passMirrors(c)
	h.awaitSettled()
	kept := h.ids()
	backup := server.backUp()
	heartbeat := h.countRows("SELECT heartbeat FROM delta_installation") // after the backup, into which clients wrote heartbeats until the server had stopped

	h.informPlans(c, "2", numbered("a", 0, 5)...)
	h.informPlans(c, "2", numbered("b", 0, 10)...)
	listed.set(newMirrors(22)...)
	h.passMirrors(c)
	h.awaitSettled()
	_, err := c.Delete(t.Context(), "account", "b09")
	require.NoError(t, err)
	lost := slices.DeleteFunc(h.ids(), func(id int64) bool { return slices.Contains(kept, id) })
	require.NotEmpty(t, lost)
	changes, err := c.ResourceChanges(t.Context(), "account", "b00", 0, 1)
	require.NoError(t, err)
	consumed := changes[0].Position
	h.awaitMarked(heartbeat)

	server.restore(backup)
	until(t, func() bool { return strings.Contains(logs.String(), "Temporal knows heartbeat") }, "the client that runs says so")
	h.requireRestored(world.configFor(h, listed))
	require.NoError(t, c.Stop(t.Context()))

	require.NoError(t, h.client(config).AdoptRestored(t.Context()))
	c = h.start(world.configFor(h, listed))
	h.informPlans(c, "3", numbered("new", 0, 10)...)
	require.NotEmpty(t, slices.DeleteFunc(h.ids(), func(id int64) bool { return !slices.Contains(lost, id) }), "ids are given out again")
	// The outside world is listed, or informed, once more.
	h.informPlans(c, "2", numbered("a", 0, 5)...)
	h.informPlans(c, "2", numbered("b", 0, 10)...)
	run := h.passMirrors(c)
	require.Zero(t, run.Deleted)
	h.awaitSettled()
	require.Equal(t, 22, h.countRows("SELECT count(*) FROM delta_resource WHERE kind = 'mirror' AND state = 'synced'"))
	for name, plan := range map[string]string{"a00": "2", "a09": "1", "b00": "2", "b09": "2", "new05": "3"} {
		for _, kind := range []string{"account", "batched"} {
			require.Equal(t, plan, world.planOf(kind+"/"+name), "%s/%s", kind, name)
			require.Positive(t, world.callsOf(t, kind+"/"+name))
			row := h.row(kind, name)
			require.Contains(t, string(row.EncodedObject), `"`+plan+`"`)
			require.Equal(t, row.Generation, row.SyncedGeneration)
		}
	}
	require.Zero(t, h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'deleted'"))

	var lostPosition *delta.ChangePositionError
	for _, err := range c.Changes(t.Context(), consumed) {
		require.ErrorAs(t, err, &lostPosition)
		break
	}
	require.NotNil(t, lostPosition, "a consumer notices that the log went back")
	require.True(t, lostPosition.IsRewound)
	heartbeat = h.countRows("SELECT marked_heartbeat FROM delta_installation")
	h.awaitMarked(heartbeat) // the client looks after Temporal again
}

// Temporal goes back to a backup while Postgres does not. Lifecycles, batches and schedules go on from the rows, and nothing is worked that is not due.
func TestTemporalGoesBack(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	server := keepServer(t, stack.StartTemporal)
	h := newHarness(t)
	temporal := server.dial()
	var world outsideWorld
	listed := &upstream[mirror]{all: newMirrors(20)}
	var logs logBuffer
	config := world.configFor(h, listed)
	config.Temporal, config.TemporalNamespace = temporal, ""
	config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	c := h.start(config)

	h.informPlans(c, "1", numbered("a", 0, 10)...)
	h.passMirrors(c)
	h.awaitSettled()
	backup := server.backUp()
	before := h.countRows("SELECT heartbeat FROM delta_installation") // after the backup, into which the server wrote marks until it had stopped

	h.informPlans(c, "2", numbered("a", 0, 5)...)
	h.informPlans(c, "2", numbered("b", 0, 10)...)
	h.passMirrors(c)
	_, err := c.Delete(t.Context(), "account", "a09")
	require.NoError(t, err)
	h.awaitSettled()
	h.awaitMarked(before)
	calls := map[string]int{}
	for _, name := range append(numbered("a", 0, 10), numbered("b", 0, 10)...) {
		calls[name] = world.callsOf(t, "account/"+name) + world.callsOf(t, "batched/"+name)
	}

	server.restore(backup)
	until(t, func() bool { return strings.Contains(logs.String(), "Temporal has gone back") })
	h.informPlans(c, "3", numbered("new", 0, 10)...)
	h.awaitSettled()
	until(t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'synced' AND dispatch_at < due_at") == 0
	}, "settled resources are in no dispatcher's way")
	until(t, func() bool {
		value, err := temporal.QueryWorkflow(t.Context(), h.Prefix+"/account/b00", "", "state")
		var step struct{ Next string }
		return err == nil && value.Get(&step) == nil && step.Next == "retention"
	}, "a resource that is newer than the backup has its lifecycle again")
	until(t, func() bool {
		count, err := temporal.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{
			Query: "WorkflowType = 'delta.Resource' AND ExecutionStatus = 'Running'",
		})
		return err == nil && count.GetCount() >= 30
	}, "each single account has one")
	for name, n := range calls {
		require.Equal(t, n, world.callsOf(t, "account/"+name)+world.callsOf(t, "batched/"+name), "%s was not due", name)
	}
	require.Equal(t, "deleted", string(h.row("account", "a09").State))
	require.Zero(t, h.passMirrors(c).Deleted)
}

// A dump that is restored beside its original, while the original goes on, is refused by clients until it is an installation of its own.
func TestACopyBesideTheOriginalDisturbsNothing(t *testing.T) {
	soak.Long(t)
	hostile.NeedsDirect(t, "pg_dump needs one")
	t.Parallel()
	h := newHarness(t)
	var world outsideWorld
	listed := &upstream[mirror]{all: newMirrors(20)}
	work := newHeldWork(t, &meter{})
	config := world.configFor(h, listed)
	delta.AddController(config.Controllers, &controller[serial]{timeout: -1, work: func(ctx context.Context, r *delta.Resource[serial]) error {
		return work.work(ctx, job{ResourceRow: r.ResourceRow, Object: r.Object.account})
	}})
	c := h.start(config)
	h.informPlans(c, "1", numbered("a", 0, 10)...)
	h.passMirrors(c)
	h.awaitSettled()
	_, err := c.Inform(t.Context(), serial{account{Name: "long", Plan: held}}, nil)
	require.NoError(t, err)
	receive(t, work.began)

	beside := h.copyDatabase()
	var otherWorld outsideWorld
	other := otherWorld.configFor(beside, listed)
	beside.requireRestored(other)
	_, err = beside.client(other).RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror"}, nil)
	require.ErrorIs(t, err, delta.ErrRestoredDatabase, "nor do clients that were not started use Temporal")
	h.informPlans(c, "2", numbered("a", 0, 5)...)
	h.eventually("account", "a00", synced(2))

	require.NoError(t, beside.client(other).SeparateCopy(t.Context()))
	require.ErrorIs(t, beside.client(other).Start(t.Context()), delta.ErrOtherInstallation, "it needs another prefix")
	other.WorkflowIDPrefix += "-copy"
	copied := beside.start(other)
	beside.informPlans(copied, "other", numbered("a", 0, 10)...)
	beside.informPlans(copied, "other", numbered("c", 0, 10)...)
	beside.eventually("account", "a00", synced(2))
	for _, kind := range []string{"account", "batched"} {
		for _, name := range append(numbered("a", 0, 10), numbered("c", 0, 10)...) {
			beside.eventually(kind, name, func(*deltatype.ResourceRow) bool { return otherWorld.planOf(kind+"/"+name) == "other" })
		}
	}
	require.Zero(t, beside.passMirrors(copied).Deleted)
	require.Zero(t, beside.countRows("SELECT count(*) FROM delta_resource WHERE starts_with(workflow_id, $1 || '/')", h.Prefix), "no row belongs to a workflow of the original")

	h.informPlans(c, "3", numbered("a", 0, 10)...)
	work.release()
	h.awaitSettled()
	require.Positive(t, work.callsOf(t, "long"), "no two of them overlapped")
	for _, name := range numbered("a", 0, 10) {
		require.Equal(t, "3", world.planOf("account/"+name))
		require.Equal(t, "3", world.planOf("batched/"+name))
	}
	require.Empty(t, world.planOf("account/c00"), "the original has nothing of the copy")
	require.Nil(t, h.row("account", "c00"))
}

// copyDatabase dumps the schema of the harness, and restores it into another database of the server.
func (h *harness) copyDatabase() *harness {
	h.t.Helper()
	dump, restore := findPostgresTool(h.t, "pg_dump"), findPostgresTool(h.t, "pg_restore")
	name := "copy_" + strings.TrimPrefix(h.Schema, "delta_test_")
	h.exec("CREATE DATABASE " + name)
	file := filepath.Join(h.t.TempDir(), "dump")
	there, err := url.Parse(h.DatabaseURL)
	require.NoError(h.t, err)
	query := there.Query()
	query.Del("search_path")
	query.Del("application_name")
	there.RawQuery = query.Encode()
	output, err := exec.CommandContext(h.t.Context(), dump, "--format=custom", "--schema="+h.Schema, "--file="+file, there.String()).CombinedOutput()
	if strings.Contains(string(output), "server version mismatch") {
		h.exec("DROP DATABASE " + name)
		h.t.Skipf("the pg_dump of this machine is older than the server: %s", output)
	}
	require.NoError(h.t, err, string(output))
	there.Path = "/" + name
	output, err = exec.CommandContext(h.t.Context(), restore, "--exit-on-error", "--dbname="+there.String(), file).CombinedOutput()
	require.NoError(h.t, err, string(output))

	settings := h.Pool.Config()
	settings.ConnConfig.Database = name
	pool, err := pgxpool.NewWithConfig(context.Background(), settings)
	require.NoError(h.t, err)
	h.t.Cleanup(func() {
		pool.Close()
		_, err := h.Pool.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(h.t, err)
	})
	env := *h.Env
	env.Pool, env.DatabaseURL = pool, there.String()
	return &harness{Env: &env, t: h.t}
}

// findPostgresTool finds a program of Postgres that not all packages have.
func findPostgresTool(t *testing.T, name string) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		t.Skipf("%s is not installed", name)
	}
	require.NoError(t, err)
	return path
}
