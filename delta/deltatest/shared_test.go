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

// TestHelper is run in processes of its own by the tests below. For every line
// on its standard input it uses the kit once.
func TestHelper(t *testing.T) {
	if os.Getenv(helperVariable) == "" {
		t.Skip("run by other tests")
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var used use
		t.Run("use", func(t *testing.T) {
			env := New(t)
			used = use{Supervisor: shared.server.Supervisor, DatabaseURL: env.DatabaseURL}
		})
		if used.Supervisor == 0 {
			return // it failed
		}
		// Said after the clean-up, which needs the servers, too.
		b, err := json.Marshal(used)
		require.NoError(t, err)
		fmt.Printf("USED %s\n", b)
		err = goleak.Find() // which itself waits for a second only
		for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Printf("LEAK %q\n", err)
		}
	}
}

type use struct {
	Supervisor  int
	DatabaseURL string
}

// process is a test process that uses the kit when told to.
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

func (p *process) tell(t *testing.T) {
	t.Helper()
	_, err := io.WriteString(p.stdin, "use\n")
	require.NoError(t, err)
}

func (p *process) answer(t *testing.T) use {
	t.Helper()
	var said []string
	for p.lines.Scan() {
		line := p.lines.Text()
		if raw, ok := strings.CutPrefix(line, "USED "); ok {
			var u use
			require.NoError(t, json.Unmarshal([]byte(raw), &u))
			return u
		}
		require.NotContains(t, line, "LEAK")
		said = append(said, line)
	}
	t.Fatalf("the process ended: %s", strings.Join(said, "\n"))
	return use{}
}

func (p *process) end(t *testing.T) {
	t.Helper()
	require.NoError(t, p.stdin.Close())
	for p.lines.Scan() {
		require.NotContains(t, p.lines.Text(), "LEAK")
	}
	require.NoError(t, p.cmd.Wait())
}

// privateTmp is where the supervisor of one test lives; Postgres, which may
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

// requireOver waits until nothing works in dir any more. A supervisor is gone
// when its servers' directory is.
func requireOver(t *testing.T, dir string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		left, err := filepath.Glob(filepath.Join(dir, "delta-stack-*"))
		require.NoError(c, err)
		assert.Empty(c, left)
		assert.Empty(c, inside(dir))
	}, patience, 20*time.Millisecond, "the servers did not end")
}

// inside lists the processes that work in dir, where there is a /proc.
func inside(dir string) (pids []string) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if cwd, err := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd")); err == nil && strings.HasPrefix(cwd, dir) {
			pids = append(pids, entry.Name())
		}
	}
	return pids
}

func alive(pid int) bool {
	// A zombie is nobody; its parent, a test process, may not have looked yet.
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
		p.tell(t) // all at once: nothing runs yet
	}
	var supervisor int
	schemas := map[string]bool{}
	for _, p := range processes {
		u := p.answer(t)
		if supervisor == 0 {
			supervisor = u.Supervisor
		}
		require.Equal(t, supervisor, u.Supervisor)
		schemas[u.DatabaseURL] = true
	}
	require.Len(t, schemas, len(processes))

	// It stays while one process has use for it, idle or not; how a process
	// ends does not matter.
	for _, p := range processes[2:] {
		p.end(t)
	}
	require.NoError(t, processes[1].cmd.Process.Kill())
	time.Sleep(500 * time.Millisecond) // five times the idle time
	require.True(t, alive(supervisor))
	processes[0].tell(t)
	require.Equal(t, supervisor, processes[0].answer(t).Supervisor)

	processes[0].end(t)
	require.Eventually(t, func() bool { return !alive(supervisor) }, patience, 20*time.Millisecond, "it never ends")
	requireOver(t, tmp)
}

func TestKilledSupervisorIsReplaced(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	tmp := privateTmp(t)
	first, second := startProcess(t, tmp), startProcess(t, tmp)
	first.tell(t)
	old := first.answer(t).Supervisor
	require.NoError(t, syscall.Kill(old, syscall.SIGKILL))
	// Its threads end one by one, and its servers after it: until then, a test could still be given them.
	state, err := filepath.Glob(filepath.Join(tmp, "delta-test-*"))
	require.NoError(t, err)
	require.Len(t, state, 1)
	require.Eventually(t, func() bool {
		conn, err := dial(state[0])
		if err == nil {
			_ = conn.Close()
		}
		return err != nil && !alive(old) && len(inside(tmp)) == 0
	}, patience, 10*time.Millisecond)

	// A process that knew it, and one that finds what it left.
	first.tell(t)
	second.tell(t)
	one, two := first.answer(t), second.answer(t)
	require.NotEqual(t, old, one.Supervisor)
	require.Equal(t, one.Supervisor, two.Supervisor)
	first.end(t)
	second.end(t)
}

func TestStartThatFailsSaysWhy(t *testing.T) {
	t.Setenv("DELTA_TEMPORAL_SERVER", "/does/not/exist")
	t.Setenv("DELTA_DATABASE_URL", "")
	t.Setenv("TEMPORAL_ADDRESS", "")
	tmp := privateTmp(t)
	t.Setenv("TMPDIR", tmp)
	dir, err := stateDir()
	require.NoError(t, err)
	_, _, err = join(t.Context(), dir)
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
