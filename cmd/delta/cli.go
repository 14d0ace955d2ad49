package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/connstring"
)

const databaseVariable = "DELTA_DATABASE_URL"

// How long a command waits for Postgres and for Temporal before it reports them as unreachable, and how long completion in a shell waits for
// the database. They are variables because tests share a busy machine and need longer ones.
var (
	connectTimeout    = 10 * time.Second
	temporalTimeout   = 10 * time.Second
	completionTimeout = 2 * time.Second
)

// cli has the values of the flags, and the streams that the command reads and writes.
type cli struct {
	streams
	databaseURL                        string
	temporalAddress, temporalNamespace string
	prefix, taskQueue                  string
	output                             outputFormat
	// countEvery is Config.CountResourcesInterval; 0 means the default.
	countEvery time.Duration
}

// addDatabaseFlags adds the flags of commands that need only the database.
func (c *cli) addDatabaseFlags(cmd *cobra.Command) {
	c.addDatabaseURLFlag(cmd)
	c.addOutputFlag(cmd)
}

func (c *cli) addDatabaseURLFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&c.databaseURL, "database-url", "", "`URL` of the database (default $"+databaseVariable+")")
}

func (c *cli) addOutputFlag(cmd *cobra.Command) {
	c.output = outputTable
	cmd.PersistentFlags().VarP(&c.output, "output", "o", "`format`: table or json")
	mustComplete(cmd, "output", completeFrom("table", "json"))
}

// addTemporalFlags adds the flags of commands that also need Temporal.
func (c *cli) addTemporalFlags(cmd *cobra.Command) {
	c.addDatabaseFlags(cmd)
	c.addConnectionFlags(cmd)
}

// addConnectionFlags adds the flags that say where Temporal is, and which workflows there belong to the installation.
func (c *cli) addConnectionFlags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.temporalAddress, "temporal-address", "", "`host:port` of Temporal (default $TEMPORAL_ADDRESS, temporal.toml or "+client.DefaultHostPort+")")
	flags.StringVar(&c.temporalNamespace, "temporal-namespace", "", "`namespace` of Temporal (default $TEMPORAL_NAMESPACE, temporal.toml or default)")
	flags.StringVar(&c.prefix, "prefix", "", "`prefix` of workflow ids, Config.WorkflowIDPrefix (default the one in the database)")
	flags.StringVar(&c.taskQueue, "task-queue", "", "task `queue` of a worker that you run yourself, Config.TaskQueue (default none)")
}

// parsePoolConfig returns the configuration of the pool. Its errors are usage errors.
func (c *cli) parsePoolConfig() (*pgxpool.Config, error) {
	target := cmp.Or(c.databaseURL, os.Getenv(databaseVariable))
	if target == "" {
		return nil, fmt.Errorf("no database: use --database-url or set %s (delta dev prints one)", databaseVariable)
	}
	config, err := pgxpool.ParseConfig(target)
	if err != nil {
		source := databaseVariable
		if c.databaseURL != "" {
			source = "--database-url"
		}
		return nil, fmt.Errorf("%s: must be as postgres://user:password@host:5432/database: %w", source, connstring.DescribeError(err))
	}
	config.MaxConns = 4
	if config.ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		// Preparing statements would gain nothing, because a command runs each once or twice, and fail behind some poolers in transaction mode.
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	return config, nil
}

func formatServerAddress(config *pgxpool.Config) string {
	return net.JoinHostPort(config.ConnConfig.Host, fmt.Sprint(config.ConnConfig.Port))
}

// withPool connects to the database and calls do.
func withPool(ctx context.Context, config *pgxpool.Config, do func(context.Context, *pgxpool.Pool) error) error {
	ctx, stop := withInterrupt(ctx)
	defer stop()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	// Ping first, so that a wrong address is not reported as a failure of something else.
	if err := pool.Ping(ctx); err != nil {
		return asInterrupted(ctx, &unreachableError{"Postgres at " + formatServerAddress(config), err})
	}
	return asInterrupted(ctx, do(ctx, pool))
}

func withInterrupt(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}

// session is the installation that the command works on.
type session struct {
	*delta.Client
	pool *pgxpool.Pool
	// temporal connects to this address and namespace when it is first used.
	temporal           client.Client
	address, namespace string
	// temporalErr is set instead of temporal if the configuration for Temporal is wrong.
	temporalErr error
}

// withSession connects to the installation and calls do. An error of do is a failure and not a usage error, unless it is a usageError.
func (c *cli) withSession(cmd *cobra.Command, do func(context.Context, *session) error) error {
	config, err := c.parsePoolConfig()
	if err != nil {
		return err
	}
	return markFailure(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
		s, err := c.openSession(ctx, pool)
		if err != nil {
			return err
		}
		defer s.close(ctx)
		return do(ctx, s)
	}))
}

func (c *cli) openSession(ctx context.Context, pool *pgxpool.Pool) (*session, error) {
	logger := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s := &session{pool: pool}
	s.temporal, s.address, s.namespace, s.temporalErr = c.newLazyTemporal(logger)
	config := c.clientConfig(ctx, pool, logger)
	config.Temporal, config.TemporalNamespace = s.temporal, s.namespace
	var err error
	s.Client, err = delta.NewClient(pool, config)
	return s, err
}

// clientConfig returns the part of a client's configuration that does not depend on how Temporal is reached.
func (c *cli) clientConfig(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) *delta.Config {
	prefix := c.prefix
	if prefix == "" {
		// If the schema is missing, the next statement reports it.
		if found, err := db.New().GetInstallation(ctx, pool); err == nil && found.WorkflowIDPrefix != nil {
			prefix = *found.WorkflowIDPrefix
		}
	}
	return &delta.Config{WorkflowIDPrefix: prefix, TaskQueue: c.taskQueue, Logger: logger, CountResourcesInterval: c.countEvery}
}

// newLazyClient returns a client that connects to Temporal by itself when it first needs to. Its checks can then name the address, and report
// a wrong configuration of Temporal.
func (c *cli) newLazyClient(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) (*delta.Client, error) {
	config := c.clientConfig(ctx, pool, logger)
	config.TemporalNamespace = c.temporalNamespace
	config.TemporalOptions = func(o *client.Options) { o.HostPort = cmp.Or(c.temporalAddress, o.HostPort) }
	return delta.NewClient(pool, config)
}

// close stops the client, and closes its connection to Temporal.
func (s *session) close(ctx context.Context) {
	stopClient(ctx, s.Client)
	if s.temporal != nil {
		s.temporal.Close()
	}
}

// stopClient waits for the client's notifications in flight.
func stopClient(ctx context.Context, c *delta.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
	defer cancel()
	_ = c.Stop(ctx)
}

// newLazyTemporal returns a client of Temporal that connects when it is first used.
func (c *cli) newLazyTemporal(logger *slog.Logger) (_ client.Client, address, namespace string, err error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, "", "", fmt.Errorf("the environment configuration for Temporal: %w", err)
	}
	options.HostPort = cmp.Or(c.temporalAddress, options.HostPort, client.DefaultHostPort)
	options.Namespace = cmp.Or(c.temporalNamespace, options.Namespace, client.DefaultNamespace)
	options.Logger = log.NewStructuredLogger(logger)
	options.ConnectionOptions.GetSystemInfoTimeout = temporalTimeout
	made, err := client.NewLazyClient(options)
	if err != nil {
		return nil, options.HostPort, options.Namespace, fmt.Errorf("the configuration for Temporal: %w", err)
	}
	return made, options.HostPort, options.Namespace, nil
}

// requireTemporal returns an error unless Temporal answers and has the namespace.
func (s *session) requireTemporal(ctx context.Context) error {
	if s.temporalErr != nil {
		return s.temporalErr
	}
	return checkTemporal(ctx, s.temporal, s.address, s.namespace)
}

// checkTemporal returns an error unless the server answers and has the namespace.
func checkTemporal(ctx context.Context, c client.Client, address, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	if _, err := c.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{}); err != nil {
		return &unreachableError{"Temporal at " + address, err}
	}
	_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if missing := new(serviceerror.NamespaceNotFound); errors.As(err, &missing) {
		return fmt.Errorf("there is no namespace %q in Temporal at %s: use --temporal-namespace or set TEMPORAL_NAMESPACE", namespace, address)
	}
	return nil
}
