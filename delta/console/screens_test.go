package console_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/browsertest"
	"github.com/chariot-giving/delta/internal/soak"
)

// pressButton presses the button of a command on the open page.
func pressButton(b *browsertest.Browser, command console.CommandName) {
	b.Execute(`document.querySelector('button[value=` + string(command) + `]').click()`)
}

// view is the size and colour scheme of a browser window.
type view struct {
	width  int
	scheme string
}

// views have each width and each scheme once: no rule of the console's style is of both.
var views = []view{{1200, "light"}, {390, "dark"}}

func (v view) emulate(b *browsertest.Browser) {
	b.Call(http.MethodPost, "/goog/cdp/execute", map[string]any{
		"cmd": "Emulation.setDeviceMetricsOverride", "params": map[string]any{"width": v.width, "height": 844, "deviceScaleFactor": 1, "mobile": v.width < 500},
	}, nil)
	b.Call(http.MethodPost, "/goog/cdp/execute", map[string]any{
		"cmd": "Emulation.setEmulatedMedia", "params": map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": v.scheme}}},
	}, nil)
}

// requireSound checks that no hostile script has run in a page, that a phone need not scroll sideways, and that each image has a name.
func requireSound(t *testing.T, b *browsertest.Browser, address, name string) {
	t.Helper()
	b.Open(address)
	require.Nil(t, b.Execute("return window.ran"))
	for _, view := range views {
		view.emulate(b)
		require.LessOrEqual(t, b.Execute("return document.documentElement.scrollWidth"), float64(view.width), "%s has to be scrolled sideways", name)
		if *screenshots {
			height := b.Execute("return document.documentElement.scrollHeight").(float64)
			b.Call(http.MethodPost, "/goog/cdp/execute", map[string]any{
				"cmd": "Emulation.setDeviceMetricsOverride", "params": map[string]any{"width": view.width, "height": int(height), "deviceScaleFactor": 1, "mobile": view.width < 500},
			}, nil)
			b.Picture(fmt.Sprintf("%s/console-%s-%d-%s.png", os.TempDir(), name, view.width, view.scheme))
		}
	}
	b.Call(http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": "Emulation.clearDeviceMetricsOverride", "params": map[string]any{}}, nil)
	require.EqualValues(t, 0, b.Execute(`return document.querySelectorAll('svg:not([aria-label]), main img').length`))
	require.EqualValues(t, 1, b.Execute(`return document.querySelectorAll('h1').length`))
	require.EqualValues(t, 1, b.Execute(`return document.querySelectorAll('nav [aria-current=page], main').length > 0 ? 1 : 0`))
}

func hideErrors(row *deltatype.ResourceRow) { row.Errors = nil }

const fillFigures = `INSERT INTO delta_figure (kind, minute, synced, finalized, failed, degraded, deleted, snoozed, undecodable, seconds, durations)
	SELECT 'listed', date_trunc('minute', now()) - i * interval '1 minute', 40 + i % 30, 0, i % 7, i % 20 / 19, 1, 0, 0, 10,
		(SELECT array_agg(CASE WHEN b BETWEEN 6 AND 8 THEN 20 WHEN b = 11 AND i % 40 < 10 THEN 9 ELSE 0 END ORDER BY b) FROM generate_series(1, 25) b)
	FROM generate_series(1, 1400) i WHERE i % 300 > 20 ON CONFLICT DO NOTHING`

// A person sees what needs attention, presses the buttons that fix it, and sees that nothing needs attention any more.
func TestTheOverviewShowsAndFixesProblems(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	controller := &listedController{ended: true}
	client := startListed(t, env, controller, delta.ObjectSettings{RateLimit: 1000})
	_, err := client.Sync(t.Context(), listed{"fine"}, nil)
	require.NoError(t, err)
	log := &logLines{}
	config := console.Config{
		Authenticate: func(*http.Request) (string, bool) { return "ann", true }, Authorize: func(*http.Request, console.Command) bool { return true },
		Logger: slog.New(slog.NewJSONHandler(log, nil)),
	}
	acting := serveConsole(t, client, config)
	config.Authorize = nil
	reading := serveConsole(t, client, config)

	// Once the schedule exists, all checks pass.
	require.Eventually(t, func() bool { return client.Doctor(t.Context()).State() == delta.CheckOK }, patience, 100*time.Millisecond)
	until := func(address, says string) {
		t.Helper()
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			if b.Open(address); strings.Contains(b.Text(), says) {
				return
			}
		}
		b.Shows(says)
	}
	until(acting, "Nothing. ")

	require.NoError(t, client.PauseKind(t.Context(), "listed"))
	_, err = env.Pool.Exec(t.Context(), `INSERT INTO delta_namespace (name, snoozed_until) VALUES ('asleep', now() + interval '1 hour');
		INSERT INTO delta_withheld (kind, shard, missing, total, reason, since, seen_at) VALUES ('listed', '', 6, 10, 'it is more than a quarter', now(), now());
		INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, errors) SELECT 'listed', 'bad' || i, 'default', 'degraded', 10, '', '{}',
			ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', 'user ' || i || ' is unknown')] FROM generate_series(1, 3) i`)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), fillFigures)
	require.NoError(t, err)
	until(acting, "3 of 4 resources are degraded")
	for _, says := range []string{
		"paused: its resources are not worked on", "snoozed for", "the listings leave out 6 of 10 resources", "See the degraded resources of listed", "every 12h",
	} {
		require.Contains(t, b.Text(), says)
	}
	requireSound(t, b, acting, "overview")
	for _, step := range []struct {
		command console.CommandName
		gone    string
	}{
		{console.CommandResumeKind, "paused: its resources are not worked on"},
		{console.CommandResumeNamespace, "asleep"},
		{console.CommandDismiss, "the listings leave out 6 of 10 resources"},
	} {
		b.Open(acting)
		require.Contains(t, b.Text(), step.gone)
		pressButton(b, step.command)
		require.Eventually(t, func() bool {
			return log.hasLine(t, map[string]string{"msg": "delta: console: command done", "command": string(step.command), "user": "ann"})
		}, patience, 50*time.Millisecond, step.command)
		// The page that follows shows the state after the command.
		require.Eventually(t, func() bool { return !strings.Contains(b.Text(), step.gone) }, patience, 100*time.Millisecond, step.command)
		require.Equal(t, acting, b.Execute("return location.href"))
	}
	kinds, err := client.Kinds(t.Context())
	require.NoError(t, err)
	require.False(t, kinds[0].Paused)
	require.Equal(t, delta.WithheldDismissed, kinds[0].Withheld.Decision)

	requireSound(t, b, acting+"doctor", "doctor")
	for _, says := range []string{"database", "schema", "server settings", "search attributes", "workers listed", "informer listed"} {
		require.Contains(t, b.Text(), says)
	}

	// A read-only user has no button on any screen, and is refused.
	require.NoError(t, client.PauseKind(t.Context(), "listed"))
	for _, screen := range []string{"", "doctor", "kind?kind=listed"} {
		until(reading+screen, "paused: its resources are not worked on")
		require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('button, form').length"), screen)
	}
	form := url.Values{"token": {"t"}, "kind": {"listed"}, "command": {"resume-kind"}}
	good := map[string]string{"Origin": strings.TrimSuffix(acting, "/ops/delta/"), "Cookie": "delta_console=t", "Sec-Fetch-Site": "same-origin"}
	for name, c := range map[string]struct {
		address, field, value string
		status                int
	}{
		"read-only":       {reading, "", "", 403},
		"another token":   {acting, "token", "u", 403},
		"no such command": {acting, "command", "drop-kind", 400},
		"no number":       {acting, "missing", "all", 400},
		"not withheld":    {acting, "command", "approve", 400},
	} {
		sent := url.Values{}
		for field, values := range form {
			sent[field] = values
		}
		if c.field != "" {
			sent.Set(c.field, c.value)
		}
		headers := map[string]string{}
		for header, value := range good {
			headers[header] = value
		}
		headers["Origin"] = strings.TrimSuffix(c.address, "/ops/delta/")
		status, _ := sendRequest(t, http.MethodPost, c.address+"kind-command", sent.Encode(), headers)
		require.Equal(t, c.status, status, name)
	}
	kinds, err = client.Kinds(t.Context())
	require.NoError(t, err)
	require.True(t, kinds[0].Paused)
}

// A person sees the state of a kind, runs its informer, and watches a progress bar that moves without a script.
func TestTheKindPageShowsTheRunOfItsInformer(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	controller := &listedController{}
	// The informer runs only on command: two passes would share the listed objects.
	client := startListed(t, env, controller, delta.ObjectSettings{RateLimit: 1000, InformInterval: -1})
	_, err := env.Pool.Exec(t.Context(), fillFigures)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), `INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, errors)
		SELECT 'listed', 'bad' || i, 'default', 'degraded', 10, '', '{}', ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', 'user ' || i || ' is unknown: ' || $1::text)]
		FROM generate_series(1, 3) i`, hostile)
	require.NoError(t, err)
	log := &logLines{}
	config := console.Config{
		Authenticate: func(*http.Request) (string, bool) { return "ann", true }, Authorize: func(*http.Request, console.Command) bool { return true },
		Logger: slog.New(slog.NewJSONHandler(log, nil)),
	}
	acting := serveConsole(t, client, config)
	kind := acting + "kind?kind=listed"
	requireSound(t, b, kind+"&hours=24", "kind")
	b.Execute(`document.querySelectorAll('details').forEach(d => d.open = true)`)
	for _, says := range []string{
		"user # is unknown", "Of 3 resources that are degraded", "bad1", "attempts in 20m", "95 of 100 calls", "The figures as a table", "never by itself", "RateLimit", "Config.Kinds",
		"Parallelism", "the kind's Settings", "the default",
	} {
		require.Contains(t, b.Text(), says)
	}
	require.Greater(t, b.Execute(`return document.querySelectorAll('svg rect').length`), 100.0)
	require.Contains(t, b.Execute(`return document.querySelector('svg').getAttribute('aria-label')`), "degraded. At most")
	require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('script:not([src])').length"))

	// The open page shows the progress without a script.
	form := url.Values{"token": {"t"}, "kind": {"listed"}, "command": {string(console.CommandInform)}}
	good := map[string]string{"Origin": strings.TrimSuffix(acting, "/ops/delta/"), "Cookie": "delta_console=t", "Sec-Fetch-Site": "same-origin"}
	status, headers := sendRequest(t, http.MethodPost, acting+"kind-command", form.Encode(), good)
	require.Equal(t, http.StatusSeeOther, status)
	live := browsertest.NewImpatient(t)
	live.Open(acting + headers.Get("Location"))
	live.Shows("Run of the informer of listed")
	live.Shows("Listing: 0 objects so far.")
	b.Open(kind)
	b.Shows("A run that was started here is running")
	for i := range 5 {
		controller.list(false, listed{fmt.Sprint("new", i)})
	}
	// Progress may skip numbers. Each part replaces the one before it.
	live.ShowsMatch(`Listing: [1-5] objects? so far\.`)
	controller.list(true)
	live.Shows("Done: 5 listed")
	live.Shows("To listed")
	require.EqualValues(t, 1, live.Execute("return document.querySelectorAll('.step:last-child progress[value=\"1\"]').length"))
	require.EqualValues(t, 0, live.Execute("return document.querySelectorAll('script:not([src])').length"))
	require.Eventually(t, func() bool {
		return log.hasLine(t, map[string]string{"msg": "delta: console: informer run ended", "command": "inform", "user": "ann", "kind": "listed"})
	}, patience, 50*time.Millisecond)
	if *screenshots {
		live.Picture(os.TempDir() + "/console-run.png")
	}
	b.Open(kind)
	b.Shows("request")

	b.Open(kind)
	pressButton(b, console.CommandPauseInformer)
	require.Eventually(t, func() bool {
		return strings.Contains(b.Text(), "Resume the informer of listed")
	}, patience, 100*time.Millisecond)
	require.Equal(t, kind, b.Execute("return location.href"))
	kinds, err := client.Kinds(t.Context())
	require.NoError(t, err)
	require.True(t, kinds[0].InformerPaused)
	pressButton(b, console.CommandResumeInformer)
	require.Eventually(t, func() bool {
		return strings.Contains(b.Text(), "Pause the informer of listed")
	}, patience, 100*time.Millisecond)

	// Redact applies to errors in groups.
	config.Redact = hideErrors
	redacting := serveConsole(t, client, config)
	b.Open(redacting + "kind?kind=listed")
	b.Shows("It is hidden.")
	require.NotContains(t, b.Text(), "is unknown")

	for path, status := range map[string]int{"kind?kind=nobody": 404, "run?id=nobody": 404, "nowhere": 404, "kind-command": 405} {
		got, _ := sendRequest(t, http.MethodGet, acting+path, "", nil)
		require.Equal(t, status, got, path)
	}
}
