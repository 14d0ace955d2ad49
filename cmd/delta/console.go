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
	// consoleGrace is how long answers may take that are under way when the console is stopped.
	consoleGrace = 5 * time.Second
)

// consoleFlags are those of console.
type consoleFlags struct {
	listen, tokenFile, temporalUI, streamURL string
	allowCommands                            bool
}

func consoleCommand(c *cli) *cobra.Command {
	f := &consoleFlags{}
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Serve the console: resources, kinds and checks in a browser",
		Long: "console serves the console of an installation until it is interrupted. It needs no client: one process is enough.\n\n" +
			"It is read-only, unless --allow-commands is given. On a loopback address it answers this machine without asking who it is; on any other\n" +
			"it refuses to serve without a token. A browser asks for it as a password, of any user: the log has that name with each command. A program sends it as a\n" +
			"bearer token. Put a proxy with TLS in front of it, or the token can be read on the way.\n" +
			"A program can mount the console itself, with users and rights of its own: docs/console.md.",
		Example: "  delta console\n" +
			"  delta console --listen :8234 --token-file /run/secrets/console --allow-commands",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serveConsole(cmd, f) },
	}
	c.databaseFlag(cmd)
	c.connectionFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", fmt.Sprintf("127.0.0.1:%d", localconsole.DefaultPort), "`host:port` to listen on")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token that users need, of 16 bytes at least (default $"+consoleTokenVariable+", or none)")
	flags.BoolVar(&f.allowCommands, "allow-commands", false, "let users give commands: retry, delete, pause, inform and the like")
	flags.StringVar(&f.temporalUI, "temporal-ui", "", "`address` of the namespace in Temporal's UI, such as http://localhost:8233/namespaces/default (default no links)")
	flags.StringVar(&f.streamURL, "stream-url", "", "`address` of delta stream, such as http://localhost:8080/, for links to the changes of slots (default no links)")
	return cmd
}

// token is the token that users need; empty for none.
func (f *consoleFlags) token() (string, error) {
	if f.tokenFile == "" {
		return os.Getenv(consoleTokenVariable), nil
	}
	text, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	return onlyLine("--token-file "+f.tokenFile, text)
}

func (c *cli) serveConsole(cmd *cobra.Command, f *consoleFlags) error {
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return fmt.Errorf("--listen %q: it must be a host and a port, such as 127.0.0.1:%d", f.listen, localconsole.DefaultPort)
	}
	database, err := c.database()
	if err != nil {
		return err
	}
	token, err := f.token()
	if err != nil {
		return err
	}
	return fail(withPool(cmd.Context(), database, func(ctx context.Context, pool *pgxpool.Pool) error {
		logger := slog.New(slog.NewTextHandler(c.err, nil))
		client, err := c.connecting(ctx, pool, logger)
		if err != nil {
			return err
		}
		defer stop(ctx, client)
		handler, err := f.handler(client, token, logger)
		if err != nil {
			return &usageError{err}
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
		if err != nil {
			return err
		}
		if address, ok := listener.Addr().(*net.TCPAddr); token == "" && (!ok || !address.IP.IsLoopback()) {
			_ = listener.Close()
			return &usageError{fmt.Errorf("--listen %s: anybody could reach it: set %s or give --token-file, or listen on a loopback address", f.listen, consoleTokenVariable)}
		}
		mode := "read-only: --allow-commands lets users give commands"
		if f.allowCommands {
			mode = "users may give commands"
		}
		_, _ = fmt.Fprintf(c.err, "delta console: http://%s/ (%s)\n", listener.Addr(), mode)
		return serveUntil(ctx, listener, &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}, consoleGrace)
	}))
}

func (f *consoleFlags) handler(client *delta.Client, token string, logger *slog.Logger) (http.Handler, error) {
	config := console.Config{Token: token, TemporalUI: f.temporalUI, StreamURL: f.streamURL, Logger: logger}
	if f.allowCommands {
		config.Authorize = func(*http.Request, console.Command) bool { return true }
	}
	return console.Handler(client, config)
}
