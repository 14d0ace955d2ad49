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
	// workPatience and stackPatience are how long a first Ctrl-C waits for running work, and for the servers.
	workPatience  = 5 * time.Second
	stackPatience = 20 * time.Second

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

// demo runs everything until a signal comes, a server dies, or the first pass is over if that is what is asked.
func demo(ctx context.Context, o options, stdout io.Writer) (err error) {
	d := &demonstration{options: o, show: newScreen(stdout)}
	running, stopping, release := interruptible(ctx, d.show)
	defer release()
	// What can be wrong with the input is found before any server starts.
	if err := d.prepare(running); err != nil {
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
		orderly, cancel := context.WithTimeout(stopping, stackPatience)
		defer cancel()
		d.show.setLive("")
		if stopErr := d.servers.Stop(orderly); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("stopping the servers: %w", stopErr))
		}
	}()

	// A server that dies ends the demo, and says why.
	working, cancel := context.WithCancelCause(running)
	defer cancel(nil)
	go func() {
		select {
		case <-d.servers.Done():
			cancel(d.servers.Err())
		case <-working.Done():
		}
	}()

	err = d.keep(working, stopping)
	if cause := d.servers.Err(); cause != nil {
		return cause
	}
	return unlessInterrupted(running, o, err)
}

// prepare reads the input: the go.mod, and whom to ask.
func (d *demonstration) prepare(ctx context.Context) (err error) {
	if d.project, err = findProject(d.modfile, "."); err != nil {
		return err
	}
	if _, err := d.project.modules(); err != nil {
		return err
	}
	settings, err := proxy.ReadSettings(ctx)
	if err != nil {
		return err
	}
	d.proxies, err = proxy.NewClient(settings, d.rate)
	return err
}

// interruptible returns a context that ends with the first Ctrl-C, and one that ends with the second. Both are caught
// from here on, so that none can leave a server behind.
func interruptible(ctx context.Context, show *screen) (running, stopping context.Context, release func()) {
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

// unlessInterrupted makes the end by a signal what it is: what was asked for, unless a pass was and is not over.
func unlessInterrupted(running context.Context, o options, err error) error {
	if err == nil || running.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	if o.once {
		return errors.New("stopped before the first pass was over")
	}
	return nil
}

// stackOptions keep nothing, so that each run shows all of the work. Only where Temporal outlives the run the database
// has to as well, one for each prefix: that Temporal remembers which database its workflows belong to.
func stackOptions(prefix string, progress func(string)) stack.Options {
	options := stack.Options{Ephemeral: true, Progress: progress}
	if dir, err := stack.DefaultDir(); err == nil && stack.ExternalTemporal() {
		options.Ephemeral, options.Dir = false, filepath.Join(dir, "examples-modules-"+url.PathEscape(prefix))
	}
	return options
}

// keep runs the keeper on the servers and shows what it does. It has stopped when this returns.
func (d *demonstration) keep(ctx, stopping context.Context) error {
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
	// Its own end comes with Stop, in order and with patience.
	if err := k.client.Start(context.WithoutCancel(ctx)); errors.Is(err, delta.ErrOtherInstallation) {
		return fmt.Errorf("%w (here: with --prefix)", err)
	} else if err != nil {
		return err
	}
	defer func() {
		d.show.setLive("")
		patient, cancel := context.WithTimeout(stopping, workPatience)
		defer cancel()
		_ = k.client.Stop(patient) // its error says that work was cut short: it is done again next time
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
	}.text(last))
	return v.follow(ctx, last)
}
