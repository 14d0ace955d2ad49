package console_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
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

// stubborn degrades the thing named hostile, and fails the thing named tried until it is mended.
type stubbornController struct{ thingController }

func (c *stubbornController) Work(_ context.Context, r *delta.Resource[thing]) error {
	switch {
	case r.Object.Name == hostile:
		return delta.ResourceDegrade(errors.New("refused: " + hostile))
	case r.Object.Name == "tried" && !c.mended.Load():
		return errors.New("try again")
	}
	return nil
}

// newLoggingClient returns a client whose kind thing has a log of changes if log is set.
func newLoggingClient(t *testing.T, env *deltatest.Env, controller delta.Controller[thing], log bool) *delta.Client {
	t.Helper()
	config := &delta.Config{
		Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix,
		Logger: slog.New(slog.DiscardHandler), Controllers: delta.NewControllers(), Kinds: map[string]delta.ObjectSettings{"thing": {Log: log}},
	}
	delta.AddController[thing](config.Controllers, controller)
	client, err := delta.NewClient(env.Pool, config)
	require.NoError(t, err)
	return client
}

func startClient(t *testing.T, client *delta.Client) {
	t.Helper()
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = client.Stop(ctx)
	})
}

// informUntil informs things one after the other, and waits until each has the state.
func informUntil(t *testing.T, client *delta.Client, state deltatype.ResourceState, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := client.Inform(t.Context(), thing{Name: name}, nil)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			row, err := client.Get(t.Context(), "thing", name)
			return err == nil && row.State == state
		}, patience, 50*time.Millisecond, name)
	}
}

// appendEntries appends n entries to the log in one transaction, as outcomes do.
func appendEntries(t *testing.T, env *deltatest.Env, n int) {
	t.Helper()
	_, err := env.Pool.Exec(t.Context(), `SELECT delta_append_change('updated', delta_order_xid(NULL), i, 'thing', 'many-' || i, 'default', 1, 1, NULL, '{}', NULL, NULL)
		FROM generate_series(1, $1::int) i`, n)
	require.NoError(t, err)
}

// The tail shows changes of other clients live. A lost connection and a pause leave no gap. HTML is shown as text.
func TestTheTailShowsChangesOfOtherClients(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	working := newLoggingClient(t, env, &stubbornController{}, true)
	startClient(t, working)
	// The console's client is not started: it has no events.
	watching := newLoggingClient(t, env, &stubbornController{}, true)
	config := console.Config{Authenticate: func(*http.Request) (string, bool) { return "ann", true }, Logger: slog.New(slog.DiscardHandler)}
	handler, err := console.Handler(watching, config)
	require.NoError(t, err)
	var isDown atomic.Bool
	mux := http.NewServeMux()
	mux.Handle("/ops/delta/", http.StripPrefix("/ops/delta", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isDown.Load() {
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	})))
	server := serveHandler(t, mux)
	redacting := config
	redacting.Redact = hideErrors
	hiding := serveConsole(t, watching, redacting) + "tail"
	b := browsertest.New(t)
	address := server.URL + "/ops/delta/tail"
	shown := func() string {
		return b.Execute(`return [...document.querySelectorAll('#tail a')].map(a => a.innerText).join(' ')`).(string)
	}
	state := `document.querySelector('#tail-state').innerText`
	is := func(text string) {
		t.Helper()
		require.Eventually(t, func() bool { return b.Execute("return "+state) == text }, patience, 100*time.Millisecond)
	}

	informUntil(t, working, deltatype.ResourceStateSynced, "before")
	b.Open(address)
	b.Shows("thing/before")
	b.Shows("What this page shows")
	b.Execute("window.loadedOnce = true")
	is("Live")
	informUntil(t, working, deltatype.ResourceStateSynced, "live")
	b.Shows("thing/live")
	informUntil(t, working, deltatype.ResourceStateDegraded, hostile)
	b.Shows("thing/" + hostile)
	b.Shows("refused: " + hostile)
	require.Equal(t, true, b.Execute(`return document.querySelector('#tail a').href.startsWith('`+server.URL+`/ops/delta/resource?')`))

	isDown.Store(true)
	server.CloseClientConnections()
	is("Disconnected; reconnecting")
	informUntil(t, working, deltatype.ResourceStateSynced, "cut-1", "cut-2", "cut-3")
	require.NotContains(t, b.Text(), "thing/cut-")
	isDown.Store(false)
	b.Shows("thing/cut-3")
	require.Equal(t, "thing/cut-3 thing/cut-2 thing/cut-1 thing/"+hostile+" thing/live thing/before", shown())

	b.Execute("document.querySelector('#tail-pause').click()")
	is("Paused")
	informUntil(t, working, deltatype.ResourceStateSynced, "paused")
	require.NotContains(t, b.Text(), "thing/paused")
	b.Execute("document.querySelector('#tail-pause').click()")
	b.Shows("thing/paused")
	require.Equal(t, "thing/paused thing/cut-3 thing/cut-2 thing/cut-1 thing/"+hostile+" thing/live thing/before", shown())
	require.Equal(t, true, b.Execute("return window.loadedOnce"), "the page was reloaded")
	requireSoundTail := func() {
		t.Helper()
		require.Nil(t, b.Execute("return window.ran"))
		require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('main img, main script:not([src])').length"))
	}
	requireSoundTail()
	takePictures(b, "console-tail")
	require.LessOrEqual(t, b.Execute("return document.documentElement.scrollWidth"), 390.0, "a phone has to scroll sideways")

	// Filters choose the first entries of the page, and those that follow.
	for filter, want := range map[string]string{
		"event=failed":                   "thing/" + hostile,
		"error=REFUSED":                  "thing/" + hostile,
		"kind=thing&id=live":             "thing/live",
		"namespace=none":                 "",
		"kind=other":                     "",
		"namespace=default&event=failed": "thing/" + hostile,
	} {
		b.Open(address + "?" + filter)
		b.Shows("What this page shows")
		is("Live")
		if filter != "kind=thing&id=live" { // whose state is followed too
			require.Equal(t, want, shown(), filter)
		} else {
			require.Eventually(t, func() bool { return shown() == "thing/live thing/live" }, patience, 100*time.Millisecond)
		}
	}
	b.Open(address + "?event=failed")
	is("Live")
	informUntil(t, working, deltatype.ResourceStateSynced, "other")
	_, err = working.Retry(t.Context(), "thing", hostile)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return shown() == "thing/"+hostile+" thing/"+hostile }, patience, 100*time.Millisecond)
	requireSoundTail()

	// Hidden errors are neither shown nor found.
	b.Open(hiding)
	b.Shows("thing/" + hostile)
	require.NotContains(t, b.Text(), "refused: ")
	b.Open(hiding + "?error=refused")
	b.Shows("None of the latest 200 entries")
	status, _ := sendRequest(t, http.MethodGet, address+"?event=nothing", "", nil)
	require.Equal(t, http.StatusBadRequest, status)
	status, _ = sendRequest(t, http.MethodGet, server.URL+"/ops/delta/tail-events?event=nothing", "", nil)
	require.Equal(t, http.StatusBadRequest, status)
}

// For a kind without a log, the tail shows the attempts of this process, and all changes of state of the one named resource.
func TestATailWithoutALogShowsAttempts(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	controller := &stubbornController{}
	working := newLoggingClient(t, env, controller, false)
	startClient(t, working)
	watching := newLoggingClient(t, env, controller, false)
	ofWorking, ofWatching := serveConsole(t, working, console.Config{}), serveConsole(t, watching, console.Config{})
	own, other := browsertest.New(t), browsertest.New(t)
	own.Open(ofWorking + "tail?kind=thing")
	own.Shows("thing has no log")
	other.Open(ofWatching + "tail?kind=thing&id=tried")
	other.Shows("each change of its state by any client is shown")
	for _, b := range []*browsertest.Browser{own, other} {
		b.Shows("Live")
		require.Eventually(t, func() bool { return b.Execute("return document.querySelector('#tail-state').innerText") == "Live" }, patience, 100*time.Millisecond)
	}
	_, err := working.Inform(t.Context(), thing{Name: "tried"}, nil)
	require.NoError(t, err)
	own.Shows("retry")
	own.Shows("attempt 1 of ")
	own.Shows("try again")
	other.Shows("state: failed")
	controller.mended.Store(true)
	own.Shows("created")
	own.Shows("seen by this process")
	other.Shows("state: synced")
	if *screenshots {
		own.Picture(os.TempDir() + "/console-tail-own.png")
	}
}

// events reads Server-Sent Events.
type events struct {
	response *http.Response
	scanner  *bufio.Scanner
}

// openEvents opens a tail like a browser that reconnects after a position; an empty position is a first connection.
func openEvents(ctx context.Context, t *testing.T, address string, last delta.ChangePosition) *events {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	require.NoError(t, err)
	if last != "" {
		request.Header.Set("Last-Event-ID", string(last))
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return &events{response, bufio.NewScanner(response.Body)}
}

// next returns the id and data of the next event with data.
func (e *events) next(t *testing.T) (id, data string) {
	t.Helper()
	for e.scanner.Scan() {
		name, value, _ := strings.Cut(e.scanner.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "data":
			data += value
		case "":
			if data != "" {
				return id, data
			}
			id = ""
		}
	}
	t.Fatalf("the tail has ended: %v", e.scanner.Err())
	return "", ""
}

var dropped = regexp.MustCompile(`([\d,]+) more entries came at once`)

// A tail sends a bounded number of entries a second and counts the others. It outlives a server's WriteTimeout, and continues after any position.
func TestATailIsBounded(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const entries = 3000
	env := deltatest.New(t)
	client := newLoggingClient(t, env, &stubbornController{}, true)
	handler, err := console.Handler(client, console.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(handler)
	server.Config.WriteTimeout = 5 * time.Second // a tail has all of it until its first write
	server.Config.BaseContext = func(net.Listener) context.Context { return t.Context() }
	server.Start()
	t.Cleanup(server.Close)
	address := server.URL + "/tail-events"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	end, err := client.ChangesEnd(t.Context())
	require.NoError(t, err)
	appendEntries(t, env, entries)
	tail := openEvents(ctx, t, address+"?kind=thing&after="+url.QueryEscape(string(end)), "")
	require.Equal(t, http.StatusOK, tail.response.StatusCode)
	require.Equal(t, "text/event-stream; charset=utf-8", tail.response.Header.Get("Content-Type"))
	require.Equal(t, "no", tail.response.Header.Get("X-Accel-Buffering"))
	shown, counted, last := 0, 0, ""
	for shown+counted < entries {
		id, data := tail.next(t)
		last = id
		if found := dropped.FindStringSubmatch(data); found != nil {
			n, err := strconv.Atoi(strings.ReplaceAll(found[1], ",", ""))
			require.NoError(t, err)
			counted += n
			continue
		}
		require.Contains(t, data, "thing/many-")
		shown++
	}
	require.Equal(t, entries, shown+counted)
	require.Positive(t, counted)
	time.Sleep(2 * server.Config.WriteTimeout)
	appendEntries(t, env, 1)
	_, data := tail.next(t)
	require.Contains(t, data, "thing/many-1<")

	// From here on no tail may be late with its first write.
	server = httptest.NewUnstartedServer(handler)
	server.Config.BaseContext = func(net.Listener) context.Context { return t.Context() }
	server.Start()
	t.Cleanup(server.Close)
	address = server.URL + "/tail-events"
	// After the last position there is only the newest entry. A lost position is reported.
	again := openEvents(ctx, t, address, delta.ChangePosition(last))
	_, data = again.next(t)
	require.Contains(t, data, "thing/many-1<")
	for _, lost := range []delta.ChangePosition{"9.9.9", "nonsense"} {
		again = openEvents(ctx, t, address, lost)
		_, data = again.next(t)
		require.Contains(t, data, "Entries before this one are missing")
	}

	// At most 20 tails are open at once. A closed tail makes room for another one.
	var ends []context.CancelFunc
	refused := func() bool {
		one, end := context.WithCancel(ctx)
		tail := openEvents(one, t, address, "")
		if tail.response.StatusCode == http.StatusServiceUnavailable {
			end()
			return true
		}
		ends = append(ends, end)
		return false
	}
	for range 21 {
		if refused() {
			break
		}
	}
	require.True(t, refused())
	require.LessOrEqual(t, len(ends), 20)
	for _, end := range ends {
		end()
	}
	require.Eventually(t, func() bool {
		status, err := requestStatus(ctx, address)
		return err == nil && status == http.StatusOK
	}, patience, 100*time.Millisecond)
}

// requestStatus returns the status of a response, and closes it.
func requestStatus(ctx context.Context, address string) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// Without scripts, the page shows the latest matching entries, and a reload shows newer ones.
func TestTheTailNeedsNoScript(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	client := newLoggingClient(t, env, &stubbornController{}, true)
	address := serveConsole(t, client, console.Config{}) + "tail"
	read := func() string {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return string(text)
	}
	require.Contains(t, read(), "None of the latest 200 entries")
	appendEntries(t, env, 3)
	for i := range 3 {
		require.Eventually(t, func() bool { return strings.Contains(read(), fmt.Sprintf("thing/many-%d<", i+1)) }, patience, 100*time.Millisecond)
	}
	appendEntries(t, env, 300)
	require.Eventually(t, func() bool { return strings.Contains(read(), "thing/many-300<") }, patience, 100*time.Millisecond)
	require.Equal(t, 200, strings.Count(read(), "<li><span"))
	require.NotContains(t, read(), "thing/many-100<")
	require.Contains(t, read(), "thing/many-101<")
}
