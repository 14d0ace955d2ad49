//go:build unix

package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/internal/testport"
)

func TestEphemeralKeepsNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	parent := openDir(t)
	s := start(t, anyPorts(Options{Dir: parent, Ephemeral: true}))

	require.Equal(t, "logical", queryValue[string](t, s.DatabaseURL, "show wal_level"))
	require.Equal(t, "off", queryValue[string](t, s.DatabaseURL, "show fsync"))
	require.Equal(t, "UTF8", queryValue[string](t, s.DatabaseURL, "show server_encoding"))
	require.Equal(t, "delta/delta", queryValue[string](t, s.DatabaseURL, "select current_user || '/' || current_database()"))
	require.Equal(t, "127.0.0.1", queryValue[string](t, s.DatabaseURL, "show listen_addresses"))
	require.Contains(t, s.DatabaseURL, "postgres://delta:password@127.0.0.1:")
	require.Equal(t, "SCRAM-SHA-256$1:", queryValue[string](t, s.DatabaseURL, "select substr(rolpassword, 1, 16) from pg_authid where rolname = current_user"))
	requireRefused(t, strings.Replace(s.DatabaseURL, ":password@", ":passwort@", 1))
	opts, err := s.ClientOptions()
	require.NoError(t, err)
	require.NoError(t, checkTemporal(t.Context(), opts))
	require.NoError(t, requireAnswer(s.UIURL))
	c, err := client.Dial(opts)
	require.NoError(t, err)
	defer c.Close()
	namespace, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: opts.Namespace})
	require.NoError(t, err)
	require.True(t, namespace.GetNamespaceInfo().GetCapabilities().GetWorkerPollCompleteOnShutdown(), "otherwise restarts cost ten seconds")
	require.True(t, namespace.GetNamespaceInfo().GetCapabilities().GetEagerWorkflowStart())
	log, err := os.ReadFile(filepath.Join(s.Dir, "temporal.log"))
	require.NoError(t, err)
	require.NotContains(t, string(log), "Failed to convert value", "a setting is ignored")

	if os.Geteuid() == 0 {
		requireUnprivileged(t, s)
	}
	require.NotEmpty(t, listProcesses(t, s.Dir), "the check for left processes sees nothing")
	select {
	case <-s.Done():
		t.Fatal("done before it was stopped")
	default:
	}
	stop(t, s)
	<-s.Done()
	require.NoError(t, s.Err())
	requireGone(t, parent)
	left, err := os.ReadDir(parent)
	require.NoError(t, err)
	require.Empty(t, left)
	stop(t, s) // a second stop is harmless
}

// requireRefused checks that Postgres refuses the password of an address.
func requireRefused(t *testing.T, url string) {
	t.Helper()
	_, err := pgx.Connect(t.Context(), url)
	refused := (*pgconn.PgError)(nil)
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "28P01", refused.Code)
}

func requireAnswer(url string) error {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(url, "http://"), patience)
	if err != nil {
		return err
	}
	return conn.Close()
}

func TestDataSurvivesRestart(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	dir := filepath.Join(openDir(t), "made", "for us")
	// Ports of the last run that no other program is given meanwhile.
	ports := map[string]int{"postgres": testport.Reserve(t), "temporal": testport.Reserve(t), "ui": testport.Reserve(t)}
	remembered, err := json.Marshal(ports)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ports.json"), remembered, 0o644))
	s := start(t, anyPorts(Options{Dir: dir}))
	require.Contains(t, s.DatabaseURL, fmt.Sprintf(":%d/", ports["postgres"]))
	kept, err := os.ReadFile(filepath.Join(dir, "ports.json"))
	require.NoError(t, err)
	require.JSONEq(t, string(remembered), string(kept))
	require.Equal(t, "on", queryValue[string](t, s.DatabaseURL, "show fsync"))
	execSQL(t, s.DatabaseURL, "create table kept as select 42 as n")
	runWorkflow(t, s)

	_, err = Start(t.Context(), anyPorts(Options{Dir: dir}))
	locked := (*ErrLocked)(nil)
	require.ErrorAs(t, err, &locked)
	require.Equal(t, os.Getpid(), locked.PID)
	require.Contains(t, err.Error(), fmt.Sprintf("kill %d", os.Getpid()))
	require.Equal(t, 42, queryValue[int](t, s.DatabaseURL, "select n from kept"), "the refused start did harm")
	stop(t, s)
	requireGone(t, dir)

	again := start(t, anyPorts(Options{Dir: dir}))
	require.Equal(t, 42, queryValue[int](t, again.DatabaseURL, "select n from kept"))
	require.Equal(t, s.DatabaseURL, again.DatabaseURL, "the port of the last run is taken again")
	require.Equal(t, s.TemporalAddress, again.TemporalAddress)
	requireWorkflow(t, again)

	// A stop with an ended context kills the servers, and leaves none either. Here the servers cannot end in order, so an orderly stop would have to wait.
	for _, c := range again.children {
		c.ending = slices.Clone(c.ending)
		for i := range len(c.ending) - 1 {
			c.ending[i].patience = 24 * time.Hour
		}
		require.NoError(t, syscall.Kill(c.pid, syscall.SIGSTOP))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, again.Stop(ctx))
	requireGone(t, dir)
	for _, c := range again.children {
		require.EqualError(t, c.exit, "signal: killed", c.name)
	}
}

func dialStack(t *testing.T, s *Stack) client.Client {
	t.Helper()
	opts, err := s.ClientOptions()
	require.NoError(t, err)
	opts.Logger = silent{}
	c, err := client.DialContext(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func runWorkflow(t *testing.T, s *Stack) {
	t.Helper()
	_, err := dialStack(t, s).ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "kept", TaskQueue: "nobody"}, "none")
	require.NoError(t, err)
}

func requireWorkflow(t *testing.T, s *Stack) {
	t.Helper()
	_, err := dialStack(t, s).DescribeWorkflow(t.Context(), "kept", "")
	require.NoError(t, err)
}

// listenAnywhere occupies a port until the test ends.
func listenAnywhere(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestTakenPortsGiveWay(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	taken := []int{listenAnywhere(t), listenAnywhere(t), listenAnywhere(t)}
	var said heard
	s := start(t, Options{
		Dir: openDir(t), Ephemeral: true, Progress: said.add,
		PostgresPort: taken[0], TemporalPort: taken[1], UIPort: taken[2],
	})
	for i, where := range []string{s.DatabaseURL, s.TemporalAddress, s.UIURL} {
		require.NotContains(t, where, fmt.Sprintf(":%d", taken[i]))
		require.Contains(t, said.String(), fmt.Sprintf("port %d is taken", taken[i]))
	}
	require.Contains(t, said.String(), "Postgres ")
	require.Contains(t, said.String(), "Temporal "+minimalTemporal[:4])

	// The death of a server is noticed.
	for _, c := range s.children {
		if c.name == "Temporal" {
			require.NoError(t, syscall.Kill(c.pid, syscall.SIGKILL))
		}
	}
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("nobody noticed")
	}
	require.ErrorContains(t, s.Err(), "Temporal ended by itself: signal: killed")
	require.ErrorContains(t, s.Err(), "temporal.log")
	stop(t, s)
	requireGone(t, s.Dir)
}

func TestPortsInUseAtTheLastMoment(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	// The chooser believes that both ports are free, but the servers find them taken.
	first, second := listenAnywhere(t), listenAnywhere(t)
	home, err := openHome(Options{Dir: openDir(t), Ephemeral: true})
	require.NoError(t, err)
	s := &Stack{opts: Options{Ephemeral: true, Progress: func(string) {}}, home: home, done: make(chan struct{})}
	s.ports = newPortChooser("")
	s.ports.free = func(p int) bool { return p == first || p == second || isPortFree(p) }
	s.opts.PostgresPort, s.opts.TemporalPort, s.opts.UIPort = first, second, AnyPort
	defer stop(t, s)
	bin, err := s.findPostgres(t.Context(), 0)
	require.NoError(t, err)
	as, err := postgresAccount(home.dataDir())
	require.NoError(t, err)
	require.NoError(t, s.prepareData(t.Context(), bin, as, true))
	err = s.servePostgres(t.Context(), bin, as)
	require.ErrorIs(t, err, errPortTaken{first})
	require.Empty(t, inUse(home.dataDir()))

	program, _, err := findTemporal(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, s.serveTemporal(t.Context(), program), errPortTaken{second})
	requireGone(t, home.dir)
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 300 * time.Millisecond, 900 * time.Millisecond} {
		parent := openDir(t)
		gaveUp := errors.New("gave up")
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(after, func() { cancel(gaveUp) })
		s, err := Start(ctx, anyPorts(Options{Dir: parent, Ephemeral: true}))
		timer.Stop()
		if err == nil { // a fast machine
			stop(t, s)
		} else {
			require.ErrorIs(t, err, gaveUp)
		}
		requireGone(t, parent)
		left, err := os.ReadDir(parent)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := Options{}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, []int{5431, 7233, 8233}, []int{o.PostgresPort, o.TemporalPort, o.UIPort})
	dir, err := DefaultDir()
	require.NoError(t, err)
	require.Equal(t, dir, o.Dir)
	_, err = Start(t.Context(), Options{Ephemeral: true, TemporalPort: 70000})
	require.ErrorContains(t, err, "Temporal port 70000 is not between 1 and 65535")
}

func TestAnotherPostgresOnPathIsAnotherStack(t *testing.T) {
	root := t.TempDir()
	t.Setenv("PATH", installFake(t, root, "a", "17.2"))
	before := Fingerprint()
	require.Equal(t, before, Fingerprint())
	t.Setenv("PATH", installFake(t, root, "b", "17.2"))
	require.NotEqual(t, before, Fingerprint())
}
