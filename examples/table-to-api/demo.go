package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/bridge"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/localconsole"
	"github.com/chariot-giving/delta/internal/stack"
)

// acts are the shop's changes of the table, in order. The shop knows nothing of the provider.
var acts = []struct{ says, sql string }{
	{"three customers sign up", `INSERT INTO customer VALUES ('ann', 'ann@example.com', 'free'), ('bob', 'bob@example.com', 'free'), ('eve', 'eve@example.com', 'team')`},
	{"ann buys a plan, and eve leaves", `WITH bought AS (UPDATE customer SET plan = 'team' WHERE id = 'ann') DELETE FROM customer WHERE id = 'eve'`},
	{"a hundred more at once", `INSERT INTO customer SELECT 'user-' || x, 'user-' || x || '@example.com', 'free' FROM generate_series(1, 100) x ON CONFLICT DO NOTHING`},
	{"all of these leave", `DELETE FROM customer WHERE id LIKE 'user-%'`},
}

const (
	// demoQuota is the number of calls that the demo's provider accepts before it refuses calls for demoPause.
	demoQuota = 25
	demoPause = time.Second
	// stopTimeout is how long the servers may take to stop.
	stopTimeout = 20 * time.Second
)

// runDemo starts Postgres, Temporal and a provider, writes the table, and shows that the provider follows. It keeps no data. With DEMO_ONCE=1 it ends after that;
// otherwise it goes on until ctx ends, so that the table can be changed by hand.
func runDemo(ctx context.Context, out io.Writer) (err error) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	for _, name := range []string{"DELTA_DATABASE_URL", "TEMPORAL_ADDRESS"} { // ignore these servers, because they may have somebody's data
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	say("Starting Postgres and Temporal…")
	servers, err := stack.Start(ctx, stack.Options{Ephemeral: true, Progress: func(message string) { say("  %s", message) }})
	if err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		err = errors.Join(err, servers.Stop(stopping))
	}()
	pool, err := pgxpool.New(ctx, servers.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
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

	outside := newFakeProvider(demoQuota, demoPause)
	address, closeProvider, err := serveProvider(ctx, outside)
	if err != nil {
		return err
	}
	defer closeProvider()
	following, stop := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() {
		followed <- followTable(following, pool, bridge.TableConfig[customer]{Table: "customer"}, address, delta.Config{Temporal: temporal, Logger: logger})
	}()
	d := demonstration{pool: pool, outside: outside, followed: followed, say: say}
	err = d.playActs(ctx)
	if err == nil && os.Getenv("DEMO_ONCE") == "" {
		consoleAddress, closeConsole, consoleErr := serveConsole(ctx, pool, temporal, logger, servers)
		if consoleErr != nil {
			stop()
			return errors.Join(consoleErr, <-followed)
		}
		defer closeConsole()
		say("\nWrite the table yourself, and look at the provider, and at the console:\n  psql %q\n  curl %s/customers\n  %s\nCtrl-C ends.", servers.DatabaseURL, address,
			consoleAddress)
		select {
		case <-ctx.Done():
		case err = <-followed:
			followed <- nil
		}
	}
	stop()
	err = errors.Join(err, <-followed)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C is the normal end
	}
	return err
}

// serveConsole serves the console of a client that is not started.
func serveConsole(ctx context.Context, pool *pgxpool.Pool, temporal client.Client, logger *slog.Logger, servers *stack.Stack) (address string, stop func(), err error) {
	c, err := delta.NewClient(pool, &delta.Config{Temporal: temporal, TemporalNamespace: servers.TemporalNamespace, Logger: logger})
	if err != nil {
		return "", nil, err
	}
	return localconsole.Serve(ctx, c, localconsole.DefaultPort, servers.UIURL, servers.TemporalNamespace)
}

// serveProvider serves the provider on any free port.
func serveProvider(ctx context.Context, provider *fakeProvider) (address string, stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: provider, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }() // it returns when stop closes the server
	return "http://" + listener.Addr().String(), func() { _ = server.Close() }, nil
}

// demonstration plays the shop, and compares the provider with the table.
type demonstration struct {
	pool     *pgxpool.Pool
	outside  *fakeProvider
	followed chan error
	say      func(format string, args ...any)
}

// playActs runs the acts in order. After each it waits until the provider equals the table.
func (d *demonstration) playActs(ctx context.Context) error {
	for _, act := range acts {
		d.say("\n%s:\n  %s", act.says, act.sql)
		before := d.outside.countRefused()
		if _, err := d.pool.Exec(ctx, act.sql); err != nil {
			return err
		}
		began := time.Now()
		customers, err := d.awaitEqual(ctx)
		if err != nil {
			return err
		}
		d.say("the provider has what the table has: %d customers, %s later; it has refused %d calls, since they were too many", customers,
			time.Since(began).Round(time.Millisecond), d.outside.countRefused()-before)
	}
	return nil
}

// awaitEqual waits until the provider equals the table.
func (d *demonstration) awaitEqual(ctx context.Context) (customers int, err error) {
	for {
		want, err := readTable(ctx, d.pool)
		if err != nil {
			return 0, err
		}
		if maps.Equal(want, d.outside.copyCustomers()) {
			return len(want), nil
		}
		select {
		case err := <-d.followed:
			d.followed <- nil
			return 0, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// readTable reads the customers of the table.
func readTable(ctx context.Context, pool *pgxpool.Pool) (map[string]customer, error) {
	rows, err := pool.Query(ctx, "SELECT id, email, plan FROM customer")
	if err != nil {
		return nil, err
	}
	all := map[string]customer{}
	var c customer
	_, err = pgx.ForEachRow(rows, []any{&c.CustomerID, &c.Email, &c.Plan}, func() error { all[c.CustomerID] = c; return nil })
	return all, err
}
