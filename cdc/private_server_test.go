//go:build linux

package cdc_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

// privateServer is a Postgres of one test, which may be harmed.
type privateServer struct {
	t        *testing.T
	folder   string
	port     int
	uid, gid string // whom root runs it as
	settings []string
	process  *exec.Cmd
}

// newPrivateServer starts one. The test is skipped where there are no binaries, or no other user for root to run them as.
func newPrivateServer(t *testing.T, settings ...string) (*privateServer, *database) {
	t.Helper()
	needed := []string{"initdb", "postgres"}
	if os.Getuid() == 0 {
		needed = append(needed, "setpriv")
	}
	for _, name := range needed {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name + " on the path")
		}
	}
	folder, err := os.MkdirTemp("/tmp", "cdc-postgres-*")
	require.NoError(t, err)
	s := &privateServer{t: t, folder: folder, settings: settings}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if os.Getuid() == 0 {
		uid, gid := nobody(t)
		s.uid, s.gid = strconv.Itoa(uid), strconv.Itoa(gid)
		require.NoError(t, os.Chown(folder, uid, gid))
	}
	out, err := s.command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8").CombinedOutput()
	require.NoError(t, err, "%s", out)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.port = listener.Addr().(*net.TCPAddr).Port
	require.NoError(t, listener.Close())
	s.start()
	t.Cleanup(func() { s.stop(syscall.SIGQUIT) })
	config, err := pgxpool.ParseConfig(fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.port))
	require.NoError(t, err)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	s.ready(pool)
	return s, &database{tb: t, name: "postgres", pool: pool}
}

func nobody(t *testing.T) (uid, gid int) {
	t.Helper()
	other, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("root may not run Postgres, and there is no user nobody")
	}
	uid, err = strconv.Atoi(other.Uid)
	require.NoError(t, err)
	gid, err = strconv.Atoi(other.Gid)
	require.NoError(t, err)
	return uid, gid
}

func (s *privateServer) data() string { return filepath.Join(s.folder, "data") }

func (s *privateServer) command(name string, args ...string) *exec.Cmd {
	if os.Getuid() == 0 {
		name, args = "setpriv", append([]string{"--reuid=" + s.uid, "--regid=" + s.gid, "--clear-groups", name}, args...)
	}
	command := exec.Command(name, args...)
	command.Dir = s.folder
	return command
}

func (s *privateServer) start() {
	s.t.Helper()
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "wal_level=logical"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	s.process = s.command("postgres", args...)
	require.NoError(s.t, s.process.Start())
}

// stop ends the server: SIGINT in order, SIGQUIT as a crash does.
func (s *privateServer) stop(signal os.Signal) {
	s.t.Helper()
	if s.process == nil {
		return
	}
	require.NoError(s.t, s.process.Process.Signal(signal))
	done := make(chan struct{})
	go func() { _ = s.process.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = s.process.Process.Kill()
		<-done
		s.t.Error("the server did not stop")
	}
	s.process = nil
}

func (s *privateServer) ready(pool *pgxpool.Pool) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return pool.Ping(s.t.Context()) == nil }, 30*time.Second, 50*time.Millisecond)
}

// stream opens one of all tables.
func (s *privateServer) stream(d *database) *cdc.Stream {
	s.t.Helper()
	d.exec(`create publication postgres for all tables`, `select pg_create_logical_replication_slot('postgres', 'pgoutput')`)
	stream, err := cdc.Open(s.t.Context(), cdc.Config{
		Conn: d.pool.Config().ConnConfig, Slot: "postgres", Publications: []string{"postgres"}, Logger: quiet,
		StatusInterval: 200 * time.Millisecond, Timeout: 5 * time.Second, ShortestRetry: 10 * time.Millisecond, LongestRetry: 200 * time.Millisecond,
	})
	require.NoError(s.t, err)
	s.t.Cleanup(stream.Close)
	return stream
}

func TestStreamGoesOnAfterTheServerIsRestarted(t *testing.T) {
	t.Parallel()
	s, d := newPrivateServer(t)
	d.exec(`create table t (id int primary key)`)
	stream := s.stream(d)
	d.exec(`insert into t values (1)`)
	first, _ := next(t, stream)
	require.NoError(t, stream.Ack(first.EndLSN))
	for i, signal := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		s.stop(signal)
		s.start()
		d.pool.Reset()
		s.ready(d.pool)
		d.exec(fmt.Sprintf(`insert into t values (%d)`, i+2))
		transaction, changes := next(t, stream)
		require.Equal(t, []string{fmt.Sprintf("insert t [%d]", i+2)}, changes)
		require.NoError(t, stream.Ack(transaction.EndLSN))
	}
}

func TestInvalidatedSlotsNeedAResync(t *testing.T) {
	t.Parallel()
	s, d := newPrivateServer(t, "max_slot_wal_keep_size=1MB", "max_wal_size=32MB")
	d.exec(`create table t (id int primary key)`)
	stream := s.stream(d)
	d.exec(`insert into t values (1)`)
	next(t, stream) // and never acknowledged
	for range 4 {
		d.exec(`insert into t values ((select max(id) + 1 from t))`, `select pg_switch_wal()`)
	}
	d.exec(`checkpoint`)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var err error
	for err == nil {
		_, err = stream.Next(ctx)
	}
	var resync *cdc.ResyncError
	require.ErrorAs(t, err, &resync)
	require.Equal(t, cdc.SlotInvalidated, resync.Reason)
	slots, err := cdc.Slots(t.Context(), d.pool)
	require.NoError(t, err)
	require.Equal(t, "lost", slots[0].Status)
}
