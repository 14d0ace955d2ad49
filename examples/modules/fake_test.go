package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/examples/modules/proxy"
	"github.com/chariot-giving/delta/internal/testport"
)

// patience is how long a test waits for an event that must come. It measures nothing.
const patience = 2 * time.Minute

// fakeProxy is a module proxy that can be stopped, and changed while it runs. A module's versions are a month apart.
type fakeProxy struct {
	t        *testing.T
	address  string
	server   *httptest.Server
	mu       sync.Mutex
	versions map[string][]string
	codes    map[string]int // status codes to answer with instead
	requests map[string]int
}

func newFakeProxy(t *testing.T) *fakeProxy {
	t.Helper()
	p := &fakeProxy{t: t, versions: map[string][]string{}, codes: map[string]int{}, requests: map[string]int{}}
	p.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(testport.Reserve(t)))
	p.startServing()
	t.Cleanup(func() { p.stopServing() })
	return p
}

func (p *fakeProxy) url() string { return "http://" + p.address }

// startServing starts the proxy. The port is reserved, so that no other process takes it while the proxy is down.
func (p *fakeProxy) startServing() {
	p.t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(p.t.Context(), "tcp", p.address)
	require.NoError(p.t, err)
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.answer))
	p.server.Listener = listener
	p.server.Start()
}

func (p *fakeProxy) stopServing() { p.server.Close() }

// setVersions sets the versions of a module, oldest first.
func (p *fakeProxy) setVersions(path string, versions ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.versions[path] = versions
}

// setStatus sets the status code of all responses about a module; 0 resets it.
func (p *fakeProxy) setStatus(path string, code int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes[path] = code
}

func (p *fakeProxy) countRequests(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[path]
}

func (p *fakeProxy) answer(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/@")
	p.requests[path]++
	versions := p.versions[path]
	info := func(i int) {
		released := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC).AddDate(0, i, 0)
		_, _ = fmt.Fprintf(w, `{"Version":%q,"Time":%q}`, versions[i], released.Format(time.RFC3339))
	}
	switch code := p.codes[path]; {
	case code != 0:
		http.Error(w, "as told", code)
	case len(versions) == 0:
		http.Error(w, "not found", http.StatusNotFound)
	case what == "latest":
		info(len(versions) - 1)
	case what == "v/list":
		_, _ = w.Write([]byte(strings.Join(versions, "\n")))
	default:
		for i, v := range versions {
			if what == "v/"+v+".info" {
				info(i)
				return
			}
		}
		http.Error(w, "not found", http.StatusNotFound)
	}
}

// world is a keeper on real servers, its go.mod, and a proxy.
type world struct {
	*keeper
	t     *testing.T
	env   *deltatest.Env
	proxy *fakeProxy
}

// newWorld starts a keeper of a go.mod, after the proxy is set up.
func newWorld(t *testing.T, requires string, every time.Duration, setUp func(*fakeProxy)) *world {
	t.Helper()
	w := &world{t: t, env: deltatest.New(t), proxy: newFakeProxy(t)}
	setUp(w.proxy)
	file := filepath.Join(t.TempDir(), "go.mod")
	writeGoMod(t, file, requires)
	asks, err := proxy.NewClient(proxy.Settings{GOPROXY: w.proxy.url() + ",direct", GONOPROXY: "corp.example"}, 1000)
	require.NoError(t, err)
	t.Cleanup(asks.Close)
	w.keeper, err = newKeeper(t.Context(), keeperConfig{
		pool: w.env.Pool, temporal: w.env.Temporal, prefix: w.env.Prefix, logger: slog.New(slog.DiscardHandler),
		project: project{file}, proxy: asks, every: every, rate: 1000, listEvery: time.Second,
	})
	require.NoError(t, err)
	require.NoError(t, w.client.Start(t.Context()))
	t.Cleanup(func() { _ = w.client.Stop(context.Background()) })
	return w
}

func writeGoMod(t *testing.T, file, requires string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file+".new", []byte("module example.com/app\n"+requires), 0o600))
	require.NoError(t, os.Rename(file+".new", file))
}

// waitForSnapshot waits for a snapshot that fulfils the condition.
func (w *world) waitForSnapshot(is func(snapshot) bool) snapshot {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s, err := w.readSnapshot(w.t.Context())
		require.NoError(w.t, err)
		if is(s) {
			return s
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the modules did not become as expected; they are %+v", s.rows)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waitForModule waits until a module fulfils the condition.
func (w *world) waitForModule(path string, is func(row) bool) row {
	w.t.Helper()
	var found row
	w.waitForSnapshot(func(s snapshot) bool {
		for _, r := range s.rows {
			if r.Path == path && is(r) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

func isNow(o outcome) func(row) bool { return func(r row) bool { return r.outcome() == o } }
