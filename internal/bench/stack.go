package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/stack"
)

// bench is a private stack, with the connections that the measurements share.
type bench struct {
	options
	stack    *stack.Stack
	cluster  *stack.Cluster
	dir      string
	pool     *pgxpool.Pool
	temporal client.Client
	logger   *slog.Logger
}

// startBench starts a stack for this run alone. It ignores servers in the environment, because they may have somebody's data.
func startBench(ctx context.Context, o options) (_ *bench, err error) {
	b := &bench{options: o, logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.stop())
		}
	}()
	for _, name := range []string{"DELTA_DATABASE_URL", "TEMPORAL_ADDRESS"} {
		if err := os.Unsetenv(name); err != nil {
			return b, err
		}
	}
	settings := stack.Options{
		Ephemeral: true, PostgresPort: stack.AnyPort, TemporalPort: stack.AnyPort, UIPort: stack.AnyPort,
		Progress: func(string) {},
	}
	if o.durable || o.large > 0 {
		if b.dir, err = os.MkdirTemp("", "delta-bench-"); err != nil {
			return b, err
		}
		// Postgres may run as another user, which needs access to its directory.
		if err := os.Chmod(b.dir, 0o755); err != nil { // the directory has nothing secret
			return b, err
		}
		settings.Ephemeral, settings.Dir = false, b.dir
	}
	if b.stack, err = stack.Start(ctx, settings); err != nil {
		return b, err
	}

	config, err := pgxpool.ParseConfig(b.stack.DatabaseURL)
	if err != nil {
		return b, err
	}
	config.MaxConns = int32(o.pool)
	config.MinConns = config.MaxConns
	if b.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return b, err
	}
	if err := delta.Migrate(ctx, b.pool); err != nil {
		return b, err
	}
	dial, err := b.stack.ClientOptions()
	if err != nil {
		return b, err
	}
	if o.clusterOptions.Server != "" {
		if b.cluster, err = stack.StartCluster(ctx, o.clusterOptions); err != nil {
			return b, err
		}
		dial.HostPort = b.cluster.Address
	}
	dial.Logger = delta.TemporalLogger(b.logger)
	b.temporal, err = client.DialContext(ctx, dial)
	return b, err
}

// createSchema creates an empty, migrated schema, and returns a pool on it.
func (b *bench) createSchema(ctx context.Context, name string) (*pgxpool.Pool, error) {
	_, err := b.pool.Exec(ctx, fmt.Sprintf("DROP SCHEMA IF EXISTS %[1]s CASCADE; CREATE SCHEMA %[1]s", pgx.Identifier{name}.Sanitize()))
	if err != nil {
		return nil, err
	}
	config := b.pool.Config()
	config.ConnConfig.RuntimeParams["search_path"] = name
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := delta.Migrate(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func (b *bench) stop() (err error) {
	if b.temporal != nil {
		b.temporal.Close()
	}
	if b.pool != nil {
		b.pool.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if b.cluster != nil {
		err = errors.Join(b.cluster.Stop(ctx), os.RemoveAll(b.cluster.Dir))
	}
	if b.stack != nil {
		err = errors.Join(err, b.stack.Stop(ctx))
	}
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}

// scaleCount scales a number by --scale.
func (b *bench) scaleCount(n int) int { return max(int(float64(n)*b.scale), 1) }
