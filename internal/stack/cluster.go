package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chariot-giving/delta/internal/backoff"
)

// ClusterOptions says how to run a [Cluster]. Both programs must be given.
type ClusterOptions struct {
	// Server and SQLTool are the programs that Temporal publishes as temporal-server and temporal-sql-tool.
	Server, SQLTool string
	// Settings are dynamic configuration as key=JSON. They add to clusterSettings and override them. Default: none.
	Settings []string
	// Progress is called with what happens: starts, kills, and processes that ended by themselves. Default: none.
	Progress func(message string)
}

// Cluster is a Temporal as production runs it: the published server, with its state and its visibility in Postgres, and each of its four services in
// processes of its own, two of each. A load balancer stands before the two frontends, as it does in production.
//
// It is for tests of what the development server hides: hosts that come and go, shards that move, and the limits of SQL persistence. It keeps nothing.
type Cluster struct {
	// Address is the host and port of the load balancer.
	Address string
	// Dir is the directory of the configuration and the logs.
	Dir string

	opts      ClusterOptions
	postgres  *Stack
	balancer  *balancer
	frontends []string
	processes []*clusterProcess
}

// clusterNamespace is the Temporal namespace of a cluster, and clusterRetention its retention, the shortest that a server allows by default.
const (
	clusterNamespace = client.DefaultNamespace
	clusterRetention = 24 * time.Hour
)

// StartCluster starts a cluster and returns when it serves. If it fails, or ctx ends first, it stops everything that it has started.
func StartCluster(ctx context.Context, opts ClusterOptions) (_ *Cluster, err error) {
	if opts.Progress == nil {
		opts.Progress = func(string) {}
	}
	for _, path := range []*string{&opts.Server, &opts.SQLTool} {
		if !isExecutable(*path) {
			return nil, fmt.Errorf("%q is not an executable file: `make temporal-cluster` builds both programs", *path)
		}
		if *path, err = filepath.Abs(*path); err != nil { // the processes run elsewhere
			return nil, err
		}
	}
	c := &Cluster{opts: opts}
	defer func() {
		if err != nil {
			stopCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
			defer stop()
			err = errors.Join(err, c.Stop(stopCtx))
		}
	}()
	if c.Dir, err = os.MkdirTemp("", "delta-cluster-"); err != nil {
		return nil, err
	}
	c.postgres, err = StartPostgres(ctx, Options{Ephemeral: true, PostgresPort: AnyPort, Progress: opts.Progress})
	if err != nil {
		return nil, err
	}
	if err := c.createSchemas(ctx); err != nil {
		return nil, err
	}
	if err := c.startProcesses(ctx); err != nil {
		return nil, err
	}
	if c.balancer, err = startBalancer(c.frontends); err != nil {
		return nil, err
	}
	c.Address = c.balancer.address
	if err := c.createNamespace(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Stop ends all processes of the cluster. The logs stay in Dir.
func (c *Cluster) Stop(ctx context.Context) error {
	var errs []error
	if c.balancer != nil {
		errs = append(errs, c.balancer.close())
	}
	for _, p := range c.processes {
		errs = append(errs, p.end(ctx))
	}
	if c.postgres != nil {
		errs = append(errs, c.postgres.Stop(ctx))
	}
	return errors.Join(errs...)
}

func (c *Cluster) report(format string, args ...any) { c.opts.Progress(fmt.Sprintf(format, args...)) }

// createSchemas makes the two databases with the tool that operators use.
func (c *Cluster) createSchemas(ctx context.Context) error {
	config, err := pgx.ParseConfig(c.postgres.DatabaseURL)
	if err != nil {
		return err
	}
	env := append(cleanEnv("SQL_", "PG"), "SQL_HOST="+config.Host, "SQL_PORT="+strconv.Itoa(int(config.Port)), "SQL_USER="+config.User, "SQL_PASSWORD="+config.Password)
	for database, schema := range map[string]string{stateDatabase: "temporal", visibilityDatabase: "visibility"} {
		for _, args := range [][]string{
			{"create-database", "--defaultdb", "postgres"},
			{"setup-schema", "--version", "0.0"},
			{"update-schema", "--schema-name", "postgresql/v12/" + schema},
		} {
			cmd := exec.CommandContext(ctx, c.opts.SQLTool, append([]string{"--plugin", sqlPlugin, "--database", database}, args...)...)
			cmd.Env = env
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s of the database %s: %w:\n%s", args[0], database, err, out)
			}
		}
	}
	return nil
}

// startProcesses starts two processes of each service. The first writes the metadata of the cluster, which the others read.
func (c *Cluster) startProcesses(ctx context.Context) error {
	ports := newClusterPorts()
	settings, err := c.writeSettings()
	if err != nil {
		return err
	}
	for instance := 1; instance <= instances; instance++ {
		listens := map[string]listenPorts{}
		for _, service := range clusterServices {
			if listens[service], err = ports.choose(); err != nil {
				return err
			}
		}
		c.frontends = append(c.frontends, listens[frontendService].address())
		config, err := c.writeConfig(instance, listens, settings)
		if err != nil {
			return err
		}
		for _, service := range clusterServices {
			name := fmt.Sprintf("%s-%d", service, instance)
			p := &clusterProcess{
				cluster: c, ports: listens[service],
				spec: spec{
					name: name, path: c.opts.Server, dir: c.Dir, env: cleanEnv("TEMPORAL_", "SQL_", "PG"),
					args:    []string{"--config-file", config, "--allow-no-auth", "start", "--service", service},
					logPath: filepath.Join(c.Dir, name+".log"), orphan: syscall.SIGKILL, ending: killOnly,
				},
			}
			c.processes = append(c.processes, p)
			if err := p.start(); err != nil {
				return err
			}
			if len(c.processes) == 1 {
				if err := p.awaitListening(ctx); err != nil {
					return err
				}
			}
		}
	}
	for _, p := range c.processes {
		if err := p.awaitListening(ctx); err != nil {
			return err
		}
	}
	return nil
}

// createNamespace registers the namespace and Delta's search attributes, and waits until both frontends know them, and the history and matching
// services take workflows.
func (c *Cluster) createNamespace(ctx context.Context) error {
	for i, address := range c.frontends {
		temporal, err := client.NewLazyClient(client.Options{HostPort: address, Namespace: clusterNamespace, Logger: silent{}})
		if err != nil {
			return err
		}
		defer temporal.Close()
		if i == 0 {
			if err := registerNamespace(ctx, temporal); err != nil {
				return err
			}
		}
		if err := awaitNamespace(ctx, temporal); err != nil {
			return fmt.Errorf("waiting for the frontend at %s: %w", address, err)
		}
	}
	return nil
}

// clusterPatience is how long the services of a cluster may take to find each other.
const clusterPatience = 3 * time.Minute

// retryUntilServed repeats a call until it succeeds.
func retryUntilServed(ctx context.Context, what string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	for {
		attempt, stop := context.WithTimeout(ctx, 5*time.Second)
		err := call(attempt)
		stop()
		if err == nil {
			return nil
		}
		if backoff.Pause(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

func registerNamespace(ctx context.Context, temporal client.Client) error {
	err := retryUntilServed(ctx, "registering the namespace", func(ctx context.Context) error {
		_, err := temporal.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
			Namespace: clusterNamespace, WorkflowExecutionRetentionPeriod: durationpb.New(clusterRetention),
		})
		if exists := new(serviceerror.NamespaceAlreadyExists); errors.As(err, &exists) {
			return nil // the answer to an earlier call was lost
		}
		return err
	})
	if err != nil {
		return err
	}
	attributes := map[string]enumspb.IndexedValueType{}
	for _, name := range searchAttributes {
		attributes[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	return retryUntilServed(ctx, "creating the search attributes", func(ctx context.Context) error {
		_, err := temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
			Namespace: clusterNamespace, SearchAttributes: attributes,
		})
		return err
	})
}

func awaitNamespace(ctx context.Context, temporal client.Client) error {
	for _, name := range searchAttributes {
		err := retryUntilServed(ctx, "searching for "+name, func(ctx context.Context) error {
			_, err := temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: clusterNamespace, Query: name + " = 'none'"})
			return err
		})
		if err != nil {
			return err
		}
	}
	// Workflows of several ids reach several shards, and so both history processes.
	for i := range 2 * historyShards {
		err := retryUntilServed(ctx, "starting a workflow", func(ctx context.Context) error {
			_, err := temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
				ID: fmt.Sprintf("delta-cluster-ready-%d", i), TaskQueue: "delta-cluster-ready", WorkflowExecutionTimeout: time.Second,
			}, "nobody works on it")
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
