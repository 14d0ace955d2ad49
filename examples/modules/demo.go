package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/examples/modules/proxy"
	"github.com/chariot-giving/delta/internal/localconsole"
	"github.com/chariot-giving/delta/internal/stack"
)

const (
	// workTimeout and stackTimeout are how long running work and the servers may take to stop after the first Ctrl-C.
	workTimeout  = 5 * time.Second
	stackTimeout = 20 * time.Second

	maxConns = 16
)

// demonstration is one run of the program.
type demonstration struct {
	options
	show    *screen
	project project
	proxies *proxy.Client
	servers *stack.Stack
}

// runDemo runs everything until a signal arrives, a server dies or, with DEMO_ONCE, the first pass is over.
func runDemo(ctx context.Context, o options, stdout io.Writer) (err error) {
	d := &demonstration{options: o, show: newScreen(stdout)}
	running, stopping, release := catchInterrupts(ctx, d.show)
	defer release()
	// Check the input before any server starts.
	if err := d.readInput(running); err != nil {
		return err
	}
	defer d.proxies.Close()

	d.show.printf("Starting Postgres and Temporal…\n")
	d.servers, err = stack.Start(running, stackOptions(o.prefix, func(message string) {
		d.show.printf("%s%s\n", indent, message)
	}))
	if err != nil {
		return unlessInterrupted(running, o, err)
	}
	defer func() {
		orderly, cancel := context.WithTimeout(stopping, stackTimeout)
		defer cancel()
		d.show.setLive("")
		if stopErr := d.servers.Stop(orderly); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("stopping the servers: %w", stopErr))
		}
	}()

	// If a server dies, the demo ends with its error.
	working, cancel := context.WithCancelCause(running)
	defer cancel(nil)
	go func() {
		select {
		case <-d.servers.Done():
			cancel(d.servers.Err())
		case <-working.Done():
		}
	}()

	err = d.runKeeper(working, stopping)
	if cause := d.servers.Err(); cause != nil {
		return cause
	}
	return unlessInterrupted(running, o, err)
}

// readInput reads the go.mod, and the settings of proxies.
func (d *demonstration) readInput(ctx context.Context) (err error) {
	if d.project, err = findProject(d.modfile, "."); err != nil {
		return err
	}
	if _, err := d.project.readModules(); err != nil {
		return err
	}
	settings, err := proxy.ReadSettings(ctx)
	if err != nil {
		return err
	}
	d.proxies, err = proxy.NewClient(settings, d.rate)
	return err
}

// catchInterrupts returns a context that ends with the first Ctrl-C, and one that ends with the second. Both are caught from here on, so that neither leaves
// a server running.
func catchInterrupts(ctx context.Context, show *screen) (running, stopping context.Context, release func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	running, interrupt := context.WithCancel(ctx)
	stopping, kill := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		select {
		case <-signals:
			show.setLive("")
			show.printf("\nStopping (Ctrl-C again kills)…\n")
			interrupt()
		case <-stopping.Done():
			return
		}
		select {
		case <-signals:
			show.printf("\nKilling…\n")
			kill()
		case <-stopping.Done():
		}
	}()
	return running, stopping, func() { signal.Stop(signals); interrupt(); kill() }
}

// unlessInterrupted returns nil after a signal, because that is the normal end, unless a first pass was requested and is not over.
func unlessInterrupted(running context.Context, o options, err error) error {
	if err == nil || running.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	if o.once {
		return errors.New("stopped before the first pass was over")
	}
	return nil
}

// stackOptions keeps no data, so that each run shows all of the work. If TEMPORAL_ADDRESS names a Temporal that outlives the run, the database has to be kept
// too, one for each prefix, because that Temporal remembers which database its workflows belong to.
func stackOptions(prefix string, progress func(string)) stack.Options {
	options := stack.Options{Ephemeral: true, Progress: progress}
	if dir, err := stack.DefaultDir(); err == nil && stack.ExternalTemporal() {
		options.Ephemeral, options.Dir = false, filepath.Join(dir, "examples-modules-"+url.PathEscape(prefix))
	}
	return options
}

// runKeeper runs the keeper on the servers and shows its work. The keeper has stopped when runKeeper returns.
func (d *demonstration) runKeeper(ctx, stopping context.Context) error {
	logger := slog.New(slog.NewTextHandler(d.show, &slog.HandlerOptions{Level: slog.LevelWarn}))
	config, err := pgxpool.ParseConfig(d.servers.DatabaseURL)
	if err != nil {
		return err
	}
	config.MaxConns = max(config.MaxConns, maxConns)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	dial, err := d.servers.ClientOptions()
	if err != nil {
		return err
	}
	dial.Logger = delta.TemporalLogger(logger)
	temporal, err := client.DialContext(ctx, dial)
	if err != nil {
		return fmt.Errorf("reaching Temporal at %s: %w", d.servers.TemporalAddress, err)
	}
	defer temporal.Close()

	k, err := newKeeper(ctx, keeperConfig{
		pool: pool, temporal: temporal, logger: logger, prefix: d.prefix,
		project: d.project, proxy: d.proxies, every: d.every, rate: d.rate, listEvery: listEvery,
	})
	if err != nil {
		return err
	}
	// The client ends by Stop, which waits for running work.
	if err := k.client.Start(context.WithoutCancel(ctx)); errors.Is(err, delta.ErrOtherInstallation) {
		return fmt.Errorf("%w (here: with --prefix)", err)
	} else if err != nil {
		return err
	}
	defer func() {
		d.show.setLive("")
		patient, cancel := context.WithTimeout(stopping, workTimeout)
		defer cancel()
		_ = k.client.Stop(patient) // an error means that work was cut short, which the next run repeats
	}()

	console, closeConsole, err := localconsole.Serve(ctx, k.client, localconsole.DefaultPort, d.servers.UIURL, d.servers.TemporalNamespace)
	if err != nil {
		return fmt.Errorf("serving the console: %w", err)
	}
	defer closeConsole()
	v := &viewer{keeper: k, show: d.show, proxies: d.proxies.List().String()}
	last, err := v.firstPass(ctx)
	if err != nil || d.once {
		return err
	}
	d.show.printf("%s", hints{
		tools: tools{temporal: stack.TemporalCommand(), postgresDir: d.servers.PostgresBin}, databaseURL: d.servers.DatabaseURL, console: console, ui: d.servers.UIURL, address: d.servers.TemporalAddress,
		namespace: d.servers.TemporalNamespace, prefix: d.prefix, every: d.every,
	}.renderText(last))
	return v.followChanges(ctx, last)
}
