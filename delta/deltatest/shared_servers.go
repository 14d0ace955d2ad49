package deltatest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chariot-giving/delta/internal/flock"
	"github.com/chariot-giving/delta/internal/stack"
)

const (
	supervisorVariable = "DELTA_TEST_SUPERVISOR"
	idleVariable       = "DELTA_TEST_IDLE"
	dirVariable        = "DELTA_TEST_DIR"
	defaultIdle        = 30 * time.Second
)

// server has the addresses of the shared servers.
type server struct {
	DatabaseURL       string `json:"database_url"`
	TemporalAddress   string `json:"temporal_address"`
	TemporalNamespace string `json:"temporal_namespace"`
	Supervisor        int    `json:"supervisor"` // its pid
}

// message is a line from the supervisor.
type message struct {
	Progress string  `json:"progress,omitempty"`
	Ready    *server `json:"ready,omitempty"`
	Error    string  `json:"error,omitempty"`
}

// shared is this process's connection to the supervisor. While it is open, the servers stay. The kernel closes it when this process ends, for any
// reason, so it needs no goroutine.
var shared = struct {
	turn   chan struct{} // a mutex that a context can give up on
	conn   *net.UnixConn
	server server
	failed error // a failed start would fail for the next test too
}{turn: make(chan struct{}, 1)}

// acquireServers returns the servers, and starts them if they are not running.
func acquireServers(ctx context.Context) (server, error) {
	databaseURL, databaseGiven := stack.ExternalDatabase()
	if databaseGiven && stack.ExternalTemporal() {
		opts, err := stack.ClientOptions("", "")
		return server{DatabaseURL: databaseURL, TemporalAddress: opts.HostPort, TemporalNamespace: opts.Namespace}, err
	}
	select {
	case shared.turn <- struct{}{}:
		defer func() { <-shared.turn }()
	case <-ctx.Done():
		return server{}, fmt.Errorf("waiting for the servers to start: %w", ctx.Err())
	}
	if shared.failed != nil {
		return server{}, shared.failed
	}
	if shared.conn != nil {
		if isOpen(shared.conn) {
			return shared.server, nil
		}
		_ = shared.conn.Close()
		shared.conn = nil
	}
	dir, err := stateDir()
	if err != nil {
		return server{}, err
	}
	conn, srv, err := joinSupervisor(ctx, dir)
	if err != nil {
		if ctx.Err() == nil {
			shared.failed = err
		}
		return server{}, err
	}
	shared.conn, shared.server = conn, srv
	return srv, nil
}

// hasEnded reports whether the supervisor of srv has ended. It waits a moment, because
// the servers of a killed supervisor may end before its connections are closed.
func hasEnded(srv server) bool {
	shared.turn <- struct{}{}
	defer func() { <-shared.turn }()
	for range 500 {
		if srv.Supervisor == 0 {
			return false // both servers come from the environment
		}
		// Another test may have started the next supervisor already.
		if shared.conn == nil || shared.server.Supervisor != srv.Supervisor || !isOpen(shared.conn) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// stateDir returns the directory in which processes find a supervisor that they can share.
func stateDir() (string, error) {
	name := fmt.Sprintf("delta-test-%d-%s", os.Geteuid(), stack.Fingerprint())
	if idle := os.Getenv(idleVariable); idle != "" {
		name += "-" + notName.ReplaceAllString(idle, "")
	}
	parent := os.TempDir()
	if len(filepath.Join(parent, name, "socket")) > 100 {
		parent = "/tmp" // the path of a socket is limited, to 104 bytes on macOS
	}
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	// Anybody can write to a temporary directory. Trust only a directory of this user.
	if !isPrivate(dir) {
		return "", fmt.Errorf("%s must be a directory of this user that nobody else can enter: remove it", dir)
	}
	return dir, nil
}

var errSupervisorEnded = errors.New("the supervisor ended")

// joinSupervisor connects to the supervisor, and starts one if there is none.
func joinSupervisor(ctx context.Context, dir string) (*net.UnixConn, server, error) {
	var err error
	for range 5 {
		var conn *net.UnixConn
		if conn, err = connectSupervisor(ctx, dir); err != nil {
			return nil, server{}, err
		}
		var srv server
		if srv, err = awaitServers(ctx, conn); err == nil {
			return conn, srv, nil
		}
		_ = conn.Close()
		if !errors.Is(err, errSupervisorEnded) {
			return nil, server{}, err
		}
		// It was about to end, or was killed: try again.
	}
	b, _ := os.ReadFile(filepath.Join(dir, "log"))
	return nil, server{}, fmt.Errorf("%w again and again; its log:\n%s", err, b)
}

func dialSocket(dir string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unix"})
}

// connectSupervisor connects to a supervisor. Only the holder of the lock may start one: of
// many processes that start at once, one starts it and the others find it.
func connectSupervisor(ctx context.Context, dir string) (*net.UnixConn, error) {
	if conn, err := dialSocket(dir); err == nil {
		return conn, nil
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = flock.Release(lock) }()
	for {
		got, err := flock.Try(lock)
		if err != nil {
			return nil, err
		}
		if conn, err := dialSocket(dir); err == nil {
			return conn, nil
		}
		if got {
			break
		}
		if err := pauseBriefly(ctx); err != nil {
			return nil, err
		}
	}
	// Nobody listens and, as we hold the lock, nobody is about to: the socket is stale.
	if err := os.Remove(filepath.Join(dir, "socket")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	pid, err := spawnSupervisor(dir)
	if err != nil {
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	for {
		if conn, err := dialSocket(dir); err == nil {
			return conn, nil
		}
		if hasExited(pid) {
			b, _ := os.ReadFile(filepath.Join(dir, "log"))
			return nil, fmt.Errorf("the supervisor ended at once; its log:\n%s", b)
		}
		if err := pauseBriefly(ctx); err != nil {
			return nil, err
		}
	}
}

func pauseBriefly(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting for the supervisor: %w", ctx.Err())
	case <-time.After(10 * time.Millisecond):
		return nil
	}
}

// awaitServers reads the supervisor's messages until the servers are ready.
func awaitServers(ctx context.Context, conn *net.UnixConn) (server, error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline)
		defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	}
	began, last := time.Now(), ""
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return server{}, fmt.Errorf("the servers did not start in time (last heard: %s)", last)
		case err != nil && !errors.Is(err, io.EOF):
			return server{}, fmt.Errorf("%w: %w", errSupervisorEnded, err)
		case err != nil:
			return server{}, errSupervisorEnded
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			return server{}, fmt.Errorf("the supervisor said %q: %w", line, err)
		}
		switch {
		case m.Ready != nil:
			return *m.Ready, nil
		case m.Error != "":
			return server{}, errors.New(m.Error)
		case strings.HasPrefix(m.Progress, "waiting") && time.Since(began) > 3*time.Second:
			_, _ = fmt.Fprintln(os.Stderr, "deltatest:", m.Progress)
		}
		last = m.Progress
	}
}
