package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/internal/localconsole"
)

const (
	consoleTokenVariable = "DELTA_CONSOLE_TOKEN"
	// consoleShutdownTimeout is how long requests in flight may take when the console stops.
	consoleShutdownTimeout = 5 * time.Second
)

// consoleFlags has the flags of delta console.
type consoleFlags struct {
	listen, tokenFile, temporalUI, streamURL string
	allowCommands                            bool
}

func consoleCommand(c *cli) *cobra.Command {
	f := &consoleFlags{}
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Serve the console: resources, kinds and checks in a browser",
		Long: "Serve the console of an installation until interrupted. One process is enough, and it needs no client beside it.\n\n" +
			"The console is read-only unless you pass --allow-commands. On a loopback address it needs no token, and answers this machine only.\n" +
			"On any other address it needs one. In a browser, log in with any user name and the token as the password: the name is logged\n" +
			"with each command. Programs send it as a bearer token. Put a proxy with TLS in front, or the token crosses the network in the clear.\n" +
			"To mount the console in your own program, with your own users and permissions, see docs/console.md.",
		Example: "  delta console\n" +
			"  delta console --listen :8234 --token-file /run/secrets/console --allow-commands",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serveConsole(cmd, f) },
	}
	c.addDatabaseURLFlag(cmd)
	c.addConnectionFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", fmt.Sprintf("127.0.0.1:%d", localconsole.DefaultPort), "`host:port` to listen on")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token that users need, at least 16 bytes (default $"+consoleTokenVariable+", or none)")
	flags.BoolVar(&f.allowCommands, "allow-commands", false, "let users give commands such as retry, delete, pause and inform")
	flags.StringVar(&f.temporalUI, "temporal-ui", "", "`address` of the namespace in Temporal's UI, such as http://localhost:8233/namespaces/default (default no links)")
	flags.StringVar(&f.streamURL, "stream-url", "", "`address` of delta stream, such as http://localhost:8080/, for links to the live changes of slots (default no links)")
	return cmd
}

// readToken returns the token that users need; "" means none.
func (f *consoleFlags) readToken() (string, error) {
	if f.tokenFile == "" {
		return os.Getenv(consoleTokenVariable), nil
	}
	text, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	return parseSecretLine("--token-file "+f.tokenFile, text)
}

func (c *cli) serveConsole(cmd *cobra.Command, f *consoleFlags) error {
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return fmt.Errorf("--listen %q: it must be a host and a port, such as 127.0.0.1:%d", f.listen, localconsole.DefaultPort)
	}
	database, err := c.parsePoolConfig()
	if err != nil {
		return err
	}
	token, err := f.readToken()
	if err != nil {
		return err
	}
	return markFailure(withPool(cmd.Context(), database, func(ctx context.Context, pool *pgxpool.Pool) error {
		logger := slog.New(slog.NewTextHandler(c.err, nil))
		client, err := c.newLazyClient(ctx, pool, logger)
		if err != nil {
			return err
		}
		defer stopClient(ctx, client)
		handler, err := f.newHandler(client, token, logger)
		if err != nil {
			return &usageError{err}
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
		if err != nil {
			return err
		}
		if address, ok := listener.Addr().(*net.TCPAddr); token == "" && (!ok || !address.IP.IsLoopback()) {
			_ = listener.Close()
			return &usageError{fmt.Errorf("--listen %s: anybody could reach it: set %s or use --token-file, or listen on a loopback address", f.listen, consoleTokenVariable)}
		}
		mode := "read-only: --allow-commands lets users give commands"
		if f.allowCommands {
			mode = "users may give commands"
		}
		_, _ = fmt.Fprintf(c.err, "delta console: http://%s/ (%s)\n", listener.Addr(), mode)
		return serveUntil(ctx, listener, &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}, consoleShutdownTimeout)
	}))
}

func (f *consoleFlags) newHandler(client *delta.Client, token string, logger *slog.Logger) (http.Handler, error) {
	config := console.Config{Token: token, TemporalUI: f.temporalUI, StreamURL: f.streamURL, Logger: logger}
	if f.allowCommands {
		config.Authorize = func(*http.Request, console.Command) bool { return true }
	}
	return console.Handler(client, config)
}
