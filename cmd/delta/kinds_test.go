package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestKindsCountAndShowInformers(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	i := newInstallation(t)
	r := i.run("kinds")
	require.Equal(t, exitOK, r.code)
	require.Contains(t, r.stderr, "There are no kinds yet")

	began := time.Now()
	c := i.startController(&pages{})
	i.inform(c, deltatype.ResourceStateSynced, nil, "a", "b")
	i.inform(c, deltatype.ResourceStateDegraded, nil, "broken")
	const long = "a-kind-that-has-a-name-longer-than-a-terminal-is-wide-because-somebody-wanted-it"
	i.execSQL(`insert into delta_controller (name, inform_interval) values ('` + long + `', '-1s')`)
	i.execSQL(`insert into delta_shard (kind, shard, succeeded_at, failed_at, error) values ('` + long + `', '', now() - interval '36h', now(), '503')`)

	var page kindJSON
	require.Eventually(t, func() bool { // wait for the first pass
		out := decode[kindsJSON](t, i.run("kinds", "page", "-o", "json"))
		page = out.Kinds[0]
		return out.TemporalError == nil && page.Informer.LastSuccess != nil
	}, testTimeout, 50*time.Millisecond)
	ended := time.Now()
	require.EqualValues(t, 3, page.Total)
	require.EqualValues(t, 2, page.Counts["synced"])
	require.EqualValues(t, 1, page.Counts["degraded"])
	require.Contains(t, page.Counts, "expired", "all states, also those without resources")
	require.Nil(t, page.Informer.LagSeconds)
	require.InDelta(t, 3600, *page.Informer.IntervalSeconds, 0)
	// The clocks of the servers may differ.
	require.WithinRange(t, *page.Informer.LastRun, began.Add(-time.Minute), ended.Add(time.Minute))
	require.WithinRange(t, *page.Informer.NextRun, began.Add(-time.Minute), ended.Add(61*time.Minute))

	// However long the commands take, it was just heard of.
	i.execSQL(`insert into delta_source (kind, name, epoch, runner, seen_at, caught_up_at, behind_messages, failures, failed_at, error)
		values ('page', 'category page', 1, '1@host', now() + interval '1 hour', now() - interval '90 minutes', 3, 2, now(), 'boom')`)
	i.execSQL(`insert into delta_touch (kind, parent, changed_at) values ('page', 'book/a', now() - interval '90 s'), ('page', 'book/b', now())`)
	r = i.run("kinds", "page")
	require.Contains(t, r.stdout, "LAST WRITTEN")
	require.Regexp(t, `page +category page +failed +\S+( ago)? +1h\S+ +3 messages +-`, r.stdout)
	require.Contains(t, r.stderr, `page: source "category page" fails, 2 times in a row: boom`)
	require.Contains(t, r.stderr, "page: the children of 2 changed parents, the first ")
	source := decode[kindsJSON](t, i.run("kinds", "page", "-o", "json")).Kinds[0].Sources[0]
	require.EqualValues(t, 3, *source.BehindMessages)
	require.Equal(t, "boom", *source.Error)

	r = i.runWith(streams{width: 80}, "kinds")
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	for _, part := range []string{"SYNCED", "DEGRADED", "never", "1d12h ago", "in "} {
		require.Contains(t, r.stdout, part)
	}
	require.Contains(t, r.stderr, "the latest pass failed: 503")

	r = i.run("kinds", "bogus")
	require.Equal(t, exitNotFound, r.code)
	require.Contains(t, r.stderr, `kind "bogus": there is no such kind: there are a-kind`)

	// Without Temporal, the command shows the data of the database.
	r = i.run("kinds", "--temporal-address", "127.0.0.1:1")
	require.Equal(t, exitOK, i.run("kinds").code)
	r = inProcess(t.Context(), streams{}, "kinds", "-o", "json", "--database-url", i.DatabaseURL, "--temporal-address", "127.0.0.1:1")
	require.Equal(t, exitOK, r.code, r.stderr)
	out := decode[kindsJSON](t, r)
	require.Contains(t, *out.TemporalError, "Temporal at 127.0.0.1:1 cannot be reached")
	require.Nil(t, out.Kinds[1].Informer.NextRun)
	require.NotNil(t, out.Kinds[1].Informer.LastSuccess)
	require.NotNil(t, out.Kinds[0].Informer.LagSeconds)
	r = inProcess(t.Context(), streams{}, "kinds", "--database-url", i.DatabaseURL, "--temporal-address", "127.0.0.1:1")
	require.Contains(t, r.stdout, "?")
	require.Contains(t, r.stderr, "127.0.0.1:1 cannot be reached")
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	c := i.startController(&pages{})
	i.inform(c, deltatype.ResourceStateSynced, nil, "a")

	r := i.run("pause", "resource", "page", "a")
	require.Equal(t, result{exitOK, "resource page/a paused\n", ""}, r)
	require.True(t, i.waitForResource("a", func(*deltatype.ResourceRow) bool { return true }).Paused)
	r = i.run("resume", "resource", "page", "a", "-o", "json")
	require.Equal(t, pausedJSON{What: "resource", Kind: "page", ObjectID: "a"}, decode[pausedJSON](t, r))
	require.False(t, i.waitForResource("a", func(*deltatype.ResourceRow) bool { return true }).Paused)

	require.Equal(t, "kind page paused\n", i.run("pause", "kind", "page").stdout)
	i.inform(c, deltatype.ResourceStateScheduled, nil, "later")
	require.True(t, decode[kindsJSON](t, i.run("kinds", "-o", "json")).Kinds[0].Paused)
	require.Equal(t, "kind page resumed\n", i.run("resume", "kind", "page").stdout)
	i.inform(c, deltatype.ResourceStateSynced, nil, "later")

	// A snooze is shown, and resume ends it.
	i.execSQL(`update delta_controller set snoozed_until = now() + interval '1 hour' where name = 'page';
		insert into delta_namespace (name, snoozed_until) values ('default', now() + interval '2 hours')`)
	require.NotNil(t, decode[kindsJSON](t, i.run("kinds", "-o", "json")).Kinds[0].SnoozedUntil)
	require.Contains(t, i.run("kinds").stdout, "snoozed 59m")
	shown := i.run("resources", "get", "page", "a").stdout
	require.Regexp(t, `snoozed      its kind, until .* \(in 59m`, shown)
	require.Regexp(t, `snoozed      its namespace, until .* \(in 1h59m`, shown)
	sick := i.run("doctor").stdout
	require.Contains(t, sick, "delta resume kind page")
	require.Contains(t, sick, "delta resume namespace default")
	require.Equal(t, "kind page resumed\n", i.run("resume", "kind", "page").stdout)
	r = i.run("resume", "namespace", "default", "-o", "json")
	require.Equal(t, pausedJSON{What: "namespace", Namespace: "default"}, decode[pausedJSON](t, r))
	require.NotContains(t, i.run("kinds").stdout, "snoozed")
	require.NotContains(t, i.run("resources", "get", "page", "a").stdout, "snoozed")
	require.NotContains(t, i.run("doctor").stdout, "snoozed")

	schedule := i.Temporal.ScheduleClient().GetHandle(t.Context(), i.Prefix+"/inform:page")
	for verb, paused := range map[string]bool{"pause": true, "resume": false} {
		r = i.run(verb, "informer", "page")
		require.Equal(t, exitOK, r.code, r.stderr)
		found, err := schedule.Describe(t.Context())
		require.NoError(t, err)
		require.Equal(t, paused, found.Schedule.State.Paused)
	}

	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":          {[]string{"pause"}, exitUsage, "resource, kind or informer"},
		"unknown kind":     {[]string{"pause", "kind", "pgae"}, exitNotFound, "there are page"},
		"unknown informer": {[]string{"resume", "informer", "pgae"}, exitNotFound, "there are page"},
		"unknown resource": {[]string{"pause", "resource", "page", "nobody"}, exitNotFound, "pause page/nobody: there is no such resource"},
		"nobody to resume": {[]string{"resume", "resource", "page", "nobody"}, exitNotFound, "resume page/nobody: there is no such resource"},
		"no id":            {[]string{"pause", "resource", "page"}, exitUsage, "accepts 2 arg(s)"},
		"other prefix":     {[]string{"pause", "informer", "page", "--prefix", "other"}, exitUsage, "must be"},
		"no namespace":     {[]string{"pause", "informer", "page", "--temporal-namespace=nowhere"}, exitFailure, "--temporal-namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(test.args, "--database-url", i.DatabaseURL, "--temporal-address", i.TemporalAddress)
			r := inProcess(t.Context(), streams{}, args...)
			require.Equal(t, test.code, r.code, r.stderr)
			require.Contains(t, r.stderr, test.says)
		})
	}
	r = inProcess(t.Context(), streams{}, "pause", "informer", "page", "--database-url", i.DatabaseURL, "--temporal-address", "127.0.0.1:1")
	require.Equal(t, exitUnreachable, r.code)
	require.Contains(t, r.stderr, "Temporal at 127.0.0.1:1 cannot be reached")
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a")
	i.execSQL(`insert into delta_controller (name, inform_interval) values ('account', '1h')`)
	complete := func(args ...string) []string {
		args = append([]string{"__complete"}, args...)
		r := inProcess(context.Background(), streams{}, args...)
		require.Equal(t, exitOK, r.code, r.stderr)
		lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
		require.Equal(t, ":4", lines[len(lines)-1], "no file names")
		return lines[:len(lines)-1]
	}
	url := "--database-url=" + i.DatabaseURL
	require.Equal(t, []string{"account", "page"}, complete("inform", url, ""))
	require.Equal(t, []string{"account", "page"}, complete("pause", "informer", url, ""))
	require.Equal(t, []string{"account", "page"}, complete("resources", "list", url, "--kind", ""))
	require.Equal(t, stateNames(), complete("resources", "list", "--state", ""))
	require.Equal(t, []string{"table", "json"}, complete("doctor", "--output", ""))
	require.Empty(t, complete("resources", "get", url, "page", ""))
	require.Empty(t, complete("inform", "--database-url", "postgres://127.0.0.1:1/x", ""))
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := inProcess(t.Context(), streams{}, "completion", shell)
		require.Equal(t, exitOK, r.code)
		require.Contains(t, r.stdout, "__complete")
	}
}
