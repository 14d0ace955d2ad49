package console_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/testproxy"
)

// While Temporal does not answer, a person sees the beginning of a page, and later the remaining part. The forms of such a page work.
func TestTheBeginningOfAPageDoesNotWaitForTemporal(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	proxy := testproxy.New(t, env.TemporalAddress)
	temporal, err := client.Dial(client.Options{HostPort: proxy.Address, Namespace: env.TemporalNamespace, ConnectionOptions: client.ConnectionOptions{GetSystemInfoTimeout: time.Minute}})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	config := &delta.Config{
		Temporal: temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix, Logger: slog.New(slog.DiscardHandler), Controllers: delta.NewControllers(),
	}
	delta.AddController[thing](config.Controllers, &thingController{})
	c, err := delta.NewClient(env.Pool, config)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), "INSERT INTO delta_controller (name, inform_interval, paused) VALUES ('thing', '1 hour', true)")
	require.NoError(t, err)
	for _, screen := range []string{"", "kind?kind=thing", "doctor"} {
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		address := serveConsole(t, c, console.Config{Authorize: func(*http.Request, console.Command) bool { return true }, Logger: slog.New(slog.DiscardHandler), ReadTimeout: patience})
		proxy.Silence()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+screen, nil)
		require.NoError(t, err)
		answer, err := browser.Do(request)
		require.NoError(t, err)
		body := bufio.NewReader(answer.Body)
		begun := ""
		for !strings.Contains(begun, `<main id="main"`) {
			line, err := body.ReadString('\n')
			require.NoError(t, err)
			begun += line
		}
		require.Contains(t, begun, "<!doctype html>")
		proxy.Accept()
		proxy.Cut()
		rest, err := io.ReadAll(body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.NotContains(t, string(rest), "<!doctype html>")
		require.Contains(t, string(rest), "<h1>", screen)
		require.Contains(t, string(rest), "</html>")

		if !strings.HasPrefix(screen, "kind") { // the other screens have no button here
			continue
		}
		token := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(string(rest))
		require.Len(t, token, 2, screen)
		form := url.Values{"token": {token[1]}, "command": {string(console.CommandPauseKind)}, "kind": {"thing"}}
		request, err = http.NewRequestWithContext(context.Background(), http.MethodPost, address+"kind-command", strings.NewReader(form.Encode()))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Origin", strings.TrimSuffix(address, "/ops/delta/"))
		answer, err = browser.Do(request)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusSeeOther, answer.StatusCode, screen)
	}
}
