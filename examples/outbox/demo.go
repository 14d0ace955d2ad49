package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/localconsole"
	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/sinks/changelog"
)

// stopPatience is how long the servers may take to stop, and NATS to start.
const stopPatience = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	once := os.Getenv("DEMO_ONCE")
	if err := demo(ctx, "delta", once != "" && once != "0", os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "outbox:", err)
		os.Exit(1)
	}
}

// demo brings the servers, and shows the program at work on them until the context ends, or, once, the first payments were followed to their end. The
// ids of workflows begin with prefix.
func demo(ctx context.Context, prefix string, once bool, out io.Writer) (err error) {
	_, _ = fmt.Fprintln(out, "Starting Postgres, Temporal and NATS…")
	servers, err := stack.Start(ctx, stack.Options{Ephemeral: true, Progress: func(message string) { _, _ = fmt.Fprintln(out, "  "+message) }})
	if err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		err = errors.Join(err, servers.Stop(stopping))
	}()
	js, closeNATS, err := connectNATS()
	if err != nil {
		return err
	}
	defer closeNATS()
	pool, err := pgxpool.New(ctx, servers.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := delta.Migrate(ctx, pool); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, schema); err != nil {
		return err
	}
	options, err := servers.ClientOptions()
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	options.Logger = delta.TemporalLogger(logger)
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		return err
	}
	defer temporal.Close()
	controllers := delta.NewControllers()
	delta.AddController(controllers, payments{})
	c, err := delta.NewClient(pool, &delta.Config{Controllers: controllers, Temporal: temporal, TemporalNamespace: servers.TemporalNamespace, WorkflowIDPrefix: prefix, Logger: logger})
	if err != nil {
		return err
	}
	if err := c.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		_ = c.Stop(stopping) // its error says that work was cut short: it is done again next time
	}()
	if !once {
		address, closeConsole, err := localconsole.Serve(ctx, c, localconsole.DefaultPort, servers.UIURL, servers.TemporalNamespace)
		if err != nil {
			return err
		}
		defer closeConsole()
		_, _ = fmt.Fprintln(out, "Console: "+address)
	}
	return show(ctx, c, pool, js, once, out)
}

// connectNATS connects to the server of NATS_URL, or to one in this process.
func connectNATS() (js jetstream.JetStream, closeAll func(), err error) {
	address, stop := os.Getenv("NATS_URL"), func() {}
	if address == "" {
		folder, err := os.MkdirTemp("", "delta-outbox-")
		if err != nil {
			return nil, nil, err
		}
		s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: folder, NoSigs: true, NoLog: true})
		if err != nil {
			return nil, nil, errors.Join(err, os.RemoveAll(folder))
		}
		s.Start()
		stop = func() { s.Shutdown(); s.WaitForShutdown(); _ = os.RemoveAll(folder) }
		if !s.ReadyForConnections(stopPatience) {
			stop()
			return nil, nil, errors.New("NATS does not start")
		}
		address = s.ClientURL()
	}
	connection, err := nats.Connect(address, nats.MaxReconnects(-1))
	if err != nil {
		stop()
		return nil, nil, err
	}
	closeAll = func() { connection.Close(); stop() }
	if js, err = jetstream.New(connection); err != nil {
		closeAll()
		return nil, nil, err
	}
	return js, closeAll, nil
}

// show pays, and prints what is heard of the payments.
func show(ctx context.Context, c *delta.Client, pool *pgxpool.Pool, js jetstream.JetStream, once bool, out io.Writer) error {
	stream, err := newStream(ctx, js)
	if err != nil {
		return err
	}
	relay, err := newRelay(c, js)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	running.Go(func() {
		if err := relay.Run(ctx); err != nil {
			cancel(fmt.Errorf("the relay: %w", err))
		}
	})
	heard := make(chan changelog.Entry)
	running.Go(func() {
		err := follow(ctx, stream, map[string]int64{}, func(entry changelog.Entry) {
			select {
			case heard <- entry:
			case <-ctx.Done():
			}
		})
		if err != nil {
			cancel(fmt.Errorf("the follower: %w", err))
		}
	})
	hear := func() (changelog.Entry, error) {
		select {
		case entry := <-heard:
			_, _ = fmt.Fprintf(out, "%-9s %-7s %s → %s %s\n", entry.Type, entry.ObjectID, entry.Before, entry.After, entry.Error)
			return entry, nil
		case <-ctx.Done():
			return changelog.Entry{}, context.Cause(ctx)
		}
	}
	if err := first(ctx, c, pool, hear); err != nil || once {
		return err
	}
	_, _ = fmt.Fprintln(out, "A payment follows every two seconds, until Ctrl-C.")
	for i := 1; ; i++ {
		if err := pay(ctx, c, pool, payment{fmt.Sprintf("more_%d", i), int64(i * 100)}); err != nil {
			return err
		}
		if _, err := hear(); err != nil {
			return err
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// first makes one payment that is paid, changed and removed, and one that the bank refuses, each step when the one before was heard of.
func first(ctx context.Context, c *delta.Client, pool *pgxpool.Pool, hear func() (changelog.Entry, error)) error {
	remove := func() error {
		if _, err := pool.Exec(ctx, "DELETE FROM payment WHERE id = $1", "pay_1"); err != nil {
			return err
		}
		_, err := c.Delete(ctx, "payment", "pay_1")
		return err
	}
	for _, step := range []struct {
		do   func() error
		hear delta.ChangeType
	}{
		{func() error { return pay(ctx, c, pool, payment{"pay_1", 1200}) }, delta.ChangeCreated},
		{func() error { return pay(ctx, c, pool, payment{"pay_1", 1500}) }, delta.ChangeUpdated},
		{func() error { return pay(ctx, c, pool, payment{"pay_2", -1}) }, delta.ChangeFailed},
		{remove, delta.ChangeDeleted},
	} {
		if err := step.do(); err != nil {
			return err
		}
		entry, err := hear()
		if err != nil {
			return err
		}
		if entry.Type != string(step.hear) {
			return fmt.Errorf("%s of %s was heard, and not %s", entry.Type, entry.ObjectID, step.hear)
		}
	}
	return nil
}
