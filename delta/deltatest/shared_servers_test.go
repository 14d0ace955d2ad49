//go:build unix

package deltatest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/chariot-giving/delta/internal/soak"
)

const helperVariable = "DELTATEST_HELPER"

// TestHelper runs in processes that the tests below start. For each line on its
// standard input it calls New once.
func TestHelper(t *testing.T) {
	if os.Getenv(helperVariable) == "" {
		t.Skip("run by other tests")
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var used usedServers
		t.Run("use", func(t *testing.T) {
			env := New(t)
			used = usedServers{Supervisor: shared.server.Supervisor, DatabaseURL: env.DatabaseURL}
		})
		if used.Supervisor == 0 {
			return // New failed
		}
		// Reported after the clean-up, which needs the servers too.
		b, err := json.Marshal(used)
		require.NoError(t, err)
		fmt.Printf("USED %s\n", b)
		err = goleak.Find() // waits for a second only
		for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Printf("LEAK %q\n", err)
		}
	}
}

type usedServers struct {
	Supervisor  int
	DatabaseURL string
}

// process is a test process that calls New on request.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func startProcess(t *testing.T, tmp string) *process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^TestHelper$", "-test.v")
	cmd.Env = append(os.Environ(), helperVariable+"=1", "TMPDIR="+tmp, idleVariable+"=100ms",
		"DELTA_DATABASE_URL=", "TEMPORAL_ADDRESS=")
	cmd.Stderr = os.Stderr
	p := &process{cmd: cmd}
	p.stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	p.lines = bufio.NewScanner(stdout)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return p
}

func (p *process) requestUse(t *testing.T) {
	t.Helper()
	_, err := io.WriteString(p.stdin, "use\n")
	require.NoError(t, err)
}

func (p *process) readUse(t *testing.T) usedServers {
	t.Helper()
	var said []string
	for p.lines.Scan() {
		line := p.lines.Text()
		if raw, ok := strings.CutPrefix(line, "USED "); ok {
			var u usedServers
			require.NoError(t, json.Unmarshal([]byte(raw), &u))
			return u
		}
		require.NotContains(t, line, "LEAK")
		said = append(said, line)
	}
	t.Fatalf("the process ended: %s", strings.Join(said, "\n"))
	return usedServers{}
}

func (p *process) finish(t *testing.T) {
	t.Helper()
	require.NoError(t, p.stdin.Close())
	for p.lines.Scan() {
		require.NotContains(t, p.lines.Text(), "LEAK")
	}
	require.NoError(t, p.cmd.Wait())
}

// privateTmp is the directory of one test's supervisor. Postgres, which may
// run as another user, can enter it.
func privateTmp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "deltatest-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		requireOver(t, dir)
		require.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

// requireOver waits until no process works in dir. A supervisor has ended
// when the directory of its servers is removed.
func requireOver(t *testing.T, dir string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		left, err := filepath.Glob(filepath.Join(dir, "delta-stack-*"))
		require.NoError(c, err)
		assert.Empty(c, left)
		assert.Empty(c, processesIn(dir))
	}, patience, 20*time.Millisecond, "the servers did not end")
}

// processesIn lists the processes that work in dir, on systems with /proc.
func processesIn(dir string) (pids []string) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if cwd, err := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd")); err == nil && strings.HasPrefix(cwd, dir) {
			pids = append(pids, entry.Name())
		}
	}
	return pids
}

func isAlive(pid int) bool {
	// A zombie has ended; its parent, a test process, may not have reaped it yet.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		return !strings.Contains(string(status), ") Z ")
	}
	if _, err := os.Stat("/proc/self"); err == nil {
		return false
	}
	return syscall.Kill(pid, 0) == nil
}

func TestProcessesShareOneSupervisor(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	tmp := privateTmp(t)
	processes := make([]*process, 6)
	for i := range processes {
		processes[i] = startProcess(t, tmp)
	}
	for _, p := range processes {
		p.requestUse(t) // all at once, while no supervisor runs
	}
	var supervisor int
	schemas := map[string]bool{}
	for _, p := range processes {
		u := p.readUse(t)
		if supervisor == 0 {
			supervisor = u.Supervisor
		}
		require.Equal(t, supervisor, u.Supervisor)
		schemas[u.DatabaseURL] = true
	}
	require.Len(t, schemas, len(processes))

	// The supervisor stays while one process is connected, even if idle. How a process
	// ends does not matter.
	for _, p := range processes[2:] {
		p.finish(t)
	}
	require.NoError(t, processes[1].cmd.Process.Kill())
	time.Sleep(500 * time.Millisecond) // five times the idle time
	require.True(t, isAlive(supervisor))
	processes[0].requestUse(t)
	require.Equal(t, supervisor, processes[0].readUse(t).Supervisor)

	processes[0].finish(t)
	require.Eventually(t, func() bool { return !isAlive(supervisor) }, patience, 20*time.Millisecond, "the supervisor does not end")
	requireOver(t, tmp)
}

func TestKilledSupervisorIsReplaced(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	tmp := privateTmp(t)
	first, second := startProcess(t, tmp), startProcess(t, tmp)
	first.requestUse(t)
	old := first.readUse(t).Supervisor
	require.NoError(t, syscall.Kill(old, syscall.SIGKILL))
	// Its threads end one by one, and then its servers. Until then, a test could still get them.
	state, err := filepath.Glob(filepath.Join(tmp, "delta-test-*"))
	require.NoError(t, err)
	require.Len(t, state, 1)
	require.Eventually(t, func() bool {
		conn, err := dialSocket(state[0])
		if err == nil {
			_ = conn.Close()
		}
		return err != nil && !isAlive(old) && len(processesIn(tmp)) == 0
	}, patience, 10*time.Millisecond)

	// One process knew the killed supervisor, the other finds its files.
	first.requestUse(t)
	second.requestUse(t)
	one, two := first.readUse(t), second.readUse(t)
	require.NotEqual(t, old, one.Supervisor)
	require.Equal(t, one.Supervisor, two.Supervisor)
	first.finish(t)
	second.finish(t)
}

func TestAFailedStartReportsItsReason(t *testing.T) {
	t.Setenv("DELTA_TEMPORAL_SERVER", "/does/not/exist")
	t.Setenv("DELTA_DATABASE_URL", "")
	t.Setenv("TEMPORAL_ADDRESS", "")
	tmp := privateTmp(t)
	t.Setenv("TMPDIR", tmp)
	dir, err := stateDir()
	require.NoError(t, err)
	_, _, err = joinSupervisor(t.Context(), dir)
	require.ErrorContains(t, err, "DELTA_TEMPORAL_SERVER is set to /does/not/exist")
}

func TestStateDirOfSomebodyElseIsRefused(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	dir, err := stateDir()
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err = stateDir()
	require.ErrorContains(t, err, "nobody else can enter")
}
