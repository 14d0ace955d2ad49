// Command overhead does the same work with and without telemetry. `make bench` builds it and runs one process of each kind, in turns, on the same Postgres and
// Temporal: see package protocol of internal/bench. It is in this module because the root module, which has the benchmarks, does not require OpenTelemetry.
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
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/bench/protocol"
)

// options has the flags.
type options struct {
	measured          string
	databaseURL       string
	connections       int
	temporalAddress   string
	temporalNamespace string
	prefix            string
	hasTelemetry      bool
}

func main() {
	var o options
	flag.StringVar(&o.measured, "case", "", "inform or batches")
	flag.StringVar(&o.databaseURL, "database-url", "", "an empty database")
	flag.IntVar(&o.connections, "connections", 16, "maximum number of connections to Postgres")
	flag.StringVar(&o.temporalAddress, "temporal-address", "", "host and port of Temporal")
	flag.StringVar(&o.temporalNamespace, "temporal-namespace", "default", "the namespace in Temporal")
	flag.StringVar(&o.prefix, "prefix", "overhead", "the prefix of ids in Temporal")
	flag.BoolVar(&o.hasTelemetry, "telemetry", false, "set Config.Telemetry")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

// run answers orders until the input ends.
func run(ctx context.Context, o options, orders io.Reader, answers io.Writer) (err error) {
	measure, known := map[string]func(context.Context, *subject, protocol.Order) error{"inform": informEach, "batches": syncInBatches}[o.measured]
	if !known {
		return fmt.Errorf("-case %q: it must be inform or batches", o.measured)
	}
	s, err := startSubject(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	lines := json.NewEncoder(answers)
	if err := lines.Encode(protocol.Hello{Version: "this version", Settings: settingsOf(o)}); err != nil {
		return err
	}
	decoder := json.NewDecoder(orders)
	for {
		var order protocol.Order
		switch err := decoder.Decode(&order); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading an order: %w", err)
		}
		began := time.Now()
		err := measure(ctx, s, order)
		answer := protocol.Answer{Took: time.Since(began)}
		if err == nil {
			err = s.cleanUp(ctx)
		}
		if err != nil {
			answer.Error = err.Error()
		}
		if err := lines.Encode(answer); err != nil {
			return err
		}
	}
}

func settingsOf(o options) string {
	if o.hasTelemetry {
		return "with deltaotel on OpenTelemetry's SDK, one trace in ten sampled, metrics read once a turn"
	}
	return "without"
}

// subject is the measured client.
type subject struct {
	pool      *pgxpool.Pool
	temporal  client.Client
	client    *delta.Client
	telemetry *telemetry
	worked    *callCounter
}

func startSubject(ctx context.Context, o options) (_ *subject, err error) {
	s := &subject{worked: new(callCounter)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	config, err := pgxpool.ParseConfig(o.databaseURL)
	if err != nil {
		return s, fmt.Errorf("-database-url: %w", err)
	}
	config.MaxConns = int32(o.connections) //nolint:gosec // a flag of a program of ours
	config.MinConns = config.MaxConns
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return s, err
	}
	if err := delta.Migrate(ctx, s.pool); err != nil {
		return s, err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	settings := &delta.Config{Logger: logger, WorkflowIDPrefix: o.prefix}
	if o.hasTelemetry {
		if s.telemetry, err = newTelemetry(); err != nil {
			return s, err
		}
		settings.Telemetry = s.telemetry
	}
	if o.measured == "inform" {
		s.client, err = delta.NewClient(s.pool, settings)
		return s, err
	}
	options := client.Options{HostPort: o.temporalAddress, Namespace: o.temporalNamespace, Logger: log.NewStructuredLogger(logger)}
	if s.temporal, err = client.DialContext(ctx, options); err != nil {
		return s, err
	}
	settings.Temporal, settings.TemporalNamespace = s.temporal, o.temporalNamespace
	settings.Controllers = controllersFor(s.worked)
	settings.Namespaces = map[string]delta.NamespaceConfig{delta.NamespaceDefault: {ResourceExpiry: expiry}}
	if s.client, err = delta.NewClient(s.pool, settings); err != nil {
		return s, err
	}
	return s, s.client.Start(ctx)
}

// cleanUp removes the rows of a turn and collects the metrics, outside of the measured time.
func (s *subject) cleanUp(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, "TRUNCATE delta_resource")
	if s.telemetry != nil {
		err = errors.Join(err, s.telemetry.collectMetrics(ctx))
	}
	return err
}

func (s *subject) stop() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if s.client != nil {
		err = s.client.Stop(ctx)
	}
	if s.telemetry != nil {
		err = errors.Join(err, s.telemetry.stop(ctx))
	}
	if s.temporal != nil {
		s.temporal.Close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	return err
}
