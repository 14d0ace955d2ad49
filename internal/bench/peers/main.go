// Command peers runs what Delta is compared with on the same Postgres: River and DBOS, and what needs their like of dependencies: NATS, alone and as a sink. `make bench` builds it, gives it an empty
// database, and sends it an order for each turn; see package protocol. Between turns a peer has no client running, so it is no load on
// Delta's turns.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// peer is one of them.
type peer interface {
	// settings says how it is set up.
	settings() string
	// turn does its part once and says how long that took. What it wrote is removed afterwards, outside of that time.
	turn(ctx context.Context, order protocol.Order) (time.Duration, error)
}

// options are the flags.
type options struct {
	peer        string
	databaseURL string
	connections int
}

// starts are the peers by name, with the modules that they are in.
var starts = map[string]struct {
	module string
	start  func(context.Context, options, *pgxpool.Pool, *slog.Logger) (peer, error)
}{
	"river": {"github.com/riverqueue/river", startRiver},
	"dbos":  {"github.com/dbos-inc/dbos-transact-golang", startDBOS},
	"nats":  {"github.com/nats-io/nats.go", startNATS},
	"log":   {"github.com/chariot-giving/delta", startLog},
}

func main() {
	var o options
	flag.StringVar(&o.peer, "peer", "", "river, dbos, nats, or log for the log of changes as a source of NATS")
	flag.StringVar(&o.databaseURL, "database-url", "", "an empty database for it")
	flag.IntVar(&o.connections, "connections", 16, "connections to Postgres that it may have")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// run answers orders until there are no more.
func run(ctx context.Context, o options, orders io.Reader, answers io.Writer) (err error) {
	of, known := starts[o.peer]
	if !known {
		return fmt.Errorf("-peer %q: it must be river, dbos, nats or log", o.peer)
	}
	config, err := pgxpool.ParseConfig(o.databaseURL)
	if err != nil {
		return fmt.Errorf("-database-url: %w", err)
	}
	config.MaxConns = int32(o.connections)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p, err := of.start(ctx, o, pool, logger)
	if err != nil {
		return fmt.Errorf("%s: %w", o.peer, err)
	}

	if c, closes := p.(io.Closer); closes {
		defer func() { err = errors.Join(err, c.Close()) }()
	}

	lines := json.NewEncoder(answers)
	if err := lines.Encode(protocol.Hello{Version: version(of.module), Settings: p.settings()}); err != nil {
		return err
	}
	return answerOrders(ctx, p, lines, orders)
}

// answerOrders has a peer do a turn for each order. One that fails is answered, too: the benchmark decides what that means.
func answerOrders(ctx context.Context, p peer, answers *json.Encoder, orders io.Reader) error {
	decoder := json.NewDecoder(orders)
	for {
		var order protocol.Order
		switch err := decoder.Decode(&order); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading an order: %w", err)
		}
		took, err := p.turn(ctx, order)
		answer := protocol.Answer{Took: took}
		if err != nil {
			answer.Error = err.Error()
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

// version is that of a module which this program was built with.
func version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return dependency.Version
			}
		}
	}
	return "(unknown version)"
}
