package stack

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
)

const (
	databaseVariable = "DELTA_DATABASE_URL"
	temporalVariable = "TEMPORAL_ADDRESS"
	minimalMajor     = 14
)

// externalTimeout is how long a server named by the environment may take to answer. A test shortens it.
var externalTimeout = 30 * time.Second

// firstAnswer is how long a client waits for the first answer of a Temporal. The SDK's 5 s would end its first call before its context does.
const firstAnswer = 2 * time.Minute

// ExternalDatabase returns the URL in DELTA_DATABASE_URL, if it is set.
func ExternalDatabase() (databaseURL string, ok bool) {
	databaseURL = os.Getenv(databaseVariable)
	return databaseURL, databaseURL != ""
}

// ExternalTemporal reports whether TEMPORAL_ADDRESS names a Temporal. A configuration file alone does not count, because a file for production must
// not replace the development server.
func ExternalTemporal() bool { return os.Getenv(temporalVariable) != "" }

// ClientOptions returns the options to dial with: those of the environment if it names a Temporal, otherwise plain ones for the server of a stack.
func ClientOptions(address, namespace string) (client.Options, error) {
	opts, err := client.Options{HostPort: address, Namespace: namespace}, error(nil)
	if ExternalTemporal() {
		opts, err = temporalFromEnvironment()
	}
	opts.ConnectionOptions.GetSystemInfoTimeout = firstAnswer
	return opts, err
}

func temporalFromEnvironment() (client.Options, error) {
	opts, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return opts, fmt.Errorf("reading Temporal's environment configuration: %w", err)
	}
	if opts.Namespace == "" {
		opts.Namespace = client.DefaultNamespace
	}
	return opts, nil
}

// useDatabase checks the Postgres that the environment names.
func (s *Stack) useDatabase(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, externalTimeout)
	defer cancel()
	s.DatabaseURL, _ = ExternalDatabase()
	config, err := pgx.ParseConfig(s.DatabaseURL)
	if err != nil {
		return fmt.Errorf("%s: %w", databaseVariable, err) // pgx hides the password
	}
	name := fmt.Sprintf("Postgres at %s:%d, given by %s", config.Host, config.Port, databaseVariable)
	defer s.reportWaiting(name)()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var version int
	var wal string
	err = conn.QueryRow(ctx, `select current_setting('server_version_num')::int, current_setting('wal_level')`).Scan(&version, &wal)
	if err != nil {
		return fmt.Errorf("%s: asking for its version: %w", name, err)
	}
	if version/10000 < minimalMajor {
		return fmt.Errorf("%s: it is version %d, Delta needs %d or later", name, version/10000, minimalMajor)
	}
	s.reportProgress("using %s, version %d", name, version/10000)
	if wal != "logical" {
		s.reportProgress("note: its wal_level is %q; change data capture needs \"logical\"", wal)
	}
	return nil
}

// useTemporal checks the Temporal that the environment names.
func (s *Stack) useTemporal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, externalTimeout)
	defer cancel()
	opts, err := temporalFromEnvironment()
	if err != nil {
		return err
	}
	s.TemporalAddress, s.TemporalNamespace = opts.HostPort, opts.Namespace
	name := fmt.Sprintf("Temporal at %s, given by %s", opts.HostPort, temporalVariable)
	defer s.reportWaiting(name)()
	if err := checkTemporal(ctx, opts); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.reportProgress("using %s, namespace %s", name, opts.Namespace)
	return nil
}

// checkTemporal checks once that the frontend serves and knows the namespace.
func checkTemporal(ctx context.Context, opts client.Options) error {
	opts.Logger, opts.ConnectionOptions.GetSystemInfoTimeout = silent{}, firstAnswer
	c, err := client.DialContext(ctx, opts)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return err
	}
	_, err = c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: opts.Namespace})
	if err != nil {
		return fmt.Errorf("namespace %q: %w", opts.Namespace, err)
	}
	return nil
}

// silent drops the SDK's log while this package polls a server that is starting.
type silent struct{}

var _ log.Logger = silent{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}

func postgresURL(port int, database string) string {
	u := url.URL{
		Scheme: "postgres",
		User:   url.UserPassword(postgresUser, postgresPassword),
		Host:   fmt.Sprintf("127.0.0.1:%d", port),
		Path:   "/" + database,
		// The server has no TLS. Saying so saves each connection a round trip, and helps clients that require TLS by default.
		RawQuery: "sslmode=disable",
	}
	return u.String()
}
