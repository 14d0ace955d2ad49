package console_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
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

// The harness of the console's tests: newClientFor makes a client on a real Postgres and Temporal, serveConsole serves a console of it under a path, and
// internal/browsertest opens its pages in a real browser. Tests assert what a person reads and presses, and the addresses without a page by sendRequest.

var screenshots = flag.Bool("screenshots", false, "write screenshots into the folder of temporary files")

const (
	patience = 3 * time.Minute
	hostile  = `<script>window.ran=1</script><img src=x onerror=window.ran=1>"'&`
)

type thing struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

func (t thing) ID() string   { return t.Name }
func (t thing) Kind() string { return "thing" }

// things degrades all things until it is mended.
type thingController struct {
	delta.WorkerDefaults[thing]
	delta.InformerDefaults[thing]
	mended atomic.Bool
}

func (c *thingController) Work(context.Context, *delta.Resource[thing]) error {
	if !c.mended.Load() {
		return delta.ResourceDegrade(errors.New("refused: " + hostile))
	}
	return nil
}

func (c *thingController) Inform(context.Context, *delta.InformOptions) (<-chan thing, error) {
	return nil, errors.New("things have no listing")
}

// lines collects the lines of a logger.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// hasLine reports whether a line has all of the members.
func (l *logLines) hasLine(t *testing.T, members map[string]string) bool {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.text.Bytes()) {
		var logged map[string]any
		require.NoError(t, json.Unmarshal(line, &logged))
		matches := true
		for name, value := range members {
			matches = matches && logged[name] == value
		}
		if matches {
			return true
		}
	}
	return false
}

func newClient(t *testing.T, env *deltatest.Env, controller *thingController) *delta.Client {
	t.Helper()
	return newClientFor(t, env, controller)
}

func newClientFor(t *testing.T, env *deltatest.Env, controller delta.Controller[thing]) *delta.Client {
	t.Helper()
	config := &delta.Config{
		Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix,
		Logger: slog.New(slog.DiscardHandler), Controllers: delta.NewControllers(),
	}
	delta.AddController[thing](config.Controllers, controller)
	client, err := delta.NewClient(env.Pool, config)
	require.NoError(t, err)
	return client
}

// serveConsole serves a console under /ops/delta/ until the end of the test.
func serveConsole(t *testing.T, client *delta.Client, config console.Config) (address string) {
	t.Helper()
	config.ReadTimeout = cmp.Or(config.ReadTimeout, patience)
	handler, err := console.Handler(client, config)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/ops/delta/", http.StripPrefix("/ops/delta", handler))
	return serveHandler(t, mux).URL + "/ops/delta/"
}

// serveHandler serves until the end of the test. Requests end with the context of the test, because Close waits for them.
func serveHandler(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.BaseContext = func(net.Listener) context.Context { return t.Context() }
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// sendRequest makes a request with headers, and returns the status and headers of the response.
func sendRequest(t *testing.T, method, address, body string, headers map[string]string) (int, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range headers {
		request.Header.Set(name, value)
		if name == "Host" {
			request.Host = value
		}
	}
	response, err := http.DefaultTransport.RoundTrip(request) // a RoundTripper follows no redirect
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode, response.Header
}

func thingAddress(id string) string {
	return "resource?" + url.Values{"kind": {"thing"}, "id": {id}}.Encode()
}

// A person finds a degraded resource and gives each command. HTML in ids, objects and errors is shown as text.
func TestAPersonFindsAndCommandsResources(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	controller := &thingController{}
	client := newClient(t, env, controller)
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = client.Stop(ctx)
	})
	_, err := client.Inform(t.Context(), thing{Name: hostile, Email: hostile + "\u202e"}, nil)
	require.NoError(t, err)
	await := func(what string, is func(*deltatype.ResourceRow) bool) *deltatype.ResourceRow {
		t.Helper()
		var row *deltatype.ResourceRow
		require.Eventually(t, func() bool {
			var err error
			row, err = client.Get(t.Context(), "thing", hostile)
			return err == nil && is(row)
		}, patience, 50*time.Millisecond, what)
		return row
	}
	await("the resource degrades", func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateDegraded })

	log := &logLines{}
	config := console.Config{
		Authenticate: func(*http.Request) (string, bool) { return "ann", true },
		Authorize:    func(_ *http.Request, c console.Command) bool { return c.User == "ann" },
		Logger:       slog.New(slog.NewJSONHandler(log, nil)), TemporalUI: "http://localhost:8233/namespaces/default",
	}
	acting := serveConsole(t, client, config)
	config.Authorize = nil
	config.Redact = func(row *deltatype.ResourceRow) { row.EncodedObject, row.Errors = nil, nil }
	reading := serveConsole(t, client, config)

	requireHarmless := func() {
		t.Helper()
		require.Nil(t, b.Execute("return window.ran"))
		require.Equal(t, true, b.Execute(`const s = document.createElement('script'); s.textContent = 'window.ran = 1';
			document.head.append(s); return window.ran === undefined`), "the policy allows a script in the page")
		require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('main img, main script').length"))
	}
	b.Open(acting + "resources?state=degraded&kind=thing")
	b.Shows("thing/" + hostile)
	b.Shows("refused: " + hostile)
	requireHarmless()
	b.Open(acting + "resources?state=synced")
	b.Shows("No resource matches.")
	b.Open(acting + thingAddress(hostile))
	b.Shows("refused: " + hostile)
	require.Contains(t, b.Text(), `\u202e`)
	require.Contains(t, b.Execute(`return document.querySelector('dl a').href`), "http://localhost:8233/namespaces/default/workflows/")
	requireHarmless()
	if *screenshots {
		b.Picture(os.TempDir() + "/console.png")
	}
	b.Call(http.MethodPost, "/goog/cdp/execute", map[string]any{
		"cmd": "Emulation.setDeviceMetricsOverride", "params": map[string]any{"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true},
	}, nil)
	require.LessOrEqual(t, b.Execute("return document.documentElement.scrollWidth"), 390.0, "a phone has to scroll sideways")
	if *screenshots {
		b.Call(http.MethodPost, "/goog/cdp/execute", map[string]any{
			"cmd": "Emulation.setEmulatedMedia", "params": map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": "dark"}}},
		}, nil)
		b.Picture(os.TempDir() + "/console-narrow.png")
	}

	// A read-only user has no button, sees nothing that Redact hides, and is refused.
	b.Open(reading + thingAddress(hostile))
	b.Shows("The object is hidden.")
	require.NotContains(t, b.Text(), "refused: ")
	require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('button, form').length"))
	before := await("the row exists", func(*deltatype.ResourceRow) bool { return true })
	form := func(token, command string) string {
		return url.Values{"token": {token}, "kind": {"thing"}, "id": {hostile}, "command": {command}}.Encode()
	}
	origin := strings.TrimSuffix(acting, "/ops/delta/")
	good := map[string]string{"Origin": origin, "Cookie": "delta_console=t", "Sec-Fetch-Site": "same-origin"}
	for name, c := range map[string]struct {
		address, body string
		change        map[string]string
		status        int
	}{
		"read-only":         {reading, form("t", "delete"), map[string]string{"Origin": strings.TrimSuffix(reading, "/ops/delta/")}, 403},
		"no origin":         {acting, form("t", "delete"), map[string]string{"Origin": ""}, 403},
		"another origin":    {acting, form("t", "delete"), map[string]string{"Origin": "http://evil.example"}, 403},
		"an opaque origin":  {acting, form("t", "delete"), map[string]string{"Origin": "null"}, 403},
		"another site":      {acting, form("t", "delete"), map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"another token":     {acting, form("u", "delete"), nil, 403},
		"no token":          {acting, form("", "delete"), map[string]string{"Cookie": "delta_console="}, 403},
		"no such command":   {acting, form("t", "drop"), nil, 400},
		"not of this state": {acting, form("t", "revive"), nil, 409},
	} {
		headers := map[string]string{}
		for _, more := range []map[string]string{good, c.change} {
			for header, value := range more {
				headers[header] = value
			}
		}
		status, _ := sendRequest(t, http.MethodPost, c.address+"command", c.body, headers)
		require.Equal(t, c.status, status, name)
	}
	status, _ := sendRequest(t, http.MethodGet, acting+"command?"+form("t", "delete"), "", good)
	require.Equal(t, http.StatusMethodNotAllowed, status)
	after := await("the row exists", func(*deltatype.ResourceRow) bool { return true })
	require.Equal(t, deltatype.ResourceStateDegraded, after.State)
	require.Equal(t, before.Generation, after.Generation)
	require.True(t, log.hasLine(t, map[string]string{"msg": "delta: console: command refused", "command": "delete", "user": "ann", "object_id": hostile}))

	controller.mended.Store(true)
	synced := before.SyncCount
	for _, step := range []struct {
		command string
		is      func(*deltatype.ResourceRow) bool
	}{
		{"retry", func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateSynced }},
		{"invalidate", func(r *deltatype.ResourceRow) bool {
			return r.State == deltatype.ResourceStateSynced && r.SyncCount > synced
		}},
		{"delete", func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateDeleted }},
		{"revive", func(r *deltatype.ResourceRow) bool { return r.State == deltatype.ResourceStateSynced }},
	} {
		b.Open(acting + thingAddress(hostile))
		b.Shows("Status")
		b.Execute(`document.querySelector('button[value=` + step.command + `]').click()`)
		row := await(step.command, step.is)
		synced = row.SyncCount
		require.Eventually(t, func() bool {
			return log.hasLine(t, map[string]string{"msg": "delta: console: command done", "command": step.command, "user": "ann", "kind": "thing", "object_id": hostile})
		}, patience, 50*time.Millisecond)
		b.Shows("Status") // the browser was redirected to the resource
		require.Equal(t, acting+thingAddress(hostile), b.Execute("return location.href"))
	}
}

// Without authentication, the console answers callers of this machine only; otherwise, users with the right password or token.
func TestOnlyKnownCallersAreAnswered(t *testing.T) {
	t.Parallel()
	client := newClient(t, deltatest.New(t), &thingController{})
	open := serveConsole(t, client, console.Config{})
	for name, c := range map[string]struct {
		headers map[string]string
		status  int
	}{
		"this machine":        {nil, 200},
		"by name":             {map[string]string{"Host": "localhost:80"}, 200},
		"by another's name":   {map[string]string{"Host": "evil.example"}, 403},
		"through a proxy":     {map[string]string{"X-Forwarded-For": "127.0.0.1"}, 403},
		"by a name like ours": {map[string]string{"Host": "127.0.0.1.evil.example"}, 403},
	} {
		status, headers := sendRequest(t, http.MethodGet, open+"resources", "", c.headers)
		require.Equal(t, c.status, status, name)
		require.Contains(t, headers.Get("Content-Security-Policy"), "default-src 'none'")
		require.Contains(t, headers.Get("Content-Security-Policy"), "script-src 'self';")
		require.NotContains(t, headers.Get("Content-Security-Policy"), "unsafe")
	}
	handler, err := console.Handler(client, console.Config{})
	require.NoError(t, err)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/", nil))
	require.Equal(t, http.StatusForbidden, recorder.Code, "from 192.0.2.1")

	asking := serveConsole(t, client, console.Config{Passwords: map[string]string{"ann": "secret"}})
	for _, c := range []struct {
		user, password string
		status         int
	}{{"ann", "secret", 200}, {"ann", "", 401}, {"ann", "other", 401}, {"bob", "secret", 401}, {"bob", "", 401}, {"", "", 401}} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, asking, nil)
		require.NoError(t, err)
		request.SetBasicAuth(c.user, c.password)
		status, headers := sendRequest(t, http.MethodGet, asking+"resources", "", map[string]string{"Authorization": request.Header.Get("Authorization"), "X-Forwarded-For": "192.0.2.1"})
		require.Equal(t, c.status, status, "%s:%s", c.user, c.password)
		require.Equal(t, c.status == 401, headers.Get("WWW-Authenticate") != "")
	}
	const token = "a token of 16 bytes at least"
	shared := serveConsole(t, client, console.Config{Token: token})
	basic := func(user, password string) string {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		request.SetBasicAuth(user, password)
		return request.Header.Get("Authorization")
	}
	for _, c := range []struct {
		authorization string
		status        int
	}{
		{"Bearer " + token, 200},
		{"bearer " + token, 200},
		{"Bearer " + token + "s", 401},
		{"Bearer", 401},
		{token, 401},
		{"", 401},
		{basic("ann", token), 200},
		{basic("", token), 200},
		{basic(token, ""), 401},
		{basic("ann", "other"), 401},
	} {
		status, headers := sendRequest(t, http.MethodGet, shared+"resources", "", map[string]string{"Authorization": c.authorization, "X-Forwarded-For": "192.0.2.1"})
		require.Equal(t, c.status, status, c.authorization)
		require.Equal(t, c.status == 401, headers.Get("WWW-Authenticate") != "")
	}
	for _, wrong := range []console.Config{
		{Token: "fifteen letters"},
		{Token: token, Passwords: map[string]string{"ann": "secret"}},
		{Passwords: map[string]string{}},
		{Passwords: map[string]string{"ann": ""}},
		{Passwords: map[string]string{"": "secret"}},
		{TemporalUI: "javascript:alert(1)"},
		{ReadTimeout: -1},
		{Passwords: map[string]string{"ann": "secret"}, Authenticate: func(*http.Request) (string, bool) { return "", true }},
	} {
		_, err := console.Handler(client, wrong)
		require.Error(t, err)
	}
	_, err = console.Handler(nil, console.Config{})
	require.Error(t, err)
}
