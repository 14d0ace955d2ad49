package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func TestInformRunsAnInformer(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "known")

	// No worker has the kind: the run waits, but the command only until its timeout. On a slow machine the timeout may pass before the run is
	// started; then the test tries a longer one.
	var r result
	for timeout := 300 * time.Millisecond; timeout < testTimeout; timeout *= 2 {
		r = i.run("inform", "page", "--timeout", timeout.String(), "--prefix", i.Prefix)
		require.Equal(t, exitFailure, r.code)
		require.Contains(t, r.stderr, "No worker polls "+i.Prefix+"/inform:page")
		require.Contains(t, r.stderr, "--timeout has passed")
		require.Empty(t, r.stdout)
		if strings.Contains(r.stderr, "The run goes on in Temporal") {
			break
		}
	}
	require.Contains(t, r.stderr, "The run goes on in Temporal: workflow "+i.Prefix+"/inform:page/")

	controller := &pages{list: []page{{Path: "a"}, {Path: "b"}, {Path: "known"}}, asked: make(chan delta.InformOptions, 100)}
	i.startController(controller)
	for _, path := range []string{"a", "b", "known"} {
		require.Eventually(t, func() bool {
			row, err := i.newClient(nil).Get(t.Context(), "page", path)
			return err == nil && row.State == deltatype.ResourceStateSynced
		}, testTimeout, 20*time.Millisecond)
	}
	r = i.run("inform", "page")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Equal(t, "page: 3 listed, none to sync\n", r.stdout)
	require.NotContains(t, r.stderr, "\r")

	r = i.run("inform", "page", "--foreground", "--process-existing")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Equal(t, "page: 3 listed, 3 to sync; all have settled\n", r.stdout)
	out := decode[informJSON](t, i.run("inform", "page", "--process-existing", "-o", "json"))
	require.Equal(t, 3, out.Scheduled)
	require.NotEmpty(t, out.RunID)
	require.Nil(t, out.Error)

	// The informer gets the options.
	before := time.Now().Round(0)
	r = i.run("inform", "page", "--after", "24h", "--limit", "7", "--label", "plan=pro", "--label", "site=eu", "--order-by", "path DESC")
	require.Equal(t, exitOK, r.code, r.stderr)
	after := time.Now().Round(0)
	asked := <-controller.asked
	for asked.Limit != 7 { // skip the options of the schedule and of the runs above
		asked = <-controller.asked
	}
	require.WithinRange(t, asked.After.Add(24*time.Hour), before, after)
	require.Equal(t, map[string]string{"plan": "pro", "site": "eu"}, asked.Labels)
	require.Equal(t, "path DESC", asked.OrderBy)
}

func TestInformInTheForegroundFailsIfSomeDegrade(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	controller := &pages{list: []page{{Path: "a"}, {Path: "broken"}}}
	i.startController(controller)
	i.inform(i.newClient(nil), deltatype.ResourceStateDegraded, nil, "broken")

	r := i.runWith(streams{isAnimated: true, width: 80}, "inform", "page", "--foreground")
	require.Equal(t, exitFailure, r.code, r.stdout)
	require.Contains(t, r.stderr, "delta: 1 of 2 resources degraded: broken\n")
	require.Contains(t, r.stderr, "\rpage [", "a bar")
	require.Empty(t, r.stdout)

	r = i.run("inform", "page", "--foreground", "-o", "json")
	require.Equal(t, exitFailure, r.code)
	out := decode[informJSON](t, r)
	require.Equal(t, "1 of 2 resources degraded: broken", *out.Error)
	require.Equal(t, 2, out.Listed)
}

func TestInformShowsHowFarItIs(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	controller := &pages{list: []page{{Path: "a"}, {Path: "held", Hold: true}}, release: make(chan struct{})}
	i.startController(controller)
	// Work of one page waits until the progress shows that the other has settled.
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	release := sync.OnceFunc(func() { close(controller.release) })
	defer release()
	s := streams{isAnimated: true, width: 80, err: &outputBuffer{shown: func(all string) {
		if strings.Contains(all, " 50%  1 of 2 settled") {
			release()
		}
	}}}
	r := inProcess(ctx, s, i.appendServerFlags("inform", "page", "--foreground")...)
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Contains(t, r.stderr, " 50%  1 of 2 settled")
	for frame := range strings.SplitSeq(r.stderr, "\r") {
		require.Less(t, len([]rune(frame)), 80)
	}
	require.True(t, strings.HasSuffix(r.stderr, " \r"), "the bar is gone at the end")
}

func TestAnInterruptLeavesTheRun(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "known")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := streams{isAnimated: true, width: 80, err: &outputBuffer{shown: func(all string) {
		if strings.Contains(all, "\rpage [") { // the run has started
			cancel(errInterrupted)
		}
	}}}
	r := inProcess(ctx, s, i.appendServerFlags("inform", "page", "--prefix", i.Prefix)...)
	require.Equal(t, exitInterrupted, r.code, r.stderr)
	require.Contains(t, r.stderr, "The run goes on in Temporal")
}

func TestWrongUsageOfInform(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "known")
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no kind":    {nil, exitUsage, "accepts 1 arg(s), received 0"},
		"other kind": {[]string{"pgae"}, exitNotFound, `kind "pgae": there is no such kind: there are page`},
		"after":      {[]string{"page", "--after", "yesterday"}, exitUsage, `--after "yesterday": must be a time`},
		"future":     {[]string{"page", "--after", "-1h"}, exitUsage, "must be a time"},
		"limit":      {[]string{"page", "--limit", "-1"}, exitUsage, "--limit -1: must be positive"},
		"timeout":    {[]string{"page", "--timeout", "-1s"}, exitUsage, "--timeout -1s: must be positive"},
		"label":      {[]string{"page", "--label", "x"}, exitUsage, "key=value"},
	} {
		t.Run(name, func(t *testing.T) {
			r := i.run(append([]string{"inform"}, test.args...)...)
			require.Equal(t, test.code, r.code, r.stderr)
			require.Contains(t, r.stderr, test.says)
			require.Empty(t, r.stdout)
		})
	}
	r := inProcess(t.Context(), streams{}, "inform", "page", "--database-url", i.DatabaseURL, "--temporal-address", "127.0.0.1:1")
	require.Equal(t, exitUnreachable, r.code)
	require.Contains(t, r.stderr, "Temporal at 127.0.0.1:1 cannot be reached")
}

func TestInformsShowsThePasses(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	require.Contains(t, i.run("informs").stderr, "There are no passes yet")
	i.startController(&pages{list: []page{{Path: "a"}, {Path: "bad\x00id"}}})
	require.Equal(t, exitOK, i.run("inform", "page").code)
	// The schedule makes a pass at once. The rows inserted below are the latest only after that pass.
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		var n int
		require.NoError(c, i.Pool.QueryRow(t.Context(), "select count(*) from delta_inform where trigger = 'schedule' and ended_at is not null").Scan(&n))
		assert.Positive(c, n)
	}, testTimeout, 10*time.Millisecond)
	i.execSQL(`insert into delta_inform (kind, trigger, workflow_id, run_id, attempt, started_at, ended_at, full_listing, error)
		values ('page', 'schedule', '', '', 1, now() - interval '1 hour', now(), true, 'upstream is down')`)
	out := decode[passesJSON](t, i.run("informs", "page", "-o", "json", "--limit", "2"))
	require.Len(t, out.Passes, 2)
	require.Equal(t, "upstream is down", *out.Passes[0].Error)
	require.True(t, out.Passes[0].FullListing)
	require.EqualValues(t, 1, out.Passes[1].Refused)
	require.EqualValues(t, 1, out.Passes[1].New+out.Passes[1].Unchanged)
	r := i.runWith(streams{width: 80}, "informs")
	requireNarrow(t, r.stdout)
	for _, part := range []string{"SAME", "REFUSED", "schedule, all", "1h ago", "failed", "request"} {
		require.Contains(t, r.stdout, part)
	}
	require.NotContains(t, r.stdout, "WITHHELD", "what has not happened has no column")
	require.Contains(t, r.stderr, "upstream is down")
	require.Equal(t, exitUsage, i.run("informs", "--limit", "0").code)
	require.Equal(t, exitNotFound, i.run("informs", "bogus").code)
}
