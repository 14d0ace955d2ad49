package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/internal/localconsole"
	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/migrations"
)

// devStopTimeout is how long the servers may take to stop after the first Ctrl-C.
const devStopTimeout = 30 * time.Second

func devCommand(c *cli) *cobra.Command {
	var opts stack.Options
	consolePort := localconsole.DefaultPort
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run Postgres, Temporal and the console for development, until Ctrl-C",
		Long: "Run a private Postgres with Delta's tables, a Temporal development server with its UI, and the console, in the foreground.\n" +
			"Data is kept for the next run, unless you pass --ephemeral.\n\n" +
			"To use servers that already run, set DELTA_DATABASE_URL or TEMPORAL_ADDRESS.\n" +
			"The first Ctrl-C stops the servers in order; a second one kills them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, port := range []string{"postgres-port", "temporal-port", "ui-port", "console-port"} {
				if n, _ := cmd.Flags().GetInt(port); n < 0 || n > 65535 {
					return fmt.Errorf("--%s %d is not a port", port, n)
				}
			}
			return markFailure(runDevStack(cmd.Context(), opts, consolePort, c))
		},
	}
	where := "no default"
	if dir, err := stack.DefaultDir(); err == nil {
		where = "default " + dir
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Dir, "dir", "", "`directory` for data and logs ("+where+")")
	flags.BoolVar(&opts.Ephemeral, "ephemeral", false, "keep nothing")
	flags.IntVar(&opts.PostgresPort, "postgres-port", stack.DefaultPostgresPort, "preferred port of Postgres; 0 is the default")
	flags.IntVar(&opts.TemporalPort, "temporal-port", stack.DefaultTemporalPort, "preferred port of Temporal; 0 is the default")
	flags.IntVar(&opts.UIPort, "ui-port", stack.DefaultUIPort, "preferred port of Temporal's UI; 0 is the default")
	flags.IntVar(&consolePort, "console-port", consolePort, "preferred port of the console; 0 is any")
	cmd.MarkFlagsMutuallyExclusive("dir", "ephemeral")
	c.addOutputFlag(cmd)
	return cmd
}

// runDevStack runs the stack until a signal arrives or a server dies.
func runDevStack(ctx context.Context, opts stack.Options, consolePort int, c *cli) (err error) {
	stderr := c.err
	// The first signal stops the servers, the second kills them. Both are caught from here on, so that no signal leaves a server running.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	running, interrupt := context.WithCancel(ctx)
	defer interrupt()
	stopping, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	go func() {
		select {
		case <-signals:
			_, _ = fmt.Fprintln(stderr, "\nStopping (Ctrl-C again kills)…")
			interrupt()
		case <-stopping.Done():
			return
		}
		select {
		case <-signals:
			_, _ = fmt.Fprintln(stderr, "\nKilling…")
			kill()
		case <-stopping.Done():
		}
	}()

	opts.Progress = func(text string) { _, _ = fmt.Fprintln(stderr, "  "+text) }
	_, _ = fmt.Fprintln(stderr, "Starting Postgres and Temporal…")
	s, err := stack.Start(running, opts)
	if err != nil {
		if running.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // stopped by a signal during the start
		}
		return err
	}
	defer func() {
		orderly, cancel := context.WithTimeout(stopping, devStopTimeout)
		defer cancel()
		if stopErr := s.Stop(orderly); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("stopping: %w", stopErr))
			return
		}
		_, _ = fmt.Fprintln(stderr, "Stopped.")
	}()
	if err := migrateDatabase(running, s.DatabaseURL); err != nil {
		if running.Err() != nil {
			return nil
		}
		return err
	}
	consoleURL, closeConsole, err := serveDevConsole(running, s, consolePort)
	if err != nil {
		return err
	}
	defer closeConsole()
	done, err := c.printJSON(map[string]any{
		"database_url": s.DatabaseURL, "temporal_address": s.TemporalAddress, "temporal_namespace": s.TemporalNamespace, "ui_url": s.UIURL, "console_url": consoleURL,
	})
	if err != nil {
		return err
	}
	if !done {
		announceStack(c.out, s, consoleURL, opts.Ephemeral)
	}
	select {
	case <-running.Done():
		return nil
	case <-s.Done():
		return s.Err()
	}
}

// serveDevConsole serves the console of the stack on loopback.
func serveDevConsole(ctx context.Context, s *stack.Stack, port int) (address string, closeConsole func(), err error) {
	pool, err := pgxpool.New(ctx, s.DatabaseURL)
	if err != nil {
		return "", nil, fmt.Errorf("opening the database: %w", err)
	}
	served := &cli{streams: streams{err: io.Discard}, temporalAddress: s.TemporalAddress, temporalNamespace: s.TemporalNamespace}
	client, err := served.newLazyClient(ctx, pool, slog.New(slog.DiscardHandler))
	if err != nil {
		pool.Close()
		return "", nil, err
	}
	address, closeServer, err := localconsole.Serve(ctx, client, port, s.UIURL, s.TemporalNamespace)
	if err != nil {
		pool.Close()
		return "", nil, fmt.Errorf("serving the console: %w", err)
	}
	return address, func() { closeServer(); stopClient(ctx, client); pool.Close() }, nil
}

func migrateDatabase(ctx context.Context, databaseURL string) error {
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	defer pool.Close()
	return migrations.Up(ctx, pool)
}

// announceStack prints the addresses of the servers, and how to use them.
func announceStack(w io.Writer, s *stack.Stack, consoleURL string, ephemeral bool) {
	lines := [][2]string{
		{"Postgres", s.DatabaseURL},
		{"Temporal", fmt.Sprintf("%s (namespace %s)", s.TemporalAddress, s.TemporalNamespace)},
	}
	if s.UIURL != "" {
		lines = append(lines, [2]string{"Temporal UI", s.UIURL})
	}
	lines = append(lines, [2]string{"Console", consoleURL})
	switch {
	case s.Dir == "":
	case ephemeral:
		lines = append(lines, [2]string{"Data", "nothing is kept"})
	default:
		lines = append(lines, [2]string{"Data", s.Dir + " (kept)"})
	}
	_, _ = fmt.Fprint(w, "\nDelta is ready.\n\n")
	for _, line := range lines {
		_, _ = fmt.Fprintf(w, "  %-12s %s\n", line[0], line[1])
	}
	_, _ = fmt.Fprintf(w, "\nIn another terminal:\n\n  export DELTA_DATABASE_URL=%s\n  export TEMPORAL_ADDRESS=%s\n",
		quoteShell(s.DatabaseURL), quoteShell(s.TemporalAddress))
	if s.TemporalNamespace != "default" {
		_, _ = fmt.Fprintf(w, "  export TEMPORAL_NAMESPACE=%s\n", quoteShell(s.TemporalNamespace))
	}
	_, _ = fmt.Fprint(w, "  psql \"$DELTA_DATABASE_URL\" -c 'select kind, state, count(*) from delta_resource group by 1, 2'\n\nCtrl-C stops it.\n")
}

// quoteShell quotes s, so that a shell reads it as one word.
func quoteShell(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
