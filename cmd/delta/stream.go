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
)

const defaultListen = "127.0.0.1:8080"

// streamFlags are those of stream. The names without dashes are PGDeltaStream's.
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
		Long: "stream serves snapshots and changes of tables until it is interrupted. It needs nothing of Delta in the database, but\n" +
			"wal_level = logical and a role with REPLICATION. See docs/stream.md.\n\n" +
			"The database is the one of --database-url, $DATABASE_URL or $DELTA_DATABASE_URL; or else it is made of the flags and\n" +
			"variables of PGDeltaStream: --db DBNAME, --user PGUSER, --password PGPASS, --pgHost PGHOST, --pgPort PGPORT.\n" +
			"$DELTA_STREAM_TOKEN has the tokens, with commas between them. Without any, it listens on this machine only.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, address, err := f.read(cmd)
			if err != nil {
				return err
			}
			config.Logger = f.logger(c.err)
			return fail(f.report(config.Logger, stream(cmd.Context(), config, address, f.announcer(config.Logger, c))))
		},
	}
	f.define(cmd)
	return cmd
}

func (f *streamFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.databaseURL, "database-url", "", "`URL` of the database (default $DATABASE_URL, $"+databaseVariable+")")
	flags.StringVar(&f.db, "db", "", "`name` of the database (default $DBNAME)")
	flags.StringVar(&f.user, "user", "", "`role` (default $PGUSER)")
	flags.StringVar(&f.password, "password", "", "`password`; others see it in the list of processes: prefer $PGPASS")
	flags.StringVar(&f.passwordFile, "password-file", "", "`file` with the password, read again for each connection")
	flags.StringVar(&f.passwordCommand, "password-command", "", "`command` that prints the password, run for each connection: for tokens that expire")
	flags.StringVar(&f.pgHost, "pgHost", "", "`host` of Postgres (default $PGHOST)")
	flags.StringVar(&f.pgPort, "pgPort", "", "`port` of Postgres (default $PGPORT)")
	flags.StringVar(&f.listen, "listen", "", "`host:port` to listen on (default "+defaultListen+")")
	flags.StringVar(&f.serverHost, "serverHost", "", "`host` to listen on (default $SERVERHOST, 127.0.0.1)")
	flags.StringVar(&f.serverPort, "serverPort", "", "`port` to listen on (default $SERVERPORT, 8080)")
	flags.StringArrayVar(&f.tokens, "token", nil, "`secret` of callers; repeat it for several (default $DELTA_STREAM_TOKEN)")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with a token on each line")
	flags.BoolVar(&f.config.Insecure, "insecure", false, "let anybody on the network call, without a token")
	flags.StringArrayVar(&f.config.Tables, "table", nil, "`pattern` of schema.table that may be read; repeat it for several (default *)")
	flags.StringArrayVar(&f.config.Origins, "origin", nil, "`pattern` of origins whose pages may call, such as https://app.example.com")
	flags.StringArrayVar(&f.config.Hosts, "host", nil, "`pattern` of host names of this server, where there is no token")
	flags.StringVar(&f.config.Publication, "publication", "", "`name` of the publication that live tails read (default delta_stream_tail, and a hash of --table behind it)")
	flags.StringVar(&f.config.Installation, "installation", f.config.Installation, "`name` of the session of /v1 among those of other servers of the database")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "`file` of the certificate, in PEM")
	flags.StringVar(&f.tlsKey, "tls-key", "", "`file` of its key")
	flags.IntVar(&f.config.MaxClients, "max-clients", f.config.MaxClients, "how many may stream at the same time")
	flags.Int64Var(&f.config.ClientMemory, "client-memory", f.config.ClientMemory, "`bytes` that may wait for a client")
	flags.Int64Var(&f.config.ConsumerBuffer, "consumer-buffer", f.config.ConsumerBuffer, "`bytes` that are kept for the consumers of one slot that are behind")
	flags.DurationVar(&f.config.ConsumerPatience, "consumer-patience", f.config.ConsumerPatience, "how long others wait for a consumer that is behind, before it has to begin anew")
	flags.DurationVar(&f.config.HeartbeatInterval, "heartbeat", f.config.HeartbeatInterval, "how often clients are told the position and pinged")
	flags.DurationVar(&f.config.Stream.Heartbeat, "slot-heartbeat", 0, "how often to write a message into the log for each stream, by which /metrics measures the time from commit to delivery (default never)")
	flags.StringVar(&f.config.Stream.SpillFolder, "spill-folder", "", "`folder` of the temporary files of transactions that are larger than --client-memory (default $TMPDIR)")
	flags.Int64Var(&f.config.Stream.SpillLimit, "spill-limit", 0, "`bytes` that the temporary files of one client may take; negative: refuse such transactions (default 16 GiB)")
	flags.StringArrayVar(&f.config.SkipUndecodable, "skip-undecodable", nil, "`position` of a row that cannot be decoded, as its error names it, or pattern of tables, to leave such rows out for good; repeat it for several")
	flags.DurationVar(&f.config.WriteTimeout, "write-timeout", f.config.WriteTimeout, "how long a client may take to read")
	flags.DurationVar(&f.config.SnapshotIdle, "snapshot-idle", f.config.SnapshotIdle, "how long a snapshot is held that nobody reads")
	flags.DurationVar(&f.config.SnapshotMax, "snapshot-max", f.config.SnapshotMax, "how long a snapshot is held at most, even while it is read")
	flags.StringVar(&f.logFormat, "log-format", logText, "`format` of the log: text, or json with one object on each line")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more; never data")
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

func (f *streamFlags) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.level()}
	if f.logFormat == logJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// announcer says where the server listens: to a person on a line of its own, to a collector of logs as all else.
func (f *streamFlags) announcer(logger *slog.Logger, c *cli) func(url string, conn *pgx.ConnConfig) {
	return func(url string, conn *pgx.ConnConfig) {
		if f.logFormat == logJSON {
			logger.Info("serving", "url", url, "database", conn.Database, "host", conn.Host)
			return
		}
		_, _ = fmt.Fprintf(c.err, "delta stream: %s (database %s on %s)\n", url, conn.Database, conn.Host)
	}
}

// report logs the error that ends the command where the log is for programs: a line of another format would be lost there. The
// exit code stays.
func (f *streamFlags) report(logger *slog.Logger, err error) error {
	if err == nil || f.logFormat != logJSON {
		return err
	}
	code := codeOf(fail(err))
	logger.Error("ended", "error", message(err), "exit_code", code)
	return &silence{code}
}

func (f *streamFlags) level() slog.Level {
	if f.verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// read makes a configuration of the flags and the environment. Errors are of usage.
func (f *streamFlags) read(cmd *cobra.Command) (config cdcserver.Config, address string, err error) {
	config = f.config
	if f.logFormat != logText && f.logFormat != logJSON {
		return config, "", fmt.Errorf("--log-format %q: it must be %s or %s", f.logFormat, logText, logJSON)
	}
	if config.Conn, err = f.connection(cmd); err != nil {
		return config, "", err
	}
	config.BeforeConnect = f.credentials()
	config.Tokens = append(config.Tokens, f.tokens...)
	if len(f.tokens) == 0 && f.tokenFile == "" {
		config.Tokens = split(os.Getenv("DELTA_STREAM_TOKEN"), ",")
	}
	if f.tokenFile != "" {
		text, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return config, "", fmt.Errorf("--token-file: %w", err)
		}
		tokens := split(string(text), "\n")
		if len(tokens) == 0 {
			return config, "", fmt.Errorf("--token-file %s: there is no token in it", f.tokenFile)
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
	address, err = f.address()
	return config, address, err
}

func split(text, separator string) (items []string) {
	for item := range strings.SplitSeq(text, separator) {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// connection is where the database is.
func (f *streamFlags) connection(cmd *cobra.Command) (*pgx.ConnConfig, error) {
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
			return nil, errors.New("no database: give --database-url or --db, or set DATABASE_URL or DBNAME")
		}
		for _, p := range pairs {
			if p[1] != "" {
				target += p[0] + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p[1]) + "' "
			}
		}
	}
	// As every other command does: what is for pools alone, such as pool_max_conns, would go to the server as a setting, which refuses it.
	pooled, err := pgxpool.ParseConfig(target)
	if err != nil {
		return nil, err // pgx hides the password
	}
	config := pooled.ConnConfig
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectPatience
	}
	return config, nil
}

// address is where to listen.
func (f *streamFlags) address() (string, error) {
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

// stream serves until a signal comes.
func stream(ctx context.Context, config cdcserver.Config, address string, announce func(url string, conn *pgx.ConnConfig)) error {
	ctx, stop := untilInterrupted(ctx)
	defer stop()
	starting, cancel := context.WithTimeout(ctx, 2*connectPatience)
	defer cancel()
	s, err := cdcserver.New(starting, config)
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		if errors.As(err, new(*pgconn.ConnectError)) {
			err = &unreachableError{"Postgres at " + net.JoinHostPort(config.Conn.Host, fmt.Sprint(config.Conn.Port)), err}
		}
		return wrongFlag(err)
	}
	defer s.Close()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	if err := s.CheckListenAddress(listener.Addr()); err != nil {
		return errors.Join(wrongFlag(err), listener.Close())
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

// wrongFlag says which flag has a value that breaks a rule of the server's configuration. Settings of the database are no flags.
func wrongFlag(err error) error {
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
