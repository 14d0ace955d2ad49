package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

func TestListFiltersAndPages(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	c := i.newClient(nil)
	i.inform(c, deltatype.ResourceStateScheduled, nil, "a", "b", strings.Repeat("long/", 40))
	i.inform(c, deltatype.ResourceStateScheduled, &delta.InformOpts{
		Namespace: "billing", Tags: []string{"red", "blue"}, Metadata: []byte(`{"team":"ops","site":"eu"}`),
	}, "c")
	i.execSQL(`update delta_resource set state = 'degraded', due_at = null where object_id = 'b'`)

	ids := func(args ...string) (ids []string, next *int64) {
		t.Helper()
		r := i.run(append([]string{"resources", "list", "-o", "json"}, args...)...)
		require.Equal(t, exitOK, r.code, r.stderr)
		out := decode[pageJSON](t, r)
		require.NotNil(t, out.Resources)
		for _, one := range out.Resources {
			ids = append(ids, one.ObjectID[:1])
		}
		return ids, out.NextAfter
	}
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"all":         {nil, []string{"a", "b", "l", "c"}},
		"kind":        {[]string{"--kind", "page"}, []string{"a", "b", "l", "c"}},
		"other kind":  {[]string{"--kind", "other"}, nil},
		"ids":         {[]string{"--id", "a", "--id", "c"}, []string{"a", "c"}},
		"namespace":   {[]string{"--namespace", "billing,other"}, []string{"c"}},
		"state":       {[]string{"--state", "degraded,failed"}, []string{"b"}},
		"tags":        {[]string{"--tag", "red", "--tag", "blue"}, []string{"c"}},
		"tag missing": {[]string{"--tag", "red", "--tag", "green"}, nil},
		"labels":      {[]string{"--label", "team=ops,site=eu"}, []string{"c"}},
		"together":    {[]string{"--label", "team=ops", "--state", "degraded"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			found, next := ids(test.args...)
			require.Equal(t, test.want, found)
			require.Nil(t, next)
		})
	}

	// Two pages, and no third.
	first, next := ids("--limit", "2")
	require.Equal(t, []string{"a", "b"}, first)
	require.NotNil(t, next)
	r := i.run("resources", "list", "--limit", "2")
	require.Contains(t, r.stderr, "--after "+wording.Number(*next))
	second, next := ids("--limit", "2", "--after", wording.Number(*next))
	require.Equal(t, []string{"l", "c"}, second)
	require.Nil(t, next)

	// Ids are shortened on a terminal only.
	r = i.runWith(streams{width: 80}, "resources", "list")
	requireNarrow(t, r.stdout)
	require.Contains(t, r.stdout, "long/long/")
	require.Contains(t, r.stdout, "…")
	require.NotContains(t, i.run("resources", "list").stdout, "…")

	r = i.run("resources", "list", "--id", "nobody")
	require.Equal(t, result{exitOK, "", "No resources match.\n"}, r)
}

func TestGetShowsEverything(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	c := i.startController(&pages{})
	i.inform(c, deltatype.ResourceStateDegraded, &delta.InformOpts{Tags: []string{"red"}, Metadata: []byte(`{"team":"ops"}`)}, "broken")

	r := i.runWith(streams{width: 80}, "resources", "get", "page", "broken")
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	for _, part := range []string{
		"page/broken", "degraded", "never synced", "1 of 10", `"path": "broken"`, `"team": "ops"`, "red", "404 Not [31mFound", i.Prefix + "/page/broken",
		"its row is removed",
	} {
		require.Contains(t, r.stdout, part)
	}

	one := decode[resourceJSON](t, i.run("resources", "get", "page", "broken", "-o", "json"))
	require.Equal(t, "degraded", one.State)
	require.JSONEq(t, `{"path":"broken"}`, string(one.Object))
	require.JSONEq(t, `{"team":"ops"}`, string(one.Metadata))
	require.Equal(t, []string{"red"}, one.Tags)
	require.Len(t, one.Errors, 1)
	require.Contains(t, one.Errors[0].Error, "404\nNot \x1b[31mFound", "JSON is true to the row")

	require.Equal(t, exitOK, i.run("pause", "resource", "page", "broken").code)
	require.Contains(t, i.run("resources", "get", "page", "broken").stdout, "degraded, paused")
}

func TestListFindsErrorsAndLateOnesInAnOrder(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a", "b", "c", "d")
	i.execSQL(`update delta_resource set state = 'failed', attempt = 1, due_at = now() + interval '1 hour', generation_at = now() - interval '1 day',
		errors = array[jsonb_build_object('at', now(), 'attempt', 1, 'error', '100% ' || object_id || E'\nand more')] where object_id in ('b', 'c')`)
	i.execSQL(`update delta_resource set attempted_at = now() - interval '1 hour' where object_id = 'b'`)
	i.execSQL(`update delta_resource set attempted_at = now() - interval '2 hours' where object_id = 'c'`)
	i.execSQL(`update delta_resource set due_at = now() - interval '1 hour', dispatch_at = now() where object_id = 'd'`)
	i.execSQL(`update delta_resource set due_at = now() + interval '1 hour' where object_id = 'a'`)
	ids := func(args ...string) (ids string, next string) {
		t.Helper()
		r := i.run(append([]string{"resources", "list", "-o", "json"}, args...)...)
		require.Equal(t, exitOK, r.code, r.stderr)
		out := decode[pageJSON](t, r)
		for _, one := range out.Resources {
			ids += one.ObjectID
		}
		return ids, out.NextCursor
	}
	found, next := ids("--error", "100%")
	require.Equal(t, "bc", found)
	require.Empty(t, next)
	found, _ = ids("--error", "_")
	require.Empty(t, found)
	found, _ = ids("--late")
	require.Equal(t, "d", found)
	found, next = ids("--error", "100%", "--sort", "changed", "--limit", "1")
	require.Equal(t, "c", found)
	require.NotEmpty(t, next)
	found, next = ids("--error", "100%", "--sort", "changed", "--limit", "1", "--cursor", next)
	require.Equal(t, "b", found)
	require.Empty(t, next)
	found, _ = ids("--descending")
	require.Equal(t, "dcba", found)

	r := i.run("resources", "list", "--error", "100%", "--sort", "error", "--limit", "1")
	require.Contains(t, r.stdout, "100% b\n", "its first line")
	require.NotContains(t, r.stdout, "and more")
	require.Contains(t, r.stderr, "There are more: --cursor ")
	require.Contains(t, i.run("resources", "list", "--late").stdout, "1h ago")
	r = i.run("resources", "list", "--kind", "page", "--sort", "changed")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "needs a filter with Late")
	for _, wrong := range [][]string{{"--error", ""}, {"--late=false"}, {"--after", "1", "--sort", "due"}, {"--sort", "name"}, {"--cursor", "x"}} {
		require.Equal(t, exitUsage, i.run(append([]string{"resources", "list"}, wrong...)...).code, "%v", wrong)
	}
	require.Contains(t, i.run("resources", "retry", "--error", "", "--yes").stderr, "--error must not be empty")

	require.Equal(t, "1 resource: nothing was done\n", i.run("resources", "touch", "--late", "--dry-run").stdout)
	r = i.run("resources", "retry", "--error", "% c", "--state", "failed", "--yes")
	require.Equal(t, "1 resource will be tried again\n", r.stdout, r.stderr)
}

func TestRetryByNameAndByFilter(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a", "b", "c", "d")
	i.execSQL(`update delta_resource set state = 'degraded' where object_id in ('a', 'b')`)
	i.execSQL(`update delta_resource set state = 'failed' where object_id = 'c'`)
	state := func(path string) deltatype.ResourceState {
		return i.waitForResource(path, func(*deltatype.ResourceRow) bool { return true }).State
	}

	// By name: a resource that cannot be retried does not prevent the others from being retried.
	r := i.run("resources", "retry", "page", "d", "a", "nobody")
	require.Equal(t, exitState, r.code)
	require.Equal(t, "page/a will be tried again\n", r.stdout)
	require.Contains(t, r.stderr, "retry page/d: its state is scheduled, and must be degraded, or failed")
	require.Contains(t, r.stderr, "retry page/nobody: there is no such resource")
	require.Equal(t, deltatype.ResourceStateScheduled, state("a"))
	r = i.run("resources", "retry", "page", "nobody", "-o", "json")
	require.Equal(t, exitNotFound, r.code)
	out := decode[actionJSON](t, r)
	require.Equal(t, "retry", out.Action)
	require.Empty(t, out.Resources)
	require.Equal(t, "nobody", out.Failed[0].ObjectID)

	// By filter, the command asks, and without a terminal it does nothing.
	r = i.run("resources", "retry", "--kind", "page")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "use --yes")
	r = i.runWith(streams{isInteractive: true, in: strings.NewReader("n\n")}, "resources", "retry", "--kind", "page", "--state", "degraded,failed")
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, "Retry 2 resources? [y/N]")
	require.Equal(t, deltatype.ResourceStateDegraded, state("b"))
	r = i.runWith(streams{isInteractive: true, in: strings.NewReader("y\n")}, "resources", "retry", "--kind", "page")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Equal(t, "1 resource will be tried again\n", r.stdout)
	require.Equal(t, deltatype.ResourceStateScheduled, state("b"))
	require.Equal(t, deltatype.ResourceStateFailed, state("c"), "not without --state")
	r = i.run("resources", "retry", "--state", "failed", "--yes", "-o", "json")
	require.Equal(t, 1, decode[actionJSON](t, r).Count)
	require.Equal(t, "0 resources will be tried again\n", i.run("resources", "retry", "--all").stdout, "there is nothing to ask")
}

func TestInvalidateAndDelete(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a", "b", "c")
	i.execSQL(`update delta_resource set state = 'synced', synced_generation = 1, due_at = null where object_id = 'a'`)

	r := i.run("resources", "invalidate", "page", "b", "a")
	require.Equal(t, exitState, r.code)
	require.Equal(t, "page/a is expired and will be synced again\n", r.stdout)
	require.Contains(t, r.stderr, "invalidate page/b: its state is scheduled, and must be synced")

	r = i.run("resources", "touch", "page", "c", "nobody")
	require.Equal(t, exitNotFound, r.code)
	require.Equal(t, "page/c will be synced\n", r.stdout)

	require.Equal(t, exitUsage, i.run("resources", "delete", "page", "a").code)
	r = i.runWith(streams{isInteractive: true}, "resources", "delete", "page", "a", "b")
	require.Equal(t, exitFailure, r.code, "no answer is no")
	require.Contains(t, r.stderr, "Delete 2 resources of kind page?")
	r = i.run("resources", "delete", "page", "a", "b", "-y", "-o", "json")
	require.Equal(t, exitOK, r.code, r.stderr)
	out := decode[actionJSON](t, r)
	require.Equal(t, 2, out.Count)
	require.Equal(t, "deleted", out.Resources[0].State)
	require.Empty(t, out.Failed)
	require.Equal(t, exitState, i.run("resources", "delete", "page", "a", "-y").code, "deleted already")
}

func TestInvalidateAndDeleteByFilter(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a", "b", "c", "d")
	i.execSQL(`update delta_resource set state = 'synced', synced_generation = 1, due_at = null where object_id in ('a', 'b', 'c')`)
	in := func(state deltatype.ResourceState) (ids string) {
		for _, id := range []string{"a", "b", "c", "d"} {
			if i.waitForResource(id, func(*deltatype.ResourceRow) bool { return true }).State == state {
				ids += id
			}
		}
		return ids
	}

	r := i.run("resources", "invalidate", "--kind", "page", "--dry-run")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Equal(t, "3 resources: nothing was done\n", r.stdout)
	require.Equal(t, "abc", in(deltatype.ResourceStateSynced))
	require.Equal(t, exitUsage, i.run("resources", "invalidate", "--id", "a").code, "nobody is taken by surprise")
	r = i.runWith(streams{isInteractive: true, in: strings.NewReader("y\n")}, "resources", "invalidate", "--id", "a", "--id", "d")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Contains(t, r.stderr, "Invalidate 1 resource? [y/N]")
	require.Equal(t, "1 resource will be synced again\n", r.stdout)
	require.Equal(t, "a", in(deltatype.ResourceStateExpired))
	r = i.run("resources", "invalidate", "--all", "--yes", "-o", "json")
	require.Equal(t, 2, decode[actionJSON](t, r).Count)
	require.Equal(t, "abc", in(deltatype.ResourceStateExpired))

	r = i.run("resources", "delete", "--kind", "page", "--state", "expired", "--dry-run", "-o", "json")
	require.Equal(t, actionJSON{Action: "delete", DryRun: true, Count: 3, Resources: []resourceJSON{}, Failed: []failedJSON{}}, decode[actionJSON](t, r))
	require.Empty(t, in(deltatype.ResourceStateDeleted))
	r = i.runWith(streams{isInteractive: true, in: strings.NewReader("n\n")}, "resources", "delete", "--state", "expired")
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, "Delete 3 resources? [y/N]")
	r = i.run("resources", "delete", "--kind", "page", "--id", "b", "--yes")
	require.Equal(t, "1 resource marked deleted\n", r.stdout)
	require.Equal(t, "b", in(deltatype.ResourceStateDeleted))
	r = i.run("resources", "delete", "--kind", "page", "--yes")
	require.Equal(t, "3 resources marked deleted\n", r.stdout, "those that are deleted are not counted")
	require.Equal(t, "abcd", in(deltatype.ResourceStateDeleted))
}

func TestRevive(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a", "b", "c", "d")
	require.Equal(t, exitOK, i.run("resources", "delete", "page", "a", "b", "c", "-y").code)
	state := func(id string) deltatype.ResourceState {
		return i.waitForResource(id, func(*deltatype.ResourceRow) bool { return true }).State
	}

	r := i.run("resources", "revive", "page", "a", "d")
	require.Equal(t, exitState, r.code)
	require.Equal(t, "page/a is not deleted any longer and will be synced\n", r.stdout)
	require.Contains(t, r.stderr, "revive page/d: its state is scheduled, and must be deleted")
	row := i.waitForResource("a", func(*deltatype.ResourceRow) bool { return true })
	require.Equal(t, deltatype.ResourceStateScheduled, row.State)
	require.EqualValues(t, 3, row.Generation)

	r = i.run("resources", "revive", "--kind", "page", "--dry-run")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Equal(t, "2 resources: nothing was done\n", r.stdout)
	require.Equal(t, deltatype.ResourceStateDeleted, state("b"))
	r = i.run("resources", "revive", "page", "b", "-o", "json")
	require.Equal(t, exitOK, r.code, r.stderr)
	out := decode[actionJSON](t, r)
	require.Equal(t, "revive", out.Action)
	require.Equal(t, 1, out.Count)
	require.Equal(t, "scheduled", out.Resources[0].State)
	r = i.run("resources", "revive", "--kind", "page", "--yes")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Equal(t, "1 resource will be synced\n", r.stdout)
	require.Equal(t, deltatype.ResourceStateScheduled, state("c"))
}

func TestWrongUsageOfResources(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":        {[]string{"resources"}, exitUsage, "list, get, explain, history, retry, invalidate, touch, delete, revive or workflow-id"},
		"state":          {[]string{"resources", "list", "--state", "borken"}, exitUsage, `--state "borken": must be one of scheduled, pending, `},
		"limit":          {[]string{"resources", "list", "--limit", "1001"}, exitUsage, "--limit 1001: must be between 1 and 1000"},
		"no limit":       {[]string{"resources", "list", "--limit", "0"}, exitUsage, "between 1 and 1000"},
		"after":          {[]string{"resources", "list", "--after", "x"}, exitUsage, `invalid argument "x" for "--after"`},
		"label":          {[]string{"resources", "list", "--label", "x"}, exitUsage, "x must be formatted as key=value"},
		"output":         {[]string{"resources", "list", "-o", "yaml"}, exitUsage, "must be table or json"},
		"kind only":      {[]string{"resources", "get", "page"}, exitUsage, "accepts 2 arg(s), received 1"},
		"nobody":         {[]string{"resources", "get", "page", "nobody"}, exitNotFound, "get page/nobody: there is no such resource"},
		"bad kind":       {[]string{"resources", "invalidate", "a/b", "x"}, exitUsage, "kind"},
		"retry nothing":  {[]string{"resources", "retry"}, exitUsage, "KIND ID, filters, or --all"},
		"retry a kind":   {[]string{"resources", "retry", "page"}, exitUsage, "--kind page"},
		"retry both":     {[]string{"resources", "retry", "page", "a", "--kind", "page"}, exitUsage, "not both"},
		"retry synced":   {[]string{"resources", "retry", "--state", "synced"}, exitUsage, "must be degraded or failed"},
		"invalidate any": {[]string{"resources", "invalidate", "--state", "failed"}, exitUsage, "must be synced"},
		"revive failed":  {[]string{"resources", "revive", "--state", "failed"}, exitUsage, "must be deleted"},
		"delete both":    {[]string{"resources", "delete", "--all", "--kind", "user"}, exitUsage, "use --all or filters, not both"},
		"delete deleted": {[]string{"resources", "delete", "--state", "deleted"}, exitUsage, "degraded, expired or unknown"},
		"delete nothing": {[]string{"resources", "delete"}, exitUsage, "KIND ID, filters, or --all"},
		"delete blindly": {[]string{"resources", "delete", "--kind", ""}, exitUsage, "it would select everything"},
		"dry by name":    {[]string{"resources", "delete", "page", "a", "--dry-run"}, exitUsage, "--dry-run needs filters"},
		"unknown option": {[]string{"resources", "list", "--prefix", "x"}, exitUsage, "unknown flag: --prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			r := i.run(test.args...)
			require.Equal(t, test.code, r.code, r.stderr)
			require.Contains(t, r.stderr, test.says)
			require.Empty(t, r.stdout)
		})
	}
	r := inProcess(t.Context(), streams{}, "resources", "list", "--database-url", i.emptySchema())
	require.Equal(t, exitUnreachable, r.code)
	require.Contains(t, r.stderr, "delta migrate up")
	r = inProcess(t.Context(), streams{}, "resources", "list", "--database-url", "postgres://u:secret@127.0.0.1:1/x")
	require.Equal(t, exitUnreachable, r.code)
	require.Contains(t, r.stderr, "Postgres at 127.0.0.1:1 cannot be reached")
	require.NotContains(t, r.stderr, "secret")
}
