package console_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
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

// gated degrades some things until it is mended. Then their Work waits for the gate.
type gatedController struct {
	thingController
	degrades map[string]bool
	gate     chan struct{}
}

func (c *gatedController) Work(ctx context.Context, r *delta.Resource[thing]) error {
	if !c.degrades[r.Object.Name] {
		return nil
	}
	if !c.mended.Load() {
		return delta.ResourceDegrade(errors.New("refused: " + hostile))
	}
	select {
	case <-c.gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Three of a thousand resources are degraded. A person finds and retries them, and sees them become synced without reloading the page.
func TestARetryOfAllMatchesIsSeenToSync(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const resources = 1000
	b := browsertest.New(t)
	env := deltatest.New(t)
	bad := []string{hostile, "bad-1", "bad-2"}
	controller := &gatedController{degrades: map[string]bool{}, gate: make(chan struct{})}
	for _, name := range bad {
		controller.degrades[name] = true
	}
	open := sync.OnceFunc(func() { close(controller.gate) })
	t.Cleanup(open)
	client := newClientFor(t, env, controller)
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = client.Stop(ctx)
	})
	objects := []delta.Object{}
	for i := range resources - len(bad) {
		objects = append(objects, thing{Name: fmt.Sprintf("good-%03d", i)})
	}
	for _, name := range bad {
		objects = append(objects, thing{Name: name})
	}
	_, err := client.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		counts, err := client.Count(t.Context(), delta.Filter{})
		settled := map[deltatype.ResourceState]int64{}
		for _, c := range counts {
			settled[c.State] += c.Count
		}
		return err == nil && settled[deltatype.ResourceStateSynced] == resources-3 && settled[deltatype.ResourceStateDegraded] == 3
	}, patience, 200*time.Millisecond)

	log := &logLines{}
	config := console.Config{
		Authenticate: func(*http.Request) (string, bool) { return "ann", true },
		Authorize:    func(_ *http.Request, c console.Command) bool { return c.Filter != nil && c.Kind == "thing" },
		Logger:       slog.New(slog.NewJSONHandler(log, nil)),
	}
	acting := serveConsole(t, client, config)
	config.Authorize = nil
	reading := serveConsole(t, client, config)
	b.Open(acting + "resources?kind=thing&state=degraded")
	b.Shows("thing/" + hostile)
	require.EqualValues(t, 3, b.Execute("return document.querySelectorAll('.resources li').length"))
	require.Equal(t, "retry-all…,delete-all…", b.Execute("return [...document.querySelectorAll('.button')].map(a => a.innerText).join()"))
	b.Execute("document.querySelector('.button').click()")
	b.Shows("3 resources")
	controller.mended.Store(true)
	if *screenshots {
		b.Picture(os.TempDir() + "/console-bulk.png")
	}
	b.Execute("document.querySelector('button[value=retry-all]').click()")
	b.Shows("Done: 3")
	b.Shows("Current state of the first 3")
	b.Execute("window.loadedOnce = true")
	states := "return [...document.querySelectorAll('.resources .state')].map(s => s.innerText).join()"
	require.NotContains(t, b.Execute(states), "synced", "nothing can be synced before the gate opens")
	open()
	require.Eventually(t, func() bool { return b.Execute(states) == "synced,synced,synced" }, patience, 100*time.Millisecond)
	require.Equal(t, true, b.Execute("return window.loadedOnce"), "the page was reloaded")
	require.Nil(t, b.Execute("return window.ran"))
	require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('main img, main script').length"))
	require.True(t, log.hasLine(t, map[string]string{"msg": "delta: console: command begins", "command": "retry-all", "user": "ann", "filter": "kind=thing&state=degraded"}))
	require.Eventually(t, func() bool {
		return log.hasLine(t, map[string]string{"msg": "delta: console: command done", "command": "retry-all", "user": "ann"})
	}, patience, 50*time.Millisecond)
	takePictures(b, "console-bulk-run")
	b.Open(acting + "resources?kind=thing&state=degraded")
	b.Shows("No resource matches.")
	b.Open(acting + "resources?kind=thing")
	require.LessOrEqual(t, b.Execute("return document.documentElement.scrollWidth"), 390.0, "a phone has to scroll sideways")
	takePictures(b, "console-list")

	// A read-only user sees no command, and is refused.
	b.Open(reading + "resources?kind=thing")
	b.Shows("thing/good-000")
	require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('.button').length"))
	form := func(change ...string) string {
		fields := url.Values{"token": {"t"}, "kind": {"thing"}, "command": {"delete-all"}, "id": {"nobody"}}
		for i := 0; i < len(change); i += 2 {
			fields.Set(change[i], change[i+1])
		}
		return fields.Encode()
	}
	for name, c := range map[string]struct {
		address, path, body, origin string
		status                      int
	}{
		"read-only":             {reading, "bulk-start", form(), "", 403},
		"another origin":        {acting, "bulk-start", form(), "http://evil.example", 403},
		"another token":         {acting, "bulk-start", form("token", "u"), "", 403},
		"another kind":          {acting, "bulk-start", form("kind", "other"), "", 403},
		"no such command":       {acting, "bulk-start", form("command", "drop"), "", 400},
		"a command for one":     {acting, "bulk-start", form("command", "delete"), "", 400},
		"a label without value": {acting, "bulk-start", form("label", "x"), "", 400},
		"stop of nothing":       {acting, "bulk-stop", form(), "", 404},
	} {
		origin := c.origin
		if origin == "" {
			origin = strings.TrimSuffix(c.address, "/ops/delta/")
		}
		status, _ := sendRequest(t, http.MethodPost, c.address+c.path, c.body, map[string]string{"Origin": origin, "Cookie": "delta_console=t", "Sec-Fetch-Site": "same-origin"})
		require.Equal(t, c.status, status, name)
	}
	status, _ := sendRequest(t, http.MethodGet, reading+"bulk?command=delete-all&kind=thing", "", nil)
	require.Equal(t, http.StatusForbidden, status)
	status, _ = sendRequest(t, http.MethodGet, acting+"bulk-start?"+form(), "", nil)
	require.Equal(t, http.StatusMethodNotAllowed, status)
	counts, err := client.Count(t.Context(), delta.Filter{})
	require.NoError(t, err)
	require.Equal(t, []delta.Count{{Kind: "thing", State: deltatype.ResourceStateSynced, Count: resources}}, counts)
}

// A stopped bulk command ends between pages of rows, and shows how many resources it was given to: exactly those have changed.
func TestABulkCommandStopsBetweenPages(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const resources, page = 450, 200
	b := browsertest.New(t)
	env := deltatest.New(t)
	client := newClient(t, env, &thingController{}) // not started: only the command changes rows
	objects := []delta.Object{}
	for i := range resources {
		objects = append(objects, thing{Name: fmt.Sprintf("thing-%03d", i)})
	}
	_, err := client.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	// A lock on a row of the second page holds the command there until it is stopped.
	tx, err := env.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // already rolled back, unless the test has failed
	_, err = tx.Exec(t.Context(), "SELECT FROM delta_resource WHERE object_id = 'thing-300' FOR UPDATE")
	require.NoError(t, err)

	address := serveConsole(t, client, console.Config{Authorize: func(*http.Request, console.Command) bool { return true }, Logger: slog.New(slog.DiscardHandler)})
	b.Open(address + "bulk?command=delete-all&kind=thing")
	b.Shows("450 resources")
	b.Execute("document.querySelector('button[value=delete-all]').click()")
	b.Shows("Running: 200 so far")
	b.Execute("document.querySelector('#stop').click()")
	b.Shows("Stopping: 200 so far")
	require.NoError(t, tx.Rollback(t.Context()))
	b.Shows("Stopped after 400")
	require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('#stop').length"))
	counts, err := client.Count(t.Context(), delta.Filter{})
	require.NoError(t, err)
	require.ElementsMatch(t, []delta.Count{
		{Kind: "thing", State: deltatype.ResourceStateDeleted, Count: 2 * page}, {Kind: "thing", State: deltatype.ResourceStateScheduled, Count: resources - 2*page},
	}, counts)
}

// takePictures takes screenshots of a page on a desktop, and on a phone in dark mode.
func takePictures(b *browsertest.Browser, name string) {
	if *screenshots {
		b.Picture(os.TempDir() + "/" + name + ".png")
	}
	view{390, "dark"}.emulate(b)
	if *screenshots {
		b.Picture(os.TempDir() + "/" + name + "-narrow.png")
	}
}
