package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/cdc"
	cdcserver "github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/connstring"
)

const defaultListen = "127.0.0.1:8080"

// streamFlags has the flags of delta stream. The names without dashes are PGDeltaStream's.
type streamFlags struct {
	config cdcserver.Config

	databaseURL                        string
	db, user, password, pgHost, pgPort string
	listen, serverHost, serverPort     string
	tokens                             []string
	tokenFile, tlsCert, tlsKey         string
	passwordFile, passwordCommand      string
	logFormat                          string
	verbose                            bool
}

func streamCommand(c *cli) *cobra.Command {
	f := &streamFlags{}
	f.config = cdcserver.Config{}.WithDefaults()
	cmd := &cobra.Command{
		Use:   "stream",
		Short: "Serve the changes of a Postgres database over websockets and Server-Sent Events",
		Long: "Serve snapshots and changes of tables until interrupted. The database needs wal_level = logical and a role with REPLICATION, but\n" +
			"no tables of Delta. See docs/stream.md.\n\n" +
			"The database is --database-url, $DATABASE_URL or $DELTA_DATABASE_URL. Without any of them, PGDeltaStream's flags and variables name\n" +
			"it: --db ($DBNAME), --user ($PGUSER), --password ($PGPASS), --pgHost ($PGHOST) and --pgPort ($PGPORT).\n" +
			"$DELTA_STREAM_TOKEN has the tokens, separated by commas. Without tokens, the server listens on loopback only.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, address, err := f.readConfig(cmd)
			if err != nil {
				return err
			}
			config.Logger = f.newLogger(c.err)
			return markFailure(f.logFailure(config.Logger, serveStream(cmd.Context(), config, address, f.newAnnouncer(config.Logger, c))))
		},
	}
	f.defineFlags(cmd)
	return cmd
}

func (f *streamFlags) defineFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.databaseURL, "database-url", "", "`URL` of the database (default $DATABASE_URL, $"+databaseVariable+")")
	flags.StringVar(&f.db, "db", "", "`name` of the database (default $DBNAME)")
	flags.StringVar(&f.user, "user", "", "`role` (default $PGUSER)")
	flags.StringVar(&f.password, "password", "", "`password`; it is visible in the list of processes, so prefer $PGPASS")
	flags.StringVar(&f.passwordFile, "password-file", "", "`file` with the password, read again for each connection")
	flags.StringVar(&f.passwordCommand, "password-command", "", "`command` that prints the password, run for each connection: for tokens that expire")
	flags.StringVar(&f.pgHost, "pgHost", "", "`host` of Postgres (default $PGHOST)")
	flags.StringVar(&f.pgPort, "pgPort", "", "`port` of Postgres (default $PGPORT)")
	flags.StringVar(&f.listen, "listen", "", "`host:port` to listen on (default "+defaultListen+")")
	flags.StringVar(&f.serverHost, "serverHost", "", "`host` to listen on (default $SERVERHOST, 127.0.0.1)")
	flags.StringVar(&f.serverPort, "serverPort", "", "`port` to listen on (default $SERVERPORT, 8080)")
	flags.StringArrayVar(&f.tokens, "token", nil, "`secret` that callers must send; repeat it for several (default $DELTA_STREAM_TOKEN)")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with a token on each line")
	flags.BoolVar(&f.config.Insecure, "insecure", false, "let anybody on the network call without a token")
	flags.StringArrayVar(&f.config.Tables, "table", nil, "`pattern` of the tables, as schema.table, that may be read; repeat it for several (default *)")
	flags.StringArrayVar(&f.config.Origins, "origin", nil, "`pattern` of origins of pages that may call, such as https://app.example.com")
	flags.StringArrayVar(&f.config.Hosts, "host", nil, "`pattern` of host names by which the server may be called without a token")
	flags.StringVar(&f.config.Publication, "publication", "", "`name` of the publication that live tails read (default delta_stream_tail, followed by a hash of --table)")
	flags.StringVar(&f.config.Installation, "installation", f.config.Installation, "`name` that distinguishes the session of /v1 from those of other servers of the database")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "`file` of the certificate, in PEM")
	flags.StringVar(&f.tlsKey, "tls-key", "", "`file` of its key")
	flags.IntVar(&f.config.MaxClients, "max-clients", f.config.MaxClients, "`maximum` number of clients that stream at the same time")
	flags.Int64Var(&f.config.ClientMemory, "client-memory", f.config.ClientMemory, "maximum `bytes` buffered for each client")
	flags.Int64Var(&f.config.ConsumerBuffer, "consumer-buffer", f.config.ConsumerBuffer, "maximum `bytes` kept for the slow consumers of one slot")
	flags.DurationVar(&f.config.ConsumerPatience, "consumer-patience", f.config.ConsumerPatience, "how `long` others wait for a slow consumer, before it is disconnected and has to start over")
	flags.DurationVar(&f.config.HeartbeatInterval, "heartbeat", f.config.HeartbeatInterval, "how `often` clients get the position and a ping")
	flags.DurationVar(&f.config.Stream.Heartbeat, "slot-heartbeat", 0, "how `often` to write a message into the log for each stream, so that /metrics can measure the time from commit to delivery (default never)")
	flags.StringVar(&f.config.Stream.SpillFolder, "spill-folder", "", "`folder` for the temporary files of transactions larger than --client-memory (default $TMPDIR)")
	flags.Int64Var(&f.config.Stream.SpillLimit, "spill-limit", 0, "maximum `bytes` of the temporary files of one client; negative: refuse such transactions (default 16 GiB)")
	flags.StringArrayVar(&f.config.SkipUndecodable, "skip-undecodable", nil, "leave out rows that cannot be decoded, for good: a `position` from an error, or a pattern of tables; repeat it for several")
	flags.DurationVar(&f.config.WriteTimeout, "write-timeout", f.config.WriteTimeout, "how `long` a client may take to read")
	flags.DurationVar(&f.config.SnapshotIdle, "snapshot-idle", f.config.SnapshotIdle, "how `long` to keep a snapshot that nobody reads")
	flags.DurationVar(&f.config.SnapshotMax, "snapshot-max", f.config.SnapshotMax, "how `long` to keep a snapshot at most, even while it is read")
	flags.StringVar(&f.logFormat, "log-format", logText, "`format` of the log: text, or json with one object on each line")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more, but never data")
	for _, name := range []string{"db", "user", "password", "pgHost", "pgPort"} {
		cmd.MarkFlagsMutuallyExclusive("database-url", name)
	}
	cmd.MarkFlagsMutuallyExclusive("listen", "serverHost")
	cmd.MarkFlagsMutuallyExclusive("listen", "serverPort")
	cmd.MarkFlagsMutuallyExclusive("password", "password-file", "password-command")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
}

// The values of --log-format.
const (
	logText = "text"
	logJSON = "json"
)

func (f *streamFlags) newLogger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.logLevel()}
	if f.logFormat == logJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// newAnnouncer returns a function that prints the server's address as a line for a person, or logs it if the log is JSON.
func (f *streamFlags) newAnnouncer(logger *slog.Logger, c *cli) func(url string, conn *pgx.ConnConfig) {
	return func(url string, conn *pgx.ConnConfig) {
		if f.logFormat == logJSON {
			logger.Info("serving", "url", url, "database", conn.Database, "host", conn.Host)
			return
		}
		_, _ = fmt.Fprintf(c.err, "delta stream: %s (database %s on %s)\n", url, conn.Database, conn.Host)
	}
}

// logFailure logs the error that ends the command if the log is JSON, because its collector would lose a line in another format. The exit
// code stays the same.
func (f *streamFlags) logFailure(logger *slog.Logger, err error) error {
	if err == nil || f.logFormat != logJSON {
		return err
	}
	code := exitCodeOf(markFailure(err))
	logger.Error("ended", "error", formatError(err), "exit_code", code)
	return &silentExit{code}
}

func (f *streamFlags) logLevel() slog.Level {
	if f.verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// readConfig returns the configuration from the flags and the environment. Its errors are usage errors.
func (f *streamFlags) readConfig(cmd *cobra.Command) (config cdcserver.Config, address string, err error) {
	config = f.config
	if f.logFormat != logText && f.logFormat != logJSON {
		return config, "", fmt.Errorf("--log-format %q: it must be %s or %s", f.logFormat, logText, logJSON)
	}
	if config.Conn, err = f.newConnConfig(cmd); err != nil {
		return config, "", err
	}
	config.BeforeConnect = f.newPasswordHook()
	config.Tokens = append(config.Tokens, f.tokens...)
	if len(f.tokens) == 0 && f.tokenFile == "" {
		config.Tokens = splitTrimmed(os.Getenv("DELTA_STREAM_TOKEN"), ",")
	}
	if f.tokenFile != "" {
		text, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return config, "", fmt.Errorf("--token-file: %w", err)
		}
		tokens := splitTrimmed(string(text), "\n")
		if len(tokens) == 0 {
			return config, "", fmt.Errorf("--token-file %s: it has no token", f.tokenFile)
		}
		config.Tokens = append(config.Tokens, tokens...)
	}
	if f.tlsCert != "" {
		pair, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
		if err != nil {
			return config, "", fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
		config.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	address, err = f.listenAddress()
	return config, address, err
}

func splitTrimmed(text, separator string) (items []string) {
	for item := range strings.SplitSeq(text, separator) {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// newConnConfig returns the address of the database from the flags and the environment.
func (f *streamFlags) newConnConfig(cmd *cobra.Command) (*pgx.ConnConfig, error) {
	parts := false
	for _, name := range []string{"db", "user", "password", "pgHost", "pgPort"} {
		parts = parts || cmd.Flags().Changed(name)
	}
	target := f.databaseURL
	if !parts {
		target = cmp.Or(target, os.Getenv("DATABASE_URL"), os.Getenv(databaseVariable))
	}
	if target == "" {
		pairs := [][2]string{
			{"dbname", cmp.Or(f.db, os.Getenv("DBNAME"))},
			{"user", f.user},
			{"password", cmp.Or(f.password, os.Getenv("PGPASS"))},
			{"host", f.pgHost},
			{"port", f.pgPort}, // PGUSER, PGHOST and PGPORT are those of libpq too
		}
		if pairs[0][1] == "" && os.Getenv("PGDATABASE") == "" {
			return nil, errors.New("no database: use --database-url or --db, or set DATABASE_URL or DBNAME")
		}
		for _, p := range pairs {
			if p[1] != "" {
				target += p[0] + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p[1]) + "' "
			}
		}
	}
	// Parse it like every other command. pgx.ParseConfig would send parameters of pools, such as pool_max_conns, to the server, which refuses them.
	pooled, err := pgxpool.ParseConfig(target)
	if err != nil {
		return nil, fmt.Errorf("the connection string: %w", connstring.DescribeError(err))
	}
	config := pooled.ConnConfig
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	return config, nil
}

// listenAddress returns the address to listen on from the flags and the environment.
func (f *streamFlags) listenAddress() (string, error) {
	if f.listen != "" {
		if _, _, err := net.SplitHostPort(f.listen); err != nil {
			return "", fmt.Errorf("--listen %q: it must be a host and a port, such as %s", f.listen, defaultListen)
		}
		return f.listen, nil
	}
	host := cmp.Or(f.serverHost, os.Getenv("SERVERHOST"), "127.0.0.1")
	port := cmp.Or(f.serverPort, os.Getenv("SERVERPORT"), "8080")
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("--serverPort %q is not a port", port)
	} else if n == 0 && f.serverPort == "" {
		return "", fmt.Errorf("SERVERPORT %q is not a port", port)
	}
	return net.JoinHostPort(host, port), nil
}

// serveStream serves until a signal arrives.
func serveStream(ctx context.Context, config cdcserver.Config, address string, announce func(url string, conn *pgx.ConnConfig)) error {
	ctx, stop := withInterrupt(ctx)
	defer stop()
	starting, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	s, err := cdcserver.New(starting, config)
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		if errors.As(err, new(*pgconn.ConnectError)) {
			err = &unreachableError{"Postgres at " + net.JoinHostPort(config.Conn.Host, fmt.Sprint(config.Conn.Port)), err}
		}
		return asFlagError(err)
	}
	defer s.Close()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	if err := s.CheckListenAddress(listener.Addr()); err != nil {
		return errors.Join(asFlagError(err), listener.Close())
	}
	scheme := "http"
	if config.TLS != nil {
		scheme = "https"
	}
	announce(scheme+"://"+listener.Addr().String(), config.Conn)
	began := time.Now()
	err = s.Serve(ctx, listener)
	config.Logger.Info("stopped", "after", time.Since(began).Round(time.Second))
	return err
}

// asFlagError replaces the name of a field in the server's configuration by that of its flag. For settings of the database there is no flag.
func asFlagError(err error) error {
	var wrong *cdc.InvalidError
	if !errors.As(err, &wrong) {
		return err
	}
	name, ok := map[cdc.Field]string{
		cdc.FieldTables: "--table", "Tokens": "--token", "Origins": "--origin", "Hosts": "--host", "Publication": "--publication",
		"Installation": "--installation", "MaxClients": "--max-clients", "ClientMemory": "--client-memory",
		"HeartbeatInterval": "--heartbeat", "Stream.Heartbeat": "--slot-heartbeat", "WriteTimeout": "--write-timeout", "SkipUndecodable": "--skip-undecodable", "ConsumerBuffer": "--consumer-buffer", "SnapshotIdle": "--snapshot-idle", "SnapshotMax": "--snapshot-max", "listen": "--listen",
		"role": "the role", cdc.FieldConn: "--database-url", // which has the role
	}[wrong.Field]
	if ok {
		return &usageError{fmt.Errorf("%s %q: it must be %s", name, wrong.Value, wrong.Rule)}
	}
	return fmt.Errorf("%s %q: it must be %s", wrong.Field, wrong.Value, wrong.Rule)
}
