// Package stack starts, waits for, and stops the two servers that Delta needs:
// a private Postgres cluster and a Temporal development server with its UI.
// It is the one piece of code behind `delta dev`, `make demo` and the public
// test kit [github.com/chariot-giving/delta/delta/deltatest].
//
// Either half can be replaced by a server that already runs: DELTA_DATABASE_URL
// names a Postgres, TEMPORAL_ADDRESS (with the rest of the Temporal SDK's
// environment configuration) a Temporal. Nothing is started for that half.
//
// Binaries are looked up on this machine, and downloaded if there are none.
// DELTA_TEMPORAL_SERVER names the program that serves Temporal, either a temporal
// command or the delta-temporal of tools/delta-temporal, and
// DELTA_POSTGRES_REPOSITORY a mirror of Maven Central to download Postgres from.
//
// # What a directory holds
//
//	delta.lock       held (flock) by the process that runs this stack; its pid inside
//	ports.json       the ports of the last run, tried again when the usual ones are taken
//	postgres.pid     pid and command line of our Postgres, for recovery
//	postgres.log     its output
//	postgres/data    the cluster
//	temporal.pid, temporal.log
//	temporal-1.32.db the store of a server of that version; files of other versions
//	                 are left alone, because SQLite stores are not migrated. Delta
//	                 rebuilds its workflows in an empty store from its rows.
//
// # No process stays behind
//
// The servers run in separate process groups, so that Ctrl-C in a terminal reaches
// only this process, which stops them in order. On Linux the kernel ends them if
// this process is killed (Pdeathsig). Everywhere, the next start on the same
// directory finds servers that a killed run has left (by the pid files, checked
// against the command line of the live process) and stops them first.
package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
)

// Default ports, as in the guide and in the Temporal CLI.
const (
	DefaultPostgresPort = 5431
	DefaultTemporalPort = 7233
	DefaultUIPort       = 8233
	// AnyPort means any free port.
	AnyPort = -1
)

// Options says where and how to run a stack. The zero value is useful.
type Options struct {
	// Dir is the directory of data, logs and pid files. It is created if missing.
	// Default: [DefaultDir]. With Ephemeral it is only the parent of a
	// temporary directory, and the default is [os.TempDir].
	Dir string
	// Ephemeral keeps nothing: a temporary directory, removed by Stop,
	// Temporal in memory, and a Postgres that does not wait for the disk.
	// Default: false, data survives a restart.
	Ephemeral bool
	// PostgresPort, TemporalPort and UIPort are the preferred ports. If one is
	// taken, the port of the last run is used, otherwise any free one; with
	// [AnyPort] always any free one. Default: 5431, 7233 and 8233.
	PostgresPort, TemporalPort, UIPort int
	// TemporalSettings are dynamic configuration of Temporal as key=JSON. They add to
	// Delta's own settings and override them. Default: none.
	TemporalSettings []string
	// Progress is called with the binaries that were found and, every few seconds,
	// with the reason why a start is slow. It is never called concurrently. Default:
	// none.
	Progress func(message string)
}

func (o Options) withDefaults() (Options, error) {
	if o.PostgresPort == 0 {
		o.PostgresPort = DefaultPostgresPort
	}
	if o.TemporalPort == 0 {
		o.TemporalPort = DefaultTemporalPort
	}
	if o.UIPort == 0 {
		o.UIPort = DefaultUIPort
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Dir == "" && !o.Ephemeral {
		dir, err := DefaultDir()
		if err != nil {
			return o, err
		}
		o.Dir = dir
	}
	for _, server := range []struct {
		name string
		port int
	}{{"Postgres", o.PostgresPort}, {"Temporal", o.TemporalPort}, {"UI", o.UIPort}} {
		if server.port != AnyPort && (server.port < 1 || server.port > 65535) {
			return o, fmt.Errorf("%s port %d is not between 1 and 65535", server.name, server.port)
		}
	}
	return o, nil
}

// Stack is a running Postgres and a running Temporal.
type Stack struct {
	// DatabaseURL connects to the database.
	DatabaseURL string
	// TemporalAddress is the host and port of Temporal's frontend.
	TemporalAddress string
	// TemporalNamespace is the namespace to work in.
	TemporalNamespace string
	// UIURL is the address of Temporal's UI; empty for a Temporal that the stack has
	// not started.
	UIURL string
	// Dir is the directory of data and logs; empty if nothing was started.
	Dir string
	// PostgresBin is the directory of the Postgres binaries; empty for a server that
	// the stack has not started.
	PostgresBin string

	opts     Options
	home     *home
	ports    *portChooser
	progress sync.Mutex

	mu       sync.Mutex
	children []*child
	stopping bool
	err      error
	done     chan struct{}
	doneOnce sync.Once
	stopOnce sync.Once
	stopErr  error
}

// Start starts the stack and returns when both servers serve. If it fails, or ctx ends first, it stops everything that it has started.
func Start(ctx context.Context, opts Options) (*Stack, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Stack{opts: opts, done: make(chan struct{})}
	postgres, temporal := s.startPostgres, s.startTemporal
	_, databaseGiven := ExternalDatabase()
	if databaseGiven {
		postgres = s.useDatabase
	}
	temporalGiven := ExternalTemporal()
	if temporalGiven {
		temporal = s.useTemporal
	}
	return s.start(ctx, !databaseGiven || !temporalGiven, postgres, temporal)
}

// StartTemporal starts a Temporal without a Postgres, and ignores the environment. It is for tests that stop a server, wipe it, or need special settings.
func StartTemporal(ctx context.Context, opts Options) (*Stack, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Stack{opts: opts, done: make(chan struct{})}
	return s.start(ctx, true, s.startTemporal)
}

// StartPostgres starts a Postgres without a Temporal, and ignores the environment. It is for tests that stop a server, and put back its data.
func StartPostgres(ctx context.Context, opts Options) (*Stack, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Stack{opts: opts, done: make(chan struct{})}
	return s.start(ctx, true, s.startPostgres)
}

// start starts the given parts. A part that starts a server needs a home.
func (s *Stack) start(ctx context.Context, needsHome bool, parts ...func(context.Context) error) (_ *Stack, err error) {
	if needsHome {
		if err := checkSystem(); err != nil {
			return nil, err
		}
		if s.home, err = openHome(s.opts); err != nil {
			return nil, err
		}
		s.Dir = s.home.dir
		s.ports = newPortChooser(s.home.portsFile())
	}

	// The two servers start in parallel, because they do not depend on each other.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	for _, part := range parts {
		wait.Go(func() {
			if err := part(ctx); err != nil {
				cancel(err) // the first cause wins, and ends the other part
			}
		})
	}
	wait.Wait()

	if cause := context.Cause(ctx); cause != nil {
		// A cancelled start still has to clean up.
		stopCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer stop()
		return nil, errors.Join(cause, s.Stop(stopCtx))
	}
	if s.home != nil {
		s.ports.savePorts()
	}
	return s, nil
}

// Done is closed when a server has ended by itself (then Err says why) or
// after Stop.
func (s *Stack) Done() <-chan struct{} { return s.done }

// Err returns the reason why a server has ended by itself, or nil.
func (s *Stack) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stop ends both servers and waits until they have ended. When ctx ends, it kills them: no process stays in any case. Stopping twice is harmless.
func (s *Stack) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		s.mu.Lock()
		s.stopping = true
		children := s.children
		s.mu.Unlock()

		errs := make([]error, len(children))
		var wait sync.WaitGroup
		for i, c := range children {
			wait.Go(func() { errs[i] = c.stop(ctx) })
		}
		wait.Wait()
		if s.home != nil {
			errs = append(errs, s.home.close())
		}
		s.stopErr = errors.Join(errs...)
		s.doneOnce.Do(func() { close(s.done) })
	})
	return s.stopErr
}

// ClientOptions returns the options to dial this stack's Temporal, with TLS and API key if the environment names it.
func (s *Stack) ClientOptions() (client.Options, error) {
	return ClientOptions(s.TemporalAddress, s.TemporalNamespace)
}

// adoptChild adds c to the stack, so that Stop stops it, and its death ends the stack. It returns an error if Stop has begun, so that no process is
// left running.
func (s *Stack) adoptChild(c *child) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return errors.New("the stack is being stopped")
	}
	s.children = append(s.children, c)
	go func() {
		<-c.done
		if c.stopping.Load() {
			return
		}
		s.mu.Lock()
		if s.err == nil {
			s.err = fmt.Errorf("%s ended by itself: %w", c.name, c.describeEnd())
		}
		s.mu.Unlock()
		s.doneOnce.Do(func() { close(s.done) })
	}()
	return nil
}

func (s *Stack) reportProgress(format string, args ...any) {
	s.progress.Lock()
	defer s.progress.Unlock()
	s.opts.Progress(fmt.Sprintf(format, args...))
}

func (s *Stack) reportPort(name string, preferred, got int) {
	if preferred != AnyPort && preferred != got {
		s.reportProgress("port %d is taken: %s is on %d", preferred, name, got)
	}
}

// reportWaiting reports what the start waits for after a second, and again every five, until the returned function is called.
func (s *Stack) reportWaiting(what string) (stop func()) {
	over := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		began := time.Now()
		timer := time.NewTimer(time.Second)
		defer timer.Stop()
		for {
			select {
			case <-over:
				return
			case <-timer.C:
				s.reportProgress("waiting for %s (%s)", what, time.Since(began).Round(time.Second))
				timer.Reset(5 * time.Second)
			}
		}
	})
	return func() { close(over); wait.Wait() }
}

// cleanEnv returns the environment without variables that have one of the prefixes, because variables such as PGPORT would configure the server.
func cleanEnv(prefixes ...string) []string {
	var kept []string
next:
	for _, entry := range os.Environ() {
		for _, prefix := range prefixes {
			if strings.HasPrefix(entry, prefix) {
				continue next
			}
		}
		kept = append(kept, entry)
	}
	return kept
}
