// Command delta runs Delta's servers for development and applies its
// migrations.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "delta",
		Short: "Keep a Postgres table of resources in step with the world",
		Long: "delta runs the servers that Delta needs for development, and applies its migrations.\n\n" +
			"Exit codes: 0 success, 1 failure, 2 wrong usage.",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(devCommand(), migrateCommand())

	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "delta:", err)
	if failed := (*failure)(nil); errors.As(err, &failed) {
		return exitFailure
	}
	_, _ = fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", command.CommandPath())
	return exitUsage
}

// failure marks the error of a command that was used rightly. All others come
// from cobra, before a command runs, or say that it was used wrongly.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

func fail(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

func version() string {
	v := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("%s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
