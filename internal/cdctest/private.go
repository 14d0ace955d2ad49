//go:build linux

package cdctest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/testport"
)

// Private is a Postgres server of one test, which may be killed.
type Private struct {
	*Database

	tb       testing.TB
	bin      string
	folder   string
	settings []string
	process  *exec.Cmd
	ended    chan struct{} // closed when the process has ended
}

// NewPrivate starts a server, with the binaries of the server that the tests share.
func NewPrivate(tb testing.TB, settings ...string) *Private {
	tb.Helper()
	p := &Private{tb: tb, bin: Query[string](New(tb), `SELECT setting FROM pg_config WHERE name = 'BINDIR'`)}
	p.makeFolder()
	out, err := p.newCommand("initdb", "-D", p.dataFolder(), "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8").CombinedOutput()
	require.NoError(tb, err, "%s", out)
	p.startFirst(settings)
	return p
}

// Standby starts a copy of the server as a standby, with settings that say which server to follow. The original is
// stopped meanwhile.
func (p *Private) Standby(settings ...string) *Private {
	p.tb.Helper()
	s := &Private{tb: p.tb, bin: p.bin}
	s.makeFolder()
	p.Stop(syscall.SIGINT)
	out, err := exec.Command("cp", "-a", p.dataFolder(), s.dataFolder()).CombinedOutput()
	require.NoError(p.tb, err, "%s", out)
	require.NoError(p.tb, os.WriteFile(filepath.Join(s.dataFolder(), "standby.signal"), nil, 0o644))
	p.Start()
	p.Pool.Reset()
	s.startFirst(settings)
	return s
}

func (p *Private) makeFolder() {
	p.tb.Helper()
	folder, err := os.MkdirTemp("/tmp", "cdctest-*")
	require.NoError(p.tb, err)
	p.tb.Cleanup(func() { _ = os.RemoveAll(folder) })
	p.folder = folder
	if os.Getuid() == 0 {
		uid, gid := p.nobodyIDs()
		require.NoError(p.tb, os.Chown(folder, int(uid), int(gid)))
	}
}

// startFirst starts the server for the first time.
func (p *Private) startFirst(settings []string) {
	p.tb.Helper()
	port := testport.Reserve(p.tb) // reserved for this server even while it is stopped
	// Tests kill the server but never the machine, so nothing is lost without fsync.
	p.settings = append([]string{"port=" + strconv.Itoa(port), "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"}, settings...)
	config, err := pgxpool.ParseConfig(fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port))
	require.NoError(p.tb, err)
	pool, err := pgxpool.NewWithConfig(p.tb.Context(), config)
	require.NoError(p.tb, err)
	p.Database = &Database{Name: "postgres", Pool: pool, tb: p.tb, config: func() *pgx.ConnConfig { return config.ConnConfig.Copy() }}
	p.tb.Cleanup(func() {
		pool.Close()
		p.Stop(syscall.SIGQUIT)
	})
	p.Start()
}

// nobodyIDs returns the user that runs Postgres if the tests run as root.
func (p *Private) nobodyIDs() (uid, gid uint32) {
	p.tb.Helper()
	other, err := user.Lookup("nobody")
	require.NoError(p.tb, err, "root may not run Postgres")
	u, err := strconv.ParseUint(other.Uid, 10, 32)
	require.NoError(p.tb, err)
	g, err := strconv.ParseUint(other.Gid, 10, 32)
	require.NoError(p.tb, err)
	return uint32(u), uint32(g)
}

func (p *Private) dataFolder() string { return filepath.Join(p.folder, "data") }

func (p *Private) newCommand(name string, args ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(p.bin, name), args...)
	command.Dir = p.folder

	if os.Getuid() == 0 {
		uid, gid := p.nobodyIDs()
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	return command
}

// Start starts the server, and waits until it answers.
func (p *Private) Start() {
	p.tb.Helper()
	args := []string{"-D", p.dataFolder()}
	for _, setting := range p.settings {
		args = append(args, "-c", setting)
	}
	p.process = p.newCommand("postgres", args...)
	log, err := os.OpenFile(filepath.Join(p.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(p.tb, err)
	defer func() { _ = log.Close() }()
	p.process.Stdout, p.process.Stderr = log, log
	require.NoError(p.tb, p.process.Start())
	process, ended := p.process, make(chan struct{})
	p.ended = ended
	go func() {
		_ = process.Wait()
		close(ended)
	}()
	for end := time.Now().Add(Patience); p.Pool.Ping(p.tb.Context()) != nil; time.Sleep(20 * time.Millisecond) {
		text, _ := os.ReadFile(log.Name())
		select {
		case <-ended:
			p.process = nil
			require.FailNow(p.tb, "the server has ended", "%s", text)
		default:
			require.True(p.tb, time.Now().Before(end), "the server does not answer: %s", text)
		}
	}
}

// Stop stops the server: SIGINT shuts it down in order, SIGQUIT is like a crash.
func (p *Private) Stop(signal os.Signal) {
	p.tb.Helper()
	if p.process == nil {
		return
	}
	require.NoError(p.tb, p.process.Process.Signal(signal))
	select {
	case <-p.ended:
	case <-time.After(Patience):
		p.tb.Error("the server did not stop")
		_ = p.process.Process.Kill()
		<-p.ended
	}
	p.process = nil
}
