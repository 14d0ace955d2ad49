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
)

const databaseVariable = "DELTA_DATABASE_URL"

// How long a command waits for Postgres and for Temporal before it says that they cannot be reached, and how long a shell waits for names from
// the database. They are variables so that tests, which share a busy machine, wait longer.
var (
	connectPatience    = 10 * time.Second
	temporalPatience   = 10 * time.Second
	completionPatience = 2 * time.Second
)

// cli is what the flags say, and where the command reads and writes.
type cli struct {
	streams
	databaseURL                        string
	temporalAddress, temporalNamespace string
	prefix, taskQueue                  string
	output                             outputFormat
	// countEvery is Config.CountResourcesInterval; 0 for the default.
	countEvery time.Duration
}

// databaseFlags are for commands that need the database only.
func (c *cli) databaseFlags(cmd *cobra.Command) {
	c.databaseFlag(cmd)
	c.outputFlag(cmd)
}

func (c *cli) databaseFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&c.databaseURL, "database-url", "", "`URL` of the database (default $"+databaseVariable+")")
}

func (c *cli) outputFlag(cmd *cobra.Command) {
	c.output = outputTable
	cmd.PersistentFlags().VarP(&c.output, "output", "o", "`format`: table or json")
	mustComplete(cmd, "output", fixed("table", "json"))
}

// temporalFlags are for those that need Temporal too.
func (c *cli) temporalFlags(cmd *cobra.Command) {
	c.databaseFlags(cmd)
	c.connectionFlags(cmd)
}

// connectionFlags name Temporal, and what there is the installation's.
func (c *cli) connectionFlags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.temporalAddress, "temporal-address", "", "`host:port` of Temporal (default $TEMPORAL_ADDRESS, temporal.toml or "+client.DefaultHostPort+")")
	flags.StringVar(&c.temporalNamespace, "temporal-namespace", "", "`namespace` of Temporal (default $TEMPORAL_NAMESPACE, temporal.toml or default)")
	flags.StringVar(&c.prefix, "prefix", "", "`prefix` of workflow ids, Config.WorkflowIDPrefix (default the one of the database)")
	flags.StringVar(&c.taskQueue, "task-queue", "", "Config.TaskQueue, `queue` of the worker that you run yourselves (default none)")
}

// database is the configuration of the pool. Errors are of usage.
func (c *cli) database() (*pgxpool.Config, error) {
	target := cmp.Or(c.databaseURL, os.Getenv(databaseVariable))
	if target == "" {
		return nil, fmt.Errorf("no database: give --database-url or set %s (delta dev prints one)", databaseVariable)
	}
	config, err := pgxpool.ParseConfig(target)
	if err != nil {
		source := databaseVariable
		if c.databaseURL != "" {
			source = "--database-url"
		}
		return nil, fmt.Errorf("%s: must be as postgres://user:password@host:5432/database: %w", source, err) // pgx hides the password
	}
	config.MaxConns = 4
	if config.ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		// A command runs a statement once or twice, and a pooler in transaction mode may not have prepared statements.
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectPatience
	}
	return config, nil
}

func host(config *pgxpool.Config) string {
	return net.JoinHostPort(config.ConnConfig.Host, fmt.Sprint(config.ConnConfig.Port))
}

// withPool does something with a database that answers.
func withPool(ctx context.Context, config *pgxpool.Config, do func(context.Context, *pgxpool.Pool) error) error {
	ctx, stop := untilInterrupted(ctx)
	defer stop()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	// Asked first, so that an address that is wrong is not reported as a
	// failure of something else.
	if err := pool.Ping(ctx); err != nil {
		return interrupted(ctx, &unreachableError{"Postgres at " + host(config), err})
	}
	return interrupted(ctx, do(ctx, pool))
}

func untilInterrupted(ctx context.Context) (context.Context, func()) {
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

// session is an installation that the command works on.
type session struct {
	*delta.Client
	pool *pgxpool.Pool
	// temporal connects when it is first used. address and namespace are where to.
	temporal           client.Client
	address, namespace string
	// temporalErr is set instead where the configuration for Temporal is wrong.
	temporalErr error
}

// with does something with an installation whose database answers. What it
// returns is a failure, unless it says otherwise.
func (c *cli) with(cmd *cobra.Command, do func(context.Context, *session) error) error {
	config, err := c.database()
	if err != nil {
		return err
	}
	return fail(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
		s, err := c.open(ctx, pool)
		if err != nil {
			return err
		}
		defer s.close(ctx)
		return do(ctx, s)
	}))
}

func (c *cli) open(ctx context.Context, pool *pgxpool.Pool) (*session, error) {
	logger := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s := &session{pool: pool}
	s.temporal, s.address, s.namespace, s.temporalErr = c.lazyTemporal(logger)
	config := c.clientConfig(ctx, pool, logger)
	config.Temporal, config.TemporalNamespace = s.temporal, s.namespace
	var err error
	s.Client, err = delta.NewClient(pool, config)
	return s, err
}

// clientConfig is that of a client, as far as it does not depend on how Temporal is reached.
func (c *cli) clientConfig(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) *delta.Config {
	prefix := c.prefix
	if prefix == "" {
		// A schema that is missing is for whatever comes next to find.
		if found, err := db.New().GetInstallation(ctx, pool); err == nil && found.WorkflowIDPrefix != nil {
			prefix = *found.WorkflowIDPrefix
		}
	}
	return &delta.Config{WorkflowIDPrefix: prefix, TaskQueue: c.taskQueue, Logger: logger, CountResourcesInterval: c.countEvery}
}

// connecting makes a client that connects to Temporal by itself when it is first used. So it knows the address, which its checks name, and a
// configuration for Temporal that is wrong is for them to find.
func (c *cli) connecting(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) (*delta.Client, error) {
	config := c.clientConfig(ctx, pool, logger)
	config.TemporalNamespace = c.temporalNamespace
	config.TemporalOptions = func(o *client.Options) { o.HostPort = cmp.Or(c.temporalAddress, o.HostPort) }
	return delta.NewClient(pool, config)
}

// close stops the client, and closes its connection to Temporal.
func (s *session) close(ctx context.Context) {
	stop(ctx, s.Client)
	if s.temporal != nil {
		s.temporal.Close()
	}
}

// stop waits for notifications of a client that are under way.
func stop(ctx context.Context, c *delta.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectPatience)
	defer cancel()
	_ = c.Stop(ctx)
}

// lazyTemporal is a client of Temporal that connects to nothing yet.
func (c *cli) lazyTemporal(logger *slog.Logger) (_ client.Client, address, namespace string, err error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, "", "", fmt.Errorf("the environment configuration for Temporal: %w", err)
	}
	options.HostPort = cmp.Or(c.temporalAddress, options.HostPort, client.DefaultHostPort)
	options.Namespace = cmp.Or(c.temporalNamespace, options.Namespace, client.DefaultNamespace)
	options.Logger = log.NewStructuredLogger(logger)
	made, err := client.NewLazyClient(options)
	if err != nil {
		return nil, options.HostPort, options.Namespace, fmt.Errorf("the configuration for Temporal: %w", err)
	}
	return made, options.HostPort, options.Namespace, nil
}

// needTemporal sees that Temporal answers, and has the namespace.
func (s *session) needTemporal(ctx context.Context) error {
	if s.temporalErr != nil {
		return s.temporalErr
	}
	return askTemporal(ctx, s.temporal, s.address, s.namespace)
}

// askTemporal sees that the server answers, and has the namespace.
func askTemporal(ctx context.Context, c client.Client, address, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, temporalPatience)
	defer cancel()
	if _, err := c.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{}); err != nil {
		return &unreachableError{"Temporal at " + address, err}
	}
	_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if missing := new(serviceerror.NamespaceNotFound); errors.As(err, &missing) {
		return fmt.Errorf("there is no namespace %q in Temporal at %s: give --temporal-namespace or set TEMPORAL_NAMESPACE", namespace, address)
	}
	return nil
}
