// Command peers runs River and DBOS, with which `make bench` compares Delta on the same Postgres, and NATS, alone and as a sink, because its
// dependencies do not belong in Delta's module graph either. `make bench` builds it, gives it an empty database, and sends it an order for each turn; see
// package protocol. Between turns a peer runs no client, so that it does not slow down Delta's turns.
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

// peer is one of these libraries.
type peer interface {
	// describeSettings describes the peer's settings.
	describeSettings() string
	// runTurn runs one turn and returns its duration. It removes the rows of the turn afterwards, outside of that time.
	runTurn(ctx context.Context, order protocol.Order) (time.Duration, error)
}

// options has the flags.
type options struct {
	peer        string
	databaseURL string
	connections int
}

// starts has the peers by name, with their modules.
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

// run answers orders until the input ends.
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
	if err := lines.Encode(protocol.Hello{Version: moduleVersion(of.module), Settings: p.describeSettings()}); err != nil {
		return err
	}
	return answerOrders(ctx, p, lines, orders)
}

// answerOrders runs a turn for each order. It answers a failed turn with the error, because the benchmark decides what to do.
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
		took, err := p.runTurn(ctx, order)
		answer := protocol.Answer{Took: took}
		if err != nil {
			answer.Error = err.Error()
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

// moduleVersion returns the version of a module that this program was built with.
func moduleVersion(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return dependency.Version
			}
		}
	}
	return "(unknown version)"
}
