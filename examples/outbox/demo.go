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

// stopTimeout is how long the servers may take to stop, and NATS may take to start.
const stopTimeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	once := os.Getenv("DEMO_ONCE")
	if err := runDemo(ctx, "delta", once != "" && once != "0", os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "outbox:", err)
		os.Exit(1)
	}
}

// runDemo starts the servers, and shows the program at work on them until the context ends or, if once is set, the first payments are followed to their end. The
// ids of workflows begin with prefix.
func runDemo(ctx context.Context, prefix string, once bool, out io.Writer) (err error) {
	_, _ = fmt.Fprintln(out, "Starting Postgres, Temporal and NATS…")
	servers, err := stack.Start(ctx, stack.Options{Ephemeral: true, Progress: func(message string) { _, _ = fmt.Fprintln(out, "  "+message) }})
	if err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
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
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		_ = c.Stop(stopping) // an error means that work was cut short, which the next run repeats
	}()
	if !once {
		address, closeConsole, err := localconsole.Serve(ctx, c, localconsole.DefaultPort, servers.UIURL, servers.TemporalNamespace)
		if err != nil {
			return err
		}
		defer closeConsole()
		_, _ = fmt.Fprintln(out, "Console: "+address)
	}
	return showPayments(ctx, c, pool, js, once, out)
}

// connectNATS connects to the server at NATS_URL, or starts one in this process.
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
		if !s.ReadyForConnections(stopTimeout) {
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

// showPayments makes payments, and prints the published outcomes.
func showPayments(ctx context.Context, c *delta.Client, pool *pgxpool.Pool, js jetstream.JetStream, once bool, out io.Writer) error {
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
		err := followOutcomes(ctx, stream, map[string]int64{}, func(entry changelog.Entry) {
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
	if err := playFirstPayments(ctx, c, pool, hear); err != nil || once {
		return err
	}
	_, _ = fmt.Fprintln(out, "A payment follows every two seconds, until Ctrl-C.")
	for i := 1; ; i++ {
		if err := savePayment(ctx, c, pool, payment{fmt.Sprintf("more_%d", i), int64(i * 100)}); err != nil {
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

// playFirstPayments makes one payment that is paid, changed and removed, and one that the bank refuses. Each step begins after the outcome of the one before was
// received.
func playFirstPayments(ctx context.Context, c *delta.Client, pool *pgxpool.Pool, hear func() (changelog.Entry, error)) error {
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
		{func() error { return savePayment(ctx, c, pool, payment{"pay_1", 1200}) }, delta.ChangeCreated},
		{func() error { return savePayment(ctx, c, pool, payment{"pay_1", 1500}) }, delta.ChangeUpdated},
		{func() error { return savePayment(ctx, c, pool, payment{"pay_2", -1}) }, delta.ChangeFailed},
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
			return fmt.Errorf("received %s of %s, and not %s", entry.Type, entry.ObjectID, step.hear)
		}
	}
	return nil
}
