package console_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/browsertest"
	"github.com/chariot-giving/delta/internal/soak"
)

// noScreens are addresses that are not pages.
var noScreens = []string{"/console.css", "/htmx.js", "/tail.js", "/tail-events", "/object"}

// readAxe returns the source of axe-core, which `make axe` fetches.
func readAxe(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("../../.bin/axe-core/axe.min.js")
	if os.IsNotExist(err) {
		t.Skip("axe-core is missing: make axe fetches it")
	}
	require.NoError(t, err)
	return string(script)
}

// requireAccessible checks the open page with axe-core by the rules of WCAG 2.2 A and AA, wide and light, and narrow and dark.
func requireAccessible(t *testing.T, b *browsertest.Browser, axe, screen string) {
	t.Helper()
	b.Execute(axe)
	for _, view := range views {
		view.emulate(b)
		found := b.Execute(`return axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then(result => JSON.stringify({
			passes: result.passes.length,
			violations: result.violations.map(v => v.id + ': ' + v.help + ' ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join(' | ')),
		}))`)
		var result struct {
			Passes     int
			Violations []string
		}
		require.NoError(t, json.Unmarshal([]byte(found.(string)), &result))
		require.Greater(t, result.Passes, 10, "%s: axe-core has checked almost nothing", screen)
		assert.Empty(t, result.Violations, "%s, %d pixels wide, %s:\n%s", screen, view.width, view.scheme, strings.Join(result.Violations, "\n"))
	}
	view{1200, "light"}.emulate(b)
}

// Each screen can be used by people with impaired sight.
func TestEachScreenIsAccessible(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	script := readAxe(t)
	b := browsertest.New(t)
	env := deltatest.New(t)
	controller := &listedController{ended: true}
	client := startListed(t, env, controller, delta.ObjectSettings{Log: true, InformInterval: -1})
	_, err := client.Sync(t.Context(), listed{"fine"}, nil)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), `INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, errors)
		SELECT 'listed', 'bad' || i, 'default', 'degraded', 10, '', '{"a": {"b": [1, 2]}}', ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', 'user ' || i || ' is unknown', 'trace', 'main.go:1')]
		FROM generate_series(1, 3) i`)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), fillFigures)
	require.NoError(t, err)
	require.NoError(t, client.PauseKind(t.Context(), "listed")) // so that the kind needs attention
	address := serveConsole(t, client, console.Config{Authorize: func(*http.Request, console.Command) bool { return true }, Logger: slog.New(slog.DiscardHandler)})

	seen := map[string]bool{}
	look := func(screen string) {
		t.Helper()
		seen["/"+strings.SplitN(screen, "?", 2)[0]] = true
		requireAccessible(t, b, script, "/"+screen)
	}
	for _, screen := range []string{
		"", "doctor", "kind?kind=listed&hours=24", "resources", "resources?kind=listed&state=degraded", "resource?kind=listed&id=fine", "resource?kind=listed&id=bad1",
		"resource?kind=listed&id=missing", "bulk?command=retry-all&kind=listed&state=degraded", "tail", "tail?kind=listed", "streams", "commands",
	} {
		b.Open(address + screen)
		b.Execute(`document.querySelectorAll('details').forEach(d => d.open = true)`)
		look(screen)
	}
	b.Open(address + "bulk?command=retry-all&kind=listed&state=degraded")
	pressButton(b, console.CommandRetryAll)
	b.Shows("3")
	require.Contains(t, b.Execute("return location.pathname"), "bulk-run")
	look("bulk-run")
	require.NoError(t, client.ResumeKind(t.Context(), "listed"))
	b.Open(address + "kind?kind=listed")
	pressButton(b, console.CommandInform)
	b.Shows("Done")
	require.Contains(t, b.Execute("return location.pathname"), "/run")
	look("run")

	b.Open(address + "commands?kind=listed")
	b.Shows("retry-all")
	look("commands")

	all, commands := console.Addresses()
	for _, one := range append(commands, noScreens...) {
		require.False(t, seen[one], one)
		seen[one] = true
	}
	for _, one := range all {
		require.True(t, seen[one], "%s is on no list of this test: %s", one, fmt.Sprint(all))
	}
}

// pressKey presses and releases a key of the keyboard.
func pressKey(b *browsertest.Browser, value string) {
	b.Call(http.MethodPost, "/actions", map[string]any{"actions": []any{map[string]any{
		"type": "key", "id": "keyboard", "actions": []any{map[string]string{"type": "keyDown", "value": value}, map[string]string{"type": "keyUp", "value": value}},
	}}}, nil)
}

const (
	tabKey   = "\ue004"
	enterKey = "\ue007"
)

// tabTo presses Tab until the element of a selector has the focus, and checks on the way that the focus is visible.
func tabTo(t *testing.T, b *browsertest.Browser, selector string) {
	t.Helper()
	for range 200 {
		pressKey(b, tabKey)
		require.NotEqual(t, "none", b.Execute(`return getComputedStyle(document.activeElement).outlineStyle`), "the focus is invisible on %v",
			b.Execute(`return document.activeElement.outerHTML`))
		if b.Execute(`return document.activeElement.matches(`+"`"+selector+"`"+`)`) == true {
			return
		}
	}
	require.Fail(t, "Tab does not reach the element", "%s on %v", selector, b.Text())
}

// A person without a mouse finds a degraded resource, retries it, and sees it become synced.
func TestADegradedResourceIsRetriedByKeyboard(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	controller := &listedController{ended: true}
	client := startListed(t, env, controller, delta.ObjectSettings{InformInterval: -1})
	_, err := client.Sync(t.Context(), listed{"bad"}, nil)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), `UPDATE delta_resource SET state = 'degraded', due_at = NULL, dispatch_at = NULL,
		errors = ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', 'it is unknown')]`)
	require.NoError(t, err)
	address := serveConsole(t, client, console.Config{Authorize: func(*http.Request, console.Command) bool { return true }, Logger: slog.New(slog.DiscardHandler)})
	b.Open(address)
	pressKey(b, tabKey)
	require.Equal(t, "To the content", b.Execute("return document.activeElement.textContent"))
	pressKey(b, enterKey)
	require.Equal(t, "main", b.Execute("return document.activeElement.id"))
	tabTo(t, b, `a[href*="state=degraded"]`)
	pressKey(b, enterKey)
	b.Shows("it is unknown")
	tabTo(t, b, `a[href*="resource?"][href*="id=bad"]`)
	pressKey(b, enterKey)
	b.Shows("degraded")
	tabTo(t, b, `button[value=retry]`)
	pressKey(b, enterKey)
	require.Eventually(t, func() bool {
		row, err := client.Get(t.Context(), "listed", "bad")
		return err == nil && row.SyncCount == 2
	}, patience, 100*time.Millisecond)
	b.Open(b.Execute("return location.href").(string))
	b.Shows("synced")
}
