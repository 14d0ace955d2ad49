// Command delta-sink delivers changes to webhooks, NATS, Kafka, Redis and Message DB as a file says, so that no Go program is needed:
// `delta sink run -f sink.yaml` executes this program. docs/sinks.md describes the file.
//
// It is a separate module, so that its clients of NATS, Kafka and Redis are in no other module graph.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/internal/buildinfo"
)

// Exit codes are those of the command delta.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// The values of --log-format.
const (
	logText = "text"
	logJSON = "json"
)

func main() {
	// The first signal ends the context and restores the default handlers, so a second one kills the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// failure marks an error that is neither one of usage nor one of the file.
type failure struct{ error }

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if invalid := (*fileError)(nil); errors.As(err, &invalid) {
		_, _ = fmt.Fprintln(stderr, invalid) // its lines begin with the file's name, so that editors can jump to them
		return exitUsage
	}
	_, _ = fmt.Fprintln(stderr, "delta sink:", err)
	if failed := (*failure)(nil); errors.As(err, &failed) {
		return exitFailure
	}
	return exitUsage
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:     "delta-sink",
		Short:   "Deliver changes to webhooks and message systems as a file says",
		Version: buildinfo.Version(),
		Long: "delta-sink delivers the changes of tables, of Delta's log, or of a Message DB category to\n" +
			"webhooks, NATS, Kafka, Redis and Message DB: at least once, in the order\n" +
			"of their keys. `delta sink` executes it. docs/sinks.md describes the file.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	var file string
	check := &cobra.Command{
		Use:   "check -f FILE",
		Short: "Validate a file, and connect to nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			relays, err := loadFile(file)
			if err != nil {
				return err
			}
			for _, r := range relays {
				_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s → %s\n", r.name, r.sourceType, r.sinkType)
			}
			return nil
		},
	}
	var o options
	run := &cobra.Command{
		Use:   "run -f FILE",
		Short: "Run the relays of a file until it is interrupted",
		Long: "run delivers until it is interrupted or terminated, and then waits for deliveries that are under way.\n" +
			"The exit code is 0 then, 1 if all relays have ended before, and 2 if the file is wrong.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runFile(cmd.Context(), file, o, cmd.ErrOrStderr()) },
	}
	run.Flags().StringVar(&o.metrics, "metrics", "", "`host:port` that serves /metrics, /healthz, /readyz and /livez, without tokens (default none)")
	run.Flags().StringVar(&o.logFormat, "log-format", logText, "`format` of the log: text, or json with one object on each line")
	run.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "log more; never bodies")
	for _, cmd := range []*cobra.Command{check, run} {
		cmd.Flags().StringVarP(&file, "file", "f", "", "`file` with the relays, in YAML")
		if err := cmd.MarkFlagRequired("file"); err != nil {
			panic(err) // there is no such flag
		}
		root.AddCommand(cmd)
	}
	return root
}

// options are the flags of run.
type options struct {
	metrics, logFormat string
	verbose            bool
}

// runFile runs the relays of a file until the context ends.
func runFile(ctx context.Context, file string, o options, stderr io.Writer) error {
	if o.logFormat != logText && o.logFormat != logJSON {
		return fmt.Errorf("--log-format %q: it must be %s or %s", o.logFormat, logText, logJSON)
	}
	if o.metrics != "" {
		if _, _, err := net.SplitHostPort(o.metrics); err != nil {
			return fmt.Errorf("--metrics %q: it must be a host and a port, such as 127.0.0.1:9464", o.metrics)
		}
	}
	relays, err := loadFile(file)
	if err != nil {
		return err
	}
	s := newSupervisor(relays, o.newLogger(stderr))
	if o.metrics != "" {
		stop, err := s.serveHTTP(ctx, o.metrics)
		if err != nil {
			return &failure{err}
		}
		defer stop()
	}
	if ended := s.run(ctx); len(ended) > 0 {
		return &failure{fmt.Errorf("relays have ended by themselves: %s", strings.Join(ended, ", "))}
	}
	return nil
}

func (o options) newLogger(w io.Writer) *slog.Logger {
	handler := &slog.HandlerOptions{Level: slog.LevelInfo}
	if o.verbose {
		handler.Level = slog.LevelDebug
	}
	if o.logFormat == logJSON {
		return slog.New(slog.NewJSONHandler(w, handler))
	}
	return slog.New(slog.NewTextHandler(w, handler))
}
