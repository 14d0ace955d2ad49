//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/testport"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"help":               {[]string{"--help"}, exitOK, "Read and command:"},
		"no command":         {nil, exitOK, "Read and command:"},
		"version":            {[]string{"--version"}, exitOK, "delta version "},
		"unknown command":    {[]string{"bogus"}, exitUsage, `unknown command "bogus"`},
		"unknown flag":       {[]string{"dev", "--bogus"}, exitUsage, "unknown flag: --bogus"},
		"argument":           {[]string{"dev", "now"}, exitUsage, `unknown command "now"`},
		"port":               {[]string{"dev", "--ui-port", "99999"}, exitUsage, "--ui-port 99999 is not a port"},
		"two ways":           {[]string{"dev", "--dir", "x", "--ephemeral"}, exitUsage, "[dir ephemeral]"},
		"half a command":     {[]string{"migrate"}, exitUsage, "up, down, status, version or messagedb"},
		"unknown subcommand": {[]string{"migrate", "sideways"}, exitUsage, `unknown command "sideways"`},
		"no database":        {[]string{"migrate", "up"}, exitUsage, "--database-url or set DELTA_DATABASE_URL"},
		"no URL":             {[]string{"migrate", "up", "--database-url", "postgres://:x:y"}, exitUsage, "--database-url: must be as postgres://"},
		"nobody there":       {[]string{"migrate", "up", "--database-url", "postgres://u:secret@127.0.0.1:1/x"}, exitUnreachable, "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runBinary(t, nil, test.args...)
			require.Equal(t, test.code, r.code, r.stderr)
			require.Contains(t, r.stdout+r.stderr, test.says)
			require.NotContains(t, r.stdout+r.stderr, "secret")
			if test.code != exitOK {
				require.Empty(t, r.stdout, "an error belongs on standard error")
			}
		})
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	schema := env.Schema + "_cmd"
	target, err := url.Parse(env.DatabaseURL)
	require.NoError(t, err)
	query := target.Query()
	query.Set("search_path", schema)
	target.RawQuery = query.Encode()
	flag := "--database-url=" + target.String()

	// The command creates nothing unasked.
	r := runBinary(t, nil, "migrate", "up", flag)
	require.Equal(t, exitFailure, r.code)
	require.Contains(t, r.stderr, schema)
	require.Contains(t, r.stderr, "CREATE SCHEMA")

	_, err = env.Pool.Exec(t.Context(), "create schema "+schema)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := env.Pool.Exec(context.Background(), "drop schema "+schema+" cascade")
		require.NoError(t, err)
	})
	tables := func() (n int) {
		require.NoError(t, env.Pool.QueryRow(t.Context(),
			`select count(*) from pg_tables where schemaname = $1 and tablename = 'delta_resource'`, schema).Scan(&n))
		return n
	}

	r = runBinary(t, nil, "migrate", "status", flag)
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Contains(t, r.stdout, "pending")
	require.Zero(t, tables())
	require.Equal(t, "0\n", runBinary(t, nil, "migrate", "version", flag).stdout)

	r = runBinary(t, []string{"DELTA_DATABASE_URL=" + target.String()}, "migrate", "up") // by the environment
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Contains(t, r.stdout, "schema "+schema+" went from version 0 to ")
	require.Equal(t, 1, tables())
	top := strings.TrimSpace(runBinary(t, nil, "migrate", "version", flag).stdout)
	require.Regexp(t, `^\d{14}$`, top)
	require.Contains(t, runBinary(t, nil, "migrate", "up", flag).stdout, "nothing to apply")
	r = runBinary(t, nil, "migrate", "status", flag)
	require.Contains(t, r.stdout, top)
	require.NotContains(t, r.stdout, "pending")

	for range 100 {
		r = runBinary(t, nil, "migrate", "down", flag)
		require.Equal(t, exitOK, r.code, r.stderr)
		if strings.Contains(r.stdout, "nothing to revert") {
			break
		}
	}
	require.Zero(t, tables())
	require.Equal(t, "0\n", runBinary(t, nil, "migrate", "version", flag).stdout)
}

// devServer is a running `delta dev`.
type devServer struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	output strings.Builder
	ready  chan struct{}
	ended  chan struct{}
}

func startDev(t *testing.T, env []string, args ...string) *devServer {
	t.Helper()
	cmd := exec.Command(binary, append([]string{
		"dev", "--postgres-port", freePort(t), "--temporal-port", freePort(t), "--ui-port", freePort(t), "--console-port", "0",
	}, args...)...)
	cmd.Env = append(os.Environ(), "DELTA_DATABASE_URL=", "TEMPORAL_ADDRESS=")
	cmd.Env = append(cmd.Env, env...)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = w, w
	s := &devServer{cmd: cmd, ready: make(chan struct{}), ended: make(chan struct{})}
	require.NoError(t, cmd.Start())
	require.NoError(t, w.Close())
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-s.ended })
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			s.mu.Lock()
			s.output.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if strings.HasPrefix(lines.Text(), "Ctrl-C stops") {
				close(s.ready)
			}
		}
		_ = r.Close()
		_ = cmd.Wait()
		close(s.ended)
	}()
	return s
}

func (s *devServer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.String()
}

func (s *devServer) wait(t *testing.T, what chan struct{}) {
	t.Helper()
	select {
	case <-what:
	case <-time.After(testTimeout):
		t.Fatalf("timeout; it said:\n%s", s)
	}
}

// printedValue finds the text that the command printed after a label.
func (s *devServer) printedValue(t *testing.T, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(s.String())
	require.NotNil(t, m, "no %s in:\n%s", pattern, s)
	return m[1]
}

func freePort(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(testport.Reserve(t))
}

// newOpenDir returns a directory that an unprivileged Postgres can enter.
func newOpenDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "delta-cmd-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// requireNoProcesses waits until no process has dir as its working directory.
func requireNoProcesses(t *testing.T, dir string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		cwds, err := filepath.Glob("/proc/[0-9]*/cwd")
		require.NoError(c, err)
		for _, link := range cwds {
			cwd, err := os.Readlink(link)
			assert.False(c, err == nil && strings.HasPrefix(cwd, dir), "%s is %s", link, cwd)
		}
	}, testTimeout, 20*time.Millisecond)
}

func TestDev(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	tmp := newOpenDir(t)
	s := startDev(t, []string{"TMPDIR=" + tmp}, "--ephemeral")
	s.wait(t, s.ready)
	databaseURL := s.printedValue(t, `export DELTA_DATABASE_URL='(.*)'`)
	conn, err := pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	var resources int
	require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from delta_resource`).Scan(&resources), "not migrated")
	require.NoError(t, conn.Close(t.Context()))
	for _, pattern := range []string{`export TEMPORAL_ADDRESS='(.*)'`, `Temporal UI +http://(.*)`} {
		c, err := net.Dial("tcp", s.printedValue(t, pattern))
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.printedValue(t, `Console +(http://\S+)`)+"doctor", nil)
	require.NoError(t, err)
	shown, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(shown.Body)
	require.NoError(t, err)
	require.NoError(t, shown.Body.Close())
	require.Equal(t, http.StatusOK, shown.StatusCode)
	require.Contains(t, string(body), "start a client with controllers", "of an installation in which nothing was started yet")

	// The environment of another command can name the servers of this one.
	second := startDev(t, []string{"DELTA_DATABASE_URL=" + databaseURL, "TEMPORAL_ADDRESS=" + s.printedValue(t, `export TEMPORAL_ADDRESS='(.*)'`)})
	second.wait(t, second.ready)
	require.NoError(t, second.cmd.Process.Signal(syscall.SIGTERM))
	second.wait(t, second.ended)
	require.Equal(t, exitOK, second.cmd.ProcessState.ExitCode(), second)

	require.NoError(t, s.cmd.Process.Signal(os.Interrupt))
	s.wait(t, s.ended)
	require.Equal(t, exitOK, s.cmd.ProcessState.ExitCode(), s)
	require.Contains(t, s.String(), "Stopped.")
	requireNoProcesses(t, tmp)
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestDevKeepsItsDirectory(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	dir := filepath.Join(newOpenDir(t), "kept")
	s := startDev(t, nil, "--dir", dir)
	s.wait(t, s.ready)

	second := startDev(t, nil, "--dir", dir)
	second.wait(t, second.ended)
	require.Equal(t, exitFailure, second.cmd.ProcessState.ExitCode())
	require.Contains(t, second.String(), fmt.Sprintf("in use by process %d", s.cmd.Process.Pid))

	// If a server dies, the command stops the other one and ends with the reason.
	b, err := os.ReadFile(filepath.Join(dir, "postgres.pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(string(b)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	s.wait(t, s.ended)
	require.Equal(t, exitFailure, s.cmd.ProcessState.ExitCode())
	require.Contains(t, s.String(), "Postgres ended by itself: signal: killed")
	requireNoProcesses(t, dir)

	// A second Ctrl-C does not wait.
	s = startDev(t, nil, "--dir", dir)
	s.wait(t, s.ready)
	require.NoError(t, s.cmd.Process.Signal(os.Interrupt))
	if err := s.cmd.Process.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) { // the process may have ended already
		require.NoError(t, err)
	}
	s.wait(t, s.ended)
	require.Equal(t, exitOK, s.cmd.ProcessState.ExitCode(), s)
	requireNoProcesses(t, dir)
}

func TestDevInterruptedWhileItStarts(t *testing.T) {
	t.Parallel()
	tmp := newOpenDir(t)
	s := startDev(t, []string{"TMPDIR=" + tmp}, "--ephemeral")
	require.Eventually(t, func() bool { return regexp.MustCompile(`Temporal \S+ from`).MatchString(s.String()) }, testTimeout, time.Millisecond)
	require.NoError(t, s.cmd.Process.Signal(os.Interrupt))
	s.wait(t, s.ended)
	require.Equal(t, exitOK, s.cmd.ProcessState.ExitCode(), s)
	requireNoProcesses(t, tmp)
}

func TestQuote(t *testing.T) {
	t.Parallel()
	require.Equal(t, `'a'\''b'`, quoteShell("a'b"))
}
