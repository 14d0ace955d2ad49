//go:build unix

package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/testport"
	"github.com/chariot-giving/delta/internal/testprogram"
)

func TestKillLeavesNoProcessAndLosesNoData(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends children with their parent")
	}
	dir := openDir(t)
	cmd, _, answer := startHelper(t, helperOptions{Dir: dir}, nil)
	require.Empty(t, answer.Error)
	require.Len(t, answer.Children, 2)
	execSQL(t, answer.DatabaseURL, "create table kept as select 42 as n")

	kill(t, cmd)
	requireGone(t, dir)

	s := start(t, anyPorts(Options{Dir: dir}))
	require.Equal(t, 42, queryValue[int](t, s.DatabaseURL, "select n from kept"))
}

// On systems that do not end children with their parent, the next start ends them.
func TestNextStartStopsWhatAKilledRunLeft(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	dir := openDir(t)
	cmd, _, answer := startHelper(t, helperOptions{Dir: dir, NoDeathSignals: true}, nil)
	require.Empty(t, answer.Error)
	execSQL(t, answer.DatabaseURL, "create table kept as select 42 as n")
	kill(t, cmd)
	for _, pid := range answer.Children {
		require.True(t, processExists(pid), "the test needs servers that stay")
	}

	var said heard
	s := start(t, anyPorts(Options{Dir: dir, Progress: said.add}))
	for _, pid := range answer.Children {
		require.NotContains(t, commandLine(pid), dir)
		require.Contains(t, said.String(), fmt.Sprintf("(pid %d) that an earlier run left", pid))
	}
	require.Equal(t, 42, queryValue[int](t, s.DatabaseURL, "select n from kept"))
	stop(t, s)

	// The same if our pid file is lost, because Postgres has one too.
	cmd, _, answer = startHelper(t, helperOptions{Dir: dir, NoDeathSignals: true}, nil)
	require.Empty(t, answer.Error)
	kill(t, cmd)
	require.NoError(t, os.Remove(filepath.Join(dir, "postgres.pid")))
	s = start(t, anyPorts(Options{Dir: dir}))
	require.Equal(t, 42, queryValue[int](t, s.DatabaseURL, "select n from kept"))
}

func TestScavengeRemovesWhatKilledEphemeralRunsLeft(t *testing.T) {
	t.Parallel()
	parent := openDir(t)
	dead := filepath.Join(parent, ephemeralPattern()+"dead")
	foreign := filepath.Join(parent, "delta-stack-4711-x")
	for _, dir := range []string{dead, foreign} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "postgres"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "delta.lock"), []byte("1\n"), 0o644))
	}
	unborn := filepath.Join(parent, ephemeralPattern()+"unborn")
	require.NoError(t, os.Mkdir(unborn, 0o755))
	alive, err := openHome(Options{Dir: parent, Ephemeral: true})
	require.NoError(t, err)
	require.NoDirExists(t, dead)

	other, err := openHome(Options{Dir: parent, Ephemeral: true})
	require.NoError(t, err)
	require.DirExists(t, alive.dir, "a directory that is in use")
	require.DirExists(t, unborn, "a directory that is being made")
	require.DirExists(t, foreign, "a directory of somebody else")
	require.NoError(t, alive.close())
	require.NoError(t, other.close())
	require.NoDirExists(t, alive.dir)
}

// Pid files that name other processes must not stop them.
func TestStalePidFiles(t *testing.T) {
	t.Parallel()
	bystander := exec.Command("sleep", "3600")
	require.NoError(t, bystander.Start())
	defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
	pid := bystander.Process.Pid
	// The kernel shows a program's arguments a moment after it has replaced the one that started it.
	require.Eventually(t, func() bool { return commandLine(pid) == "sleep 3600" }, patience, time.Millisecond)

	dir := openDir(t)
	h := &home{dir: dir}
	require.NoError(t, os.MkdirAll(h.dataDir(), 0o700))
	postmaster := filepath.Join(h.dataDir(), "postmaster.pid")
	mine, err := json.Marshal(record{PID: pid, Command: []string{"/usr/bin/postgres", "-D", h.dataDir()}})
	require.NoError(t, err)
	quiet := func(string, ...any) {}
	for _, test := range [][2]string{
		{"number taken over", strconv.Itoa(pid) + "\n" + h.dataDir() + "\n"},
		{"nobody there", "999999999\n"},
	} {
		name, write := test[0], test[1]
		require.NoError(t, os.WriteFile(postmaster, []byte(write), 0o600), name)
		require.NoError(t, os.WriteFile(h.filePath("postgres.pid"), mine, 0o600), name)
		require.NoError(t, os.WriteFile(h.filePath("temporal.pid"), []byte(`{"pid":`), 0o600), name)
		require.NoError(t, h.recoverPostgres(quiet), name)
		require.NoError(t, h.recoverTemporal(quiet), name)
		require.NoFileExists(t, h.filePath("postgres.pid"), name)
		require.NoFileExists(t, h.filePath("temporal.pid"), name)
		require.Equal(t, "sleep 3600", commandLine(pid), name)
	}
	require.FileExists(t, postmaster, "Postgres itself judges the file of a process that is gone")
	require.NoError(t, os.WriteFile(postmaster, []byte(strconv.Itoa(pid)+"\n"), 0o600))
	require.NoError(t, h.recoverPostgres(quiet))
	require.NoFileExists(t, postmaster, "Postgres would take the other process for itself")
	require.NoError(t, os.WriteFile(postmaster, []byte("nonsense"), 0o600))
	require.ErrorContains(t, h.recoverPostgres(quiet), "is not a Postgres pid file")
}

// requireUnprivileged requires that a server started by root runs as another user.
func requireUnprivileged(t *testing.T, s *Stack) {
	t.Helper()
	as, err := postgresAccount(s.home.dataDir())
	require.NoError(t, err)
	require.NotZero(t, as.uid)
	for _, c := range s.children {
		if c.name != "Postgres" {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
		require.NoError(t, err)
		require.Contains(t, string(status), fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", as.uid, as.uid, as.uid, as.uid))
		groups, _, _ := strings.Cut(strings.SplitAfter(string(status), "Groups:")[1], "\n")
		require.NotContains(t, strings.Fields(groups), "0", "it kept the groups of root")
	}
}

func TestRootExplainsAClosedDirectory(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	closed := t.TempDir() // inside a directory with mode 0700
	require.NoError(t, os.Chmod(filepath.Dir(closed), 0o700))
	_, err := Start(t.Context(), anyPorts(Options{Dir: closed, Ephemeral: true}))
	require.ErrorContains(t, err, "cannot enter "+filepath.Dir(closed))
	require.ErrorContains(t, err, "/var/lib/delta")
}

func TestNormalUser(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	requireRoot(t)
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv")
	}
	// The test binary itself lies where only root can enter.
	dir := openDir(t)
	self, err := os.Executable()
	require.NoError(t, err)
	code, err := os.ReadFile(self)
	require.NoError(t, err)
	binary := filepath.Join(dir, "stack.test")
	testprogram.Write(t, binary, code)
	user := filepath.Join(dir, "home")
	require.NoError(t, os.Mkdir(user, 0o700))
	require.NoError(t, os.Chown(user, 65534, 65534))

	as := func(cmd *exec.Cmd) {
		cmd.Path = setpriv
		cmd.Args = []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", binary}
		cmd.Env = append(cmd.Env, "HOME="+user, "TMPDIR="+user, "XDG_DATA_HOME=")
	}
	cmd, stdin, answer := startHelper(t, helperOptions{}, as) // in the default directory
	require.Empty(t, answer.Error)
	execSQL(t, answer.DatabaseURL, "create table kept as select 42 as n")
	require.DirExists(t, filepath.Join(user, ".local/share/delta/postgres/data"))
	for _, pid := range answer.Children {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		require.NoError(t, err)
		require.Contains(t, string(status), "Uid:\t65534")
	}
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
	requireGone(t, user)

	cmd, _, answer = startHelper(t, helperOptions{}, as)
	require.Empty(t, answer.Error)
	require.Equal(t, 42, queryValue[int](t, answer.DatabaseURL, "select n from kept"))
	kill(t, cmd)
	requireGone(t, user)
}

func TestServersOfTheEnvironmentAreUsed(t *testing.T) {
	soak.Long(t)
	running := start(t, anyPorts(Options{Dir: openDir(t), Ephemeral: true}))
	t.Setenv(databaseVariable, running.DatabaseURL)
	t.Setenv(temporalVariable, running.TemporalAddress)
	dir := filepath.Join(openDir(t), "unused")
	s := start(t, Options{Dir: dir})
	require.Equal(t, running.DatabaseURL, s.DatabaseURL)
	require.Equal(t, running.TemporalAddress, s.TemporalAddress)
	require.Equal(t, "default", s.TemporalNamespace)
	require.Empty(t, s.children)
	require.NoDirExists(t, dir)
	stop(t, s)
	require.Equal(t, 1, queryValue[int](t, running.DatabaseURL, "select 1"), "a server that is not ours was stopped")

	// The rest of the SDK's environment configuration counts as well.
	t.Setenv("TEMPORAL_NAMESPACE", "elsewhere")
	_, err := Start(t.Context(), Options{Dir: dir})
	require.ErrorContains(t, err, `namespace "elsewhere"`)
	t.Setenv("TEMPORAL_NAMESPACE", "")
	t.Setenv("TEMPORAL_TLS", "true")
	opts, err := s.ClientOptions()
	require.NoError(t, err)
	require.NotNil(t, opts.ConnectionOptions.TLS)
	t.Setenv("TEMPORAL_TLS", "")

	u, err := url.Parse(running.DatabaseURL)
	require.NoError(t, err)
	u.User = url.UserPassword("delta", "not-the-password")
	t.Setenv(databaseVariable, u.String())
	_, err = Start(t.Context(), Options{Dir: dir})
	require.ErrorContains(t, err, databaseVariable)
	require.NotContains(t, err.Error(), "not-the-password")

	t.Setenv(databaseVariable, running.DatabaseURL)
	// The start fails if a server never answers, although its context has no deadline.
	before := externalTimeout
	t.Cleanup(func() { externalTimeout = before })
	externalTimeout = time.Second
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, silent.Close()) }()
	for variable, other := range map[string]string{databaseVariable: temporalVariable, temporalVariable: databaseVariable} {
		t.Setenv(databaseVariable, running.DatabaseURL)
		t.Setenv(temporalVariable, running.TemporalAddress)
		for _, address := range []string{silent.Addr().String(), fmt.Sprintf("127.0.0.1:%d", testport.Reserve(t))} {
			named := address
			if variable == databaseVariable {
				named = "postgres://delta:password@" + address + "/delta"
			}
			t.Setenv(variable, named)
			for end := time.Now().Add(patience); ; {
				_, err = Start(context.Background(), Options{Dir: dir}) //nolint:usetesting // one without an end
				require.Error(t, err)
				if !strings.Contains(err.Error(), other) || time.Now().After(end) { // otherwise the other was late too
					break
				}
			}
			require.ErrorContains(t, err, address+", given by "+variable)
			require.NotContains(t, err.Error(), other)
		}
	}
}
