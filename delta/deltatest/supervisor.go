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

// init turns this process into the supervisor when it was started as one. It
// has to happen here: a test binary has no other place that comes before the
// tests and that its author does not have to remember.
func init() {
	dir := os.Getenv(superviseVariable)
	if dir == "" {
		return
	}
	if err := supervise(dir); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// supervisor runs the servers for as long as somebody is connected to it.
type supervisor struct {
	listener *net.UnixListener
	idle     time.Duration

	mu     sync.Mutex
	users  map[*net.UnixConn]bool
	state  message // what a newcomer is told
	timer  *time.Timer
	over   bool
	ending chan struct{}
}

func supervise(dir string) error {
	_ = os.Unsetenv(superviseVariable) // not for the servers
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
	// The process that has started this one is about to come, however short the idle time is.
	s.timer = time.AfterFunc(max(idle, defaultIdle), s.endIfIdle)
	go s.accept()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	began := time.Now()
	running, err := stack.Start(ctx, stack.Options{
		Ephemeral: true,
		// The usual ports stay free for `delta dev`.
		PostgresPort: stack.AnyPort, TemporalPort: stack.AnyPort, UIPort: stack.AnyPort,
		Progress: func(text string) {
			fmt.Fprintln(os.Stderr, time.Since(began).Round(time.Millisecond), text)
			s.tell(message{Progress: text})
		},
	})
	if err != nil {
		s.end(message{Error: err.Error()})
		return err
	}
	fmt.Fprintln(os.Stderr, time.Since(began).Round(time.Millisecond), "ready")
	// The directory that the tests run in is not ours to keep in use.
	_ = os.Chdir("/")
	s.tell(message{Ready: &server{
		DatabaseURL:       running.DatabaseURL,
		TemporalAddress:   running.TemporalAddress,
		TemporalNamespace: running.TemporalNamespace,
		Supervisor:        os.Getpid(),
	}})
	removeOld(dir)

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
		if s.over {
			s.mu.Unlock()
			_ = conn.Close() // it will start another supervisor
			continue
		}
		s.users[conn] = true
		s.timer.Stop()
		send(conn, s.state)
		s.mu.Unlock()
		go func() {
			_, _ = io.Copy(io.Discard, conn) // until the process is gone
			s.leave(conn)
		}()
	}
}

func (s *supervisor) leave(conn *net.UnixConn) {
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

// tell sends a message to everybody, and to those who come later.
func (s *supervisor) tell(m message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = m
	for conn := range s.users {
		send(conn, m)
	}
}

// end says a last word and lets nobody in any more. Closing removes the socket
// before it stops to listen: who comes now finds none, or is cut off, and in
// both cases starts another supervisor.
func (s *supervisor) end(last message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	_ = s.listener.Close()
	for conn := range s.users {
		if last != (message{}) {
			send(conn, last)
		}
		_ = conn.Close()
	}
	close(s.ending)
}

// send never waits for long for a process that does not read.
func send(conn *net.UnixConn, m message) {
	b, err := json.Marshal(m)
	if err != nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = conn.Write(append(b, '\n'))
}

// removeOld removes the meeting places of other versions of this code that
// nobody has used for a day.
func removeOld(own string) {
	dirs, _ := filepath.Glob(filepath.Join(filepath.Dir(own), fmt.Sprintf("delta-test-%d-*", os.Geteuid())))
	for _, dir := range dirs {
		info, err := os.Stat(filepath.Join(dir, "log"))
		if dir == own || err != nil || time.Since(info.ModTime()) < 24*time.Hour || !private(dir) {
			continue
		}
		if conn, err := dial(dir); err == nil {
			_ = conn.Close()
			continue
		}
		_ = os.RemoveAll(dir)
	}
}
