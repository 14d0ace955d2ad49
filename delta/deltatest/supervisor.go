package deltatest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/chariot-giving/delta/internal/stack"
)

// init turns this process into the supervisor if it was started as one. Only an
// init function of this package runs before the tests without any code of the
// test's author.
func init() {
	dir := os.Getenv(supervisorVariable)
	if dir == "" {
		return
	}
	if err := runSupervisor(dir); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// supervisor runs the servers while any process is connected to it.
type supervisor struct {
	listener *net.UnixListener
	idle     time.Duration

	mu       sync.Mutex
	users    map[*net.UnixConn]bool
	state    message // the first message of a new connection
	timer    *time.Timer
	hasEnded bool
	ending   chan struct{}
}

func runSupervisor(dir string) error {
	_ = os.Unsetenv(supervisorVariable) // the servers must not inherit it
	idle := defaultIdle
	if value := os.Getenv(idleVariable); value != "" {
		var err error
		if idle, err = time.ParseDuration(value); err != nil || idle <= 0 {
			return fmt.Errorf("%s=%q is not a positive duration", idleVariable, value)
		}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unix"})
	if err != nil {
		return err
	}
	s := &supervisor{
		listener: listener, idle: idle, users: map[*net.UnixConn]bool{},
		state: message{Progress: "starting"}, ending: make(chan struct{}),
	}
	// The process that started this one connects soon. Do not end before, however short the idle time is.
	s.timer = time.AfterFunc(max(idle, defaultIdle), s.endIfIdle)
	go s.accept()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	began := time.Now()
	running, err := stack.Start(ctx, stack.Options{
		Ephemeral: true,
		Dir:       os.Getenv(dirVariable),
		// Leave the usual ports to `delta dev`.
		PostgresPort: stack.AnyPort, TemporalPort: stack.AnyPort, UIPort: stack.AnyPort,
		Progress: func(text string) {
			fmt.Fprintln(os.Stderr, time.Since(began).Round(time.Millisecond), text)
			s.broadcast(message{Progress: text})
		},
	})
	if err != nil {
		s.end(message{Error: err.Error()})
		return err
	}
	fmt.Fprintln(os.Stderr, time.Since(began).Round(time.Millisecond), "ready")
	// Do not keep the directory of the tests in use.
	_ = os.Chdir("/")
	s.broadcast(message{Ready: &server{
		DatabaseURL:       running.DatabaseURL,
		TemporalAddress:   running.TemporalAddress,
		TemporalNamespace: running.TemporalNamespace,
		Supervisor:        os.Getpid(),
	}})
	removeOldDirs(dir)

	select {
	case <-s.ending:
	case <-ctx.Done():
	case <-running.Done():
		fmt.Fprintln(os.Stderr, running.Err())
	}
	s.end(message{})
	stopCtx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return running.Stop(stopCtx)
}

func (s *supervisor) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		if s.hasEnded {
			s.mu.Unlock()
			_ = conn.Close() // the client will start another supervisor
			continue
		}
		s.users[conn] = true
		s.timer.Stop()
		sendMessage(conn, s.state)
		s.mu.Unlock()
		go func() {
			_, _ = io.Copy(io.Discard, conn) // until the process ends
			s.removeUser(conn)
		}()
	}
}

func (s *supervisor) removeUser(conn *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, conn)
	_ = conn.Close()
	if len(s.users) == 0 {
		s.timer.Reset(s.idle)
	}
}

func (s *supervisor) endIfIdle() {
	s.mu.Lock()
	idle := len(s.users) == 0
	s.mu.Unlock()
	if idle {
		s.end(message{})
	}
}

// broadcast sends a message to all connections, and to later ones.
func (s *supervisor) broadcast(m message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = m
	for conn := range s.users {
		sendMessage(conn, m)
	}
}

// end sends a last message and refuses new connections. Closing the listener removes the socket
// first: a process that connects now finds no socket, or its connection breaks. In
// both cases it starts another supervisor.
func (s *supervisor) end(last message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasEnded {
		return
	}
	s.hasEnded = true
	_ = s.listener.Close()
	for conn := range s.users {
		if last != (message{}) {
			sendMessage(conn, last)
		}
		_ = conn.Close()
	}
	close(s.ending)
}

// sendMessage does not wait long for a process that does not read.
func sendMessage(conn *net.UnixConn, m message) {
	b, err := json.Marshal(m)
	if err != nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second)) // after a deadline that has passed already, nothing would be sent
	_, _ = conn.Write(append(b, '\n'))
}

// removeOldDirs removes the state directories of other versions of this code that
// were unused for a day.
func removeOldDirs(own string) {
	dirs, _ := filepath.Glob(filepath.Join(filepath.Dir(own), fmt.Sprintf("delta-test-%d-*", os.Geteuid())))
	for _, dir := range dirs {
		info, err := os.Stat(filepath.Join(dir, "log"))
		if dir == own || err != nil || time.Since(info.ModTime()) < 24*time.Hour || !isPrivate(dir) {
			continue
		}
		if conn, err := dialSocket(dir); err == nil {
			_ = conn.Close()
			continue
		}
		_ = os.RemoveAll(dir)
	}
}
