package deltatest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/internal/kit"
	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/migrations"
)

// Env is the environment of one test. It is cleaned up when the test ends.
type Env struct {
	// Pool connects to this test's own schema, which has Delta's tables.
	Pool *pgxpool.Pool
	// Temporal is connected to the shared Temporal server. Its calls wait up to two minutes for an answer, not 10 s as the SDK does, because a
	// machine that runs many tests at once may be slow.
	Temporal client.Client
	// DatabaseURL connects another process to this test's schema.
	DatabaseURL string
	// TemporalAddress is the host and port of the Temporal server.
	TemporalAddress string
	// TemporalNamespace is the namespace that Temporal is connected to.
	TemporalNamespace string
	// Schema is the name of this test's schema.
	Schema string
	// Prefix is unique to this test. Use it as the prefix of workflow ids.
	Prefix string
	// Logger writes warnings and errors to the log of this test, which is shown if the test fails. Give it to [delta.Config]. It drops lines that come
	// after the end of the test. The connection to Temporal logs its errors there.
	Logger *slog.Logger
}

// Option changes the environment that [New] makes.
type Option func(*options)

type options struct {
	maxConns int32
	temporal []func(*client.Options)
}

// WithMaxConns bounds the connections of Env.Pool. Default: 16.
func WithMaxConns(n int) Option {
	return func(o *options) { o.maxConns = int32(n) }
}

// WithTemporalOptions changes the options of the connection Env.Temporal, for
// instance its data converter. Default: a logger that shows errors only.
func WithTemporalOptions(change func(*client.Options)) Option {
	return func(o *options) { o.temporal = append(o.temporal, change) }
}

const (
	startTimeout   = 5 * time.Minute // a first start may download both servers
	dialTimeout    = 10 * time.Second
	cleanupTimeout = 2 * time.Minute // long enough for a busy machine; a clean-up that hangs is reported
)

// New gives the test its own schema on a real Postgres, migrated, and a client of a real Temporal. It fails the test if it cannot. Everything is
// cleaned up when the test and its subtests have ended.
func New(tb testing.TB, opts ...Option) *Env {
	tb.Helper()
	env, err := openEnv(tb, opts)
	if err != nil {
		tb.Fatalf("deltatest: %v", err)
	}
	return env
}

func openEnv(tb testing.TB, opts []Option) (*Env, error) {
	o := options{maxConns: 16}
	for _, change := range opts {
		change(&o)
	}
	ctx, cancel := startContext(tb)
	defer cancel()
	for attempt := 1; ; attempt++ {
		srv, err := acquireServers(ctx)
		if err != nil {
			return nil, err
		}
		env, err := connectTo(ctx, tb, srv, o)
		// If servers have just died, because somebody killed them, start new ones. The failed
		// connection is the first sign of that.
		if err != nil && attempt < 3 && hasEnded(srv) {
			continue
		}
		return env, err
	}
}

// connectTo makes the environment on running servers.
func connectTo(ctx context.Context, tb testing.TB, srv server, o options) (*Env, error) {
	id := strings.ToLower(rand.Text()[:12])
	env := &Env{
		Schema:            "delta_test_" + id,
		Prefix:            uniquePrefix(tb.Name(), id),
		TemporalAddress:   srv.TemporalAddress,
		TemporalNamespace: srv.TemporalNamespace,
		Logger:            slog.New(slog.NewTextHandler(newTestLog(tb), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	var err error
	if env.DatabaseURL, err = withSchema(srv.DatabaseURL, env.Schema); err != nil {
		return nil, err
	}
	if err := env.openTemporal(ctx, o); err != nil {
		return nil, err
	}
	if err := env.openPool(ctx, o); err != nil {
		env.Temporal.Close()
		return nil, err
	}
	tb.Cleanup(func() {
		env.closeTemporal(tb)
		env.closePool(tb)
	})
	return env, nil
}

// startContext ends before the test's own deadline, so that a start that hangs
// is reported as such.
func startContext(tb testing.TB) (context.Context, context.CancelFunc) {
	limit := time.Now().Add(startTimeout)
	if t, ok := tb.(interface{ Deadline() (time.Time, bool) }); ok {
		if deadline, ok := t.Deadline(); ok && deadline.Before(limit) {
			limit = deadline.Add(-time.Second)
		}
	}
	return context.WithDeadline(context.Background(), limit)
}

func (env *Env) openPool(ctx context.Context, o options) (err error) {
	config, err := pgxpool.ParseConfig(env.DatabaseURL)
	if err != nil {
		return err
	}
	config.MaxConns = o.maxConns
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("opening the pool: %w", err)
	}
	env.Pool = pool
	defer func() {
		if err != nil {
			_, _ = pool.Exec(ctx, "drop schema if exists "+env.Schema+" cascade")
			pool.Close()
		}
	}()
	if _, err := pool.Exec(ctx, "create schema "+env.Schema); err != nil {
		return fmt.Errorf("creating a schema for this test (the user needs CREATE on the database): %w", err)
	}
	if err := migrations.Up(ctx, pool); err != nil {
		return fmt.Errorf("migrating the schema of this test: %w", err)
	}
	return nil
}

func (env *Env) openTemporal(ctx context.Context, o options) error {
	opts, err := stack.ClientOptions(env.TemporalAddress, env.TemporalNamespace)
	if err != nil {
		return err
	}
	if !stack.ExternalTemporal() {
		opts.ConnectionOptions.GrpcCompression = &client.GrpcCompressionNone{} // the server is on this machine
	}
	opts.Logger = delta.TemporalLogger(slog.New(errorsOnly{env.Logger.Handler()}))
	for _, change := range o.temporal {
		change(&opts)
	}
	if opts.HostPort == env.TemporalAddress { // a proxy keeps the SDK's timeout: a test may let it fail
		opts.ConnectionOptions.DialOptions = append(slices.Clone(opts.ConnectionOptions.DialOptions), grpc.WithChainUnaryInterceptor(waitForLateAnswers))
	}
	var c client.Client
	waiting, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// A frontend of a cluster may be on its way.
	err = kit.RetryUnavailable(waiting, func() (err error) {
		c, err = client.DialContext(waiting, opts)
		return err
	})
	if err != nil {
		return fmt.Errorf("connecting to Temporal at %s: %w", opts.HostPort, err)
	}
	env.Temporal, env.TemporalNamespace = c, opts.Namespace
	return nil
}

// closePool closes the pool and drops the schema.
func (env *Env) closePool(tb testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	closed := make(chan struct{})
	go func() { env.Pool.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(cleanupTimeout / 2):
		tb.Errorf("deltatest: the test has ended, but %d connections of Env.Pool were never released: close rows and end transactions",
			env.Pool.Stat().AcquiredConns())
	}
	if err := dropSchema(ctx, tb, env.DatabaseURL, env.Schema); err != nil {
		tb.Errorf("deltatest: dropping schema %s: %v", env.Schema, err)
	}
}

func dropSchema(ctx context.Context, tb testing.TB, databaseURL, schema string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	drop := func(patience string) error {
		// A simple query is one transaction: the setting ends with it.
		_, err := conn.Exec(ctx, fmt.Sprintf("set local lock_timeout = '%s'; drop schema if exists %s cascade", patience, schema))
		return err
	}
	if err := drop("2s"); err == nil {
		return nil
	}
	// Another connection still uses the tables. End this test's connections: only
	// they have its application name.
	var ended int
	err = conn.QueryRow(ctx, `select count(pg_terminate_backend(pid)) from pg_stat_activity
		where application_name = $1 and pid <> pg_backend_pid()`, schema).Scan(&ended)
	if err != nil {
		return err
	}
	tb.Logf("deltatest: ended %d connections of this test that were still in use", ended)
	return drop("60s")
}

// closeTemporal removes schedules and workflows under this test's prefix.
func (env *Env) closeTemporal(tb testing.TB) {
	defer env.Temporal.Close()
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	if err := env.removeSchedules(ctx); err != nil {
		tb.Logf("deltatest: removing the schedules of this test: %v", err)
	}
	// Our own server forgets its workflows when it ends; an external one keeps them.
	if stack.ExternalTemporal() {
		if err := env.terminateWorkflows(ctx); err != nil {
			tb.Logf("deltatest: terminating the workflows of this test: %v", err)
		}
	}
}

func (env *Env) removeSchedules(ctx context.Context) error {
	list, err := env.Temporal.ScheduleClient().List(ctx, client.ScheduleListOptions{PageSize: 1000})
	if err != nil {
		return err
	}
	var errs []error
	for list.HasNext() {
		schedule, err := list.Next()
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if strings.HasPrefix(schedule.ID, env.Prefix) {
			errs = append(errs, env.Temporal.ScheduleClient().GetHandle(ctx, schedule.ID).Delete(ctx))
		}
	}
	return errors.Join(errs...)
}

func (env *Env) terminateWorkflows(ctx context.Context) error {
	open, err := openWorkflows(ctx, env)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range open {
		errs = append(errs, env.Temporal.TerminateWorkflow(ctx, id, "", "the test has ended"))
	}
	return errors.Join(errs...)
}

var notName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// uniquePrefix returns a unique prefix that names its test in Temporal's UI.
func uniquePrefix(test, id string) string {
	name := strings.Trim(notName.ReplaceAllString(test, "-"), "-")
	return strings.Trim(name[:min(len(name), 40)], "-") + "-" + id
}

// withSchema adds parameters to a URL, or to a string of keywords and values: every connection
// gets the schema as its search path and as its application name.
func withSchema(databaseURL, schema string) (string, error) {
	if !strings.HasPrefix(databaseURL, "postgres://") && !strings.HasPrefix(databaseURL, "postgresql://") {
		return fmt.Sprintf("%s search_path=%s application_name=%s", databaseURL, schema, schema), nil
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		return "", errors.New("the database URL cannot be read") // url.Parse's error would show the password
	}
	query := u.Query()
	query.Set("search_path", schema)
	query.Set("application_name", schema)
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// openWorkflows lists this test's running workflows. Visibility lags a
// little, so the newest ones may be missing.
func openWorkflows(ctx context.Context, env *Env) ([]string, error) {
	var ids []string
	var page []byte
	for {
		response, err := env.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace:     env.TemporalNamespace,
			Query:         fmt.Sprintf("WorkflowId STARTS_WITH '%s' AND ExecutionStatus = 'Running'", env.Prefix),
			NextPageToken: page,
		})
		if err != nil {
			return ids, err
		}
		for _, execution := range response.GetExecutions() {
			ids = append(ids, execution.GetExecution().GetWorkflowId())
		}
		if page = response.GetNextPageToken(); len(page) == 0 {
			return ids, nil
		}
	}
}
