package console_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// commandPages are the addresses that take the form of each command. A missing command fails TestEachCommandIsRefusedWithoutAuthorization.
var commandPages = map[console.CommandName]string{
	console.CommandRetry: "command", console.CommandInvalidate: "command", console.CommandDelete: "command", console.CommandRevive: "command",
	console.CommandPauseKind: "kind-command", console.CommandResumeKind: "kind-command",
	console.CommandPauseInformer: "kind-command", console.CommandResumeInformer: "kind-command",
	console.CommandPauseShard: "kind-command", console.CommandResumeShard: "kind-command",
	console.CommandResumeNamespace: "kind-command", console.CommandInform: "kind-command", console.CommandInformAll: "kind-command",
	console.CommandApprove: "kind-command", console.CommandDismiss: "kind-command",
	console.CommandRetryAll: "bulk-start", console.CommandInvalidateAll: "bulk-start",
	console.CommandDeleteAll: "bulk-start", console.CommandReviveAll: "bulk-start",
}

// declaredCommands parses the constants of the package, because Go cannot list them.
func declaredCommands(t *testing.T) (names []console.CommandName) {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	require.NoError(t, err)
	declaration := regexp.MustCompile(`(?m)^\tCommand\w+\s+CommandName = "([^"]+)"`)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, found := range declaration.FindAllSubmatch(text, -1) {
			names = append(names, console.CommandName(found[1]))
		}
	}
	return names
}

// Without Authorize, and if Authorize returns false, each command is refused, logged with its user, and changes nothing.
func TestEachCommandIsRefusedWithoutAuthorization(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	client := newClient(t, env, &thingController{}) // not started: only a command could change the row
	_, err := client.Inform(t.Context(), thing{Name: "one"}, nil)
	require.NoError(t, err)
	before, err := client.Get(t.Context(), "thing", "one")
	require.NoError(t, err)

	declared := declaredCommands(t)
	require.Len(t, commandPages, len(declared))
	var mu sync.Mutex
	var asked []console.CommandName
	refuse := func(_ *http.Request, c console.Command) bool {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, c.Name)
		return false
	}
	for name, authorize := range map[string]func(*http.Request, console.Command) bool{"read-only": nil, "Authorize returns false": refuse} {
		log := &logLines{}
		address := serveConsole(t, client, console.Config{
			Authenticate: func(*http.Request) (string, bool) { return "ann", true }, Authorize: authorize,
			Logger: slog.New(slog.NewJSONHandler(log, nil)),
		})
		headers := map[string]string{"Origin": strings.TrimSuffix(address, "/ops/delta/"), "Cookie": "delta_console=t", "Sec-Fetch-Site": "same-origin"}
		for _, command := range declared {
			require.Contains(t, commandPages, command)
			form := url.Values{"token": {"t"}, "command": {string(command)}, "kind": {"thing"}, "id": {"one"}, "missing": {"1"}}
			status, _ := sendRequest(t, http.MethodPost, address+commandPages[command], form.Encode(), headers)
			require.Equal(t, http.StatusForbidden, status, "%s: %s", name, command)
			require.True(t, log.hasLine(t, map[string]string{
				"msg": "delta: console: command refused", "command": string(command), "user": "ann", "reason": "You may not give this command.",
			}), "%s: %s", name, command)
		}
	}
	slices.Sort(asked)
	slices.Sort(declared)
	require.Equal(t, declared, asked)

	after, err := client.Get(t.Context(), "thing", "one")
	require.NoError(t, err)
	require.Equal(t, before.State, after.State)
	require.Equal(t, before.Generation, after.Generation)
	kinds, err := client.Kinds(t.Context())
	require.NoError(t, err)
	for _, kind := range kinds {
		require.False(t, kind.Paused, kind.Kind)
	}
}
