package deltatest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/internal/kit"
	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/internal/testdb"
)

// Env is the environment of one test. It is cleaned up when the test ends.
type Env struct {
	// Pool connects to this test's own database and schema, which has Delta's tables.
	Pool *pgxpool.Pool
	// Temporal is connected to the shared Temporal server. Its calls wait up to two minutes for an answer, not 10 s as the SDK does, because a
	// machine that runs many tests at once may be slow.
	Temporal client.Client
	// DatabaseURL connects another process to this test's database and schema.
	DatabaseURL string
	// TemporalAddress is the host and port of the Temporal server.
	TemporalAddress string
	// TemporalNamespace is the namespace that Temporal is connected to.
	TemporalNamespace string
	// Schema is the name of this test's schema, and of its database. No other test has it.
	Schema string
	// Prefix is unique to this test. Use it as the prefix of workflow ids.
	Prefix string
	// Logger writes warnings and errors to the log of this test, which is shown if the test fails. Give it to [delta.Config]. It drops lines that come
	// after the end of the test. The connection to Temporal logs its errors there.
	Logger *slog.Logger

	server *testdb.Server
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
	cleanupTimeout = 2 * time.Minute // long enough for a busy machine; a clean-up that hangs is reported
)

// New gives the test its own database on a real Postgres, migrated, and a client of a real Temporal. It fails the test if it cannot. Everything is
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
	if env.server, err = testdb.NewServer(srv.DatabaseURL); err != nil {
		return nil, err
	}
	if env.DatabaseURL, err = withDatabase(srv.DatabaseURL, env.Schema); err != nil {
		return nil, err
	}
	if err := env.openTemporal(ctx, srv, o); err != nil {
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

func (env *Env) openTemporal(ctx context.Context, srv server, o options) error {
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
	patience := sdkTimeout                    // stack.ClientOptions has a longer one for the first call
	if opts.HostPort == env.TemporalAddress { // a proxy keeps the SDK's timeout: a test may let it fail
		opts.ConnectionOptions.DialOptions = append(slices.Clone(opts.ConnectionOptions.DialOptions), grpc.WithChainUnaryInterceptor(waitForLateAnswers))
		patience = callTimeout
	}
	var c client.Client
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// A frontend of a cluster may be on its way.
	err = kit.RetryUnavailable(waiting, func() (err error) {
		if c, err = client.DialContext(waiting, opts); err != nil && hasEnded(srv) {
			cancel()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("connecting to Temporal at %s: %w", opts.HostPort, err)
	}
	env.Temporal, env.TemporalNamespace = c, opts.Namespace
	return nil
}

// closePool closes the pool and drops the database.
func (env *Env) closePool(tb testing.TB) {
	closed := make(chan struct{})
	go func() { env.Pool.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(cleanupTimeout / 2):
		tb.Errorf("deltatest: the test has ended, but %d connections of Env.Pool were never released: close rows and end transactions",
			env.Pool.Stat().AcquiredConns())
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	ended, err := env.server.Drop(ctx, env.Schema)
	if err != nil {
		tb.Errorf("deltatest: dropping the database %s: %v", env.Schema, err)
	}
	if ended > 0 {
		tb.Logf("deltatest: ended %d connections of this test that were still in use", ended)
	}
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
