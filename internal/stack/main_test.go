//go:build unix

package stack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for an event that must come. A long one costs nothing if the test passes.
const patience = 2 * time.Minute

const helperVariable = "DELTA_STACK_TEST_HELPER"

// helperOptions configures this test binary when it runs as another process.
type helperOptions struct {
	Dir            string
	NoDeathSignals bool
}

type helperAnswer struct {
	DatabaseURL, TemporalAddress, Error string
	Children                            []int
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(helperVariable); raw != "" {
		runHelper(raw)
		return
	}
	// Tests set their own environment.
	for _, name := range []string{databaseVariable, temporalVariable, "TEMPORAL_NAMESPACE"} {
		_ = os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

// runHelper runs a stack until its input is closed, or it is killed.
func runHelper(raw string) {
	var opts helperOptions
	if err := json.Unmarshal([]byte(raw), &opts); err != nil {
		panic(err)
	}
	setDeathSignals(!opts.NoDeathSignals)
	var answer helperAnswer
	s, err := Start(context.Background(), anyPorts(Options{Dir: opts.Dir}))
	if err != nil {
		answer.Error = err.Error()
	} else {
		answer.DatabaseURL, answer.TemporalAddress = s.DatabaseURL, s.TemporalAddress
		for _, c := range s.children {
			answer.Children = append(answer.Children, c.pid)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil || answer.Error != "" {
		return
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // wait until the input is closed
	if err := s.Stop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// startHelper starts the helper. change changes its command; nil for no change.
func startHelper(t *testing.T, opts helperOptions, change func(*exec.Cmd)) (*exec.Cmd, io.Closer, helperAnswer) {
	t.Helper()
	raw, err := json.Marshal(opts)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperVariable+"="+string(raw))
	cmd.Stderr = os.Stderr
	if change != nil {
		change(cmd)
	}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err, "the helper said nothing")
	var answer helperAnswer
	require.NoError(t, json.Unmarshal(line, &answer))
	return cmd, stdin, answer
}

func anyPorts(o Options) Options {
	o.PostgresPort, o.TemporalPort, o.UIPort = AnyPort, AnyPort, AnyPort
	return o
}

// start runs a stack for a test.
func start(t *testing.T, o Options) *Stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := Start(ctx, o)
	require.NoError(t, err)
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Stack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
}

// openDir returns a temporary directory that the unprivileged Postgres can enter. The parent of [testing.T]'s is closed to it.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "delta-stack-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	dir, err = filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// listProcesses returns the processes that work in dir or have it on their command line.
func listProcesses(t *testing.T, dir string) []string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var found []string
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd"))
		if line := commandLine(pid); strings.HasPrefix(cwd, dir) || strings.Contains(line, dir) {
			found = append(found, fmt.Sprintf("%d in %s: %s", pid, cwd, line))
		}
	}
	return found
}

func requireGone(t *testing.T, dir string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(listProcesses(t, dir)) == 0 }, patience, 20*time.Millisecond,
		"processes stayed: %v", listProcesses(t, dir))
}

func queryValue[T any](t *testing.T, databaseURL, sql string) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	var value T
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&value))
	return value
}

func execSQL(t *testing.T, databaseURL, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// heard collects the progress reports of a stack.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) add(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, line)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.lines, "\n")
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait()
}
