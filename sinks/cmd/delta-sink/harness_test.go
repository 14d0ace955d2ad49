//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// patience is how long a test waits for an event that must happen. It costs no time if the event happens.
const patience = 3 * time.Minute

func awaitTrue(t *testing.T, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 20*time.Millisecond)
}

// binary is the path of this program, built by TestMain.
var binary string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "delta-sink-test-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(folder, "delta-sink")
	build := []string{"build", "-o", binary}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		build = append(build, "-race") // like these tests
	}
	if out, err := exec.Command("go", append(build, ".")...).CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// process is a running delta-sink.
type process struct {
	*exec.Cmd
	t   *testing.T
	url string // of its metrics
	log chan []byte
}

// startProcess runs a file, and waits until the process serves its metrics.
func startProcess(t *testing.T, file string, env ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(binary, "run", "-f", file, "--metrics", "127.0.0.1:0", "--log-format", "json"), t: t, log: make(chan []byte, 1)}
	p.Env = append(os.Environ(), env...)
	stderr, err := p.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill() })
	lines := bufio.NewScanner(stderr)
	for p.url == "" && lines.Scan() {
		var line struct{ Msg, URL string }
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line), lines.Text())
		p.url = line.URL
	}
	require.NotEmpty(t, p.url)
	go func() {
		var rest bytes.Buffer
		for lines.Scan() {
			rest.WriteString(lines.Text() + "\n")
		}
		p.log <- rest.Bytes()
	}()
	return p
}

// endWith sends a signal, and returns the exit code and the log since the start.
func (p *process) endWith(signal os.Signal) (code int, log string) {
	p.t.Helper()
	require.NoError(p.t, p.Process.Signal(signal))
	log = string(<-p.log)
	_ = p.Wait()
	return p.ProcessState.ExitCode(), log
}

func (p *process) get(path string) (status int, body string) {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, nil)
	require.NoError(p.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(p.t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(p.t, err)
	return response.StatusCode, string(text)
}

// history checks that each version of a key is first received after the previous version. Earlier versions may be received again.
type history struct {
	mu         sync.Mutex
	last       map[string]int
	all, again int
	wrong      []string
}

func (h *history) add(key string, version int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		h.last = map[string]int{}
	}
	h.all++
	switch last := h.last[key]; {
	case version == last+1:
		h.last[key] = version
	case version <= last:
		h.again++
	default:
		h.wrong = append(h.wrong, fmt.Sprintf("%s: %d behind %d", key, version, last))
	}
}

func (h *history) count() int { h.mu.Lock(); defer h.mu.Unlock(); return h.all }

// hasBegun reports whether all keys were received, and one of them beyond a version.
func (h *history) hasBegun(keys, version int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, last := range h.last {
		if last > version && len(h.last) == keys {
			return true
		}
	}
	return false
}

// isComplete reports whether each of the keys has reached its last version.
func (h *history) isComplete(keys, last int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for _, version := range h.last {
		if version == last {
			done++
		}
	}
	return done == keys
}

// newStream creates a database with a table, a publication and a slot, and returns its URL.
func newStream(t *testing.T) (d *cdctest.Database, target string) {
	t.Helper()
	d = cdctest.New(t)
	d.Exec(`create table item (id int primary key, n int)`)
	require.NoError(t, cdc.CreatePublication(t.Context(), d.Pool, cdc.Publication{Name: "items", AllTables: true}))
	_, err := cdc.CreateSlot(t.Context(), d.Pool, d.Name, cdc.SlotOptions{})
	require.NoError(t, err)
	return d, urlOf(d)
}

func urlOf(d *cdctest.Database) string {
	c := d.Config()
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: fmt.Sprintf("%s:%d", c.Host, c.Port), Path: d.Name}
	return u.String()
}
