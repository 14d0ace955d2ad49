// Command modules keeps a Postgres table of a Go project's dependencies in step with its module proxy. `make demo` runs it. It is an example of Delta on real
// data:
//
//   - [Module] is the object, a line of a go.mod; its controller lists them (List) and looks one up at the proxy (Work).
//   - Work writes its result into the application's own table, with a guard so that an older write never overwrites a newer one.
//   - Each answer expires and is looked up again. A failure is retried, for days if necessary. A module that is gone from the proxy or from the go.mod is
//     deleted.
//
// It starts its own Postgres and Temporal, and keeps no data: each run starts with an empty table, within a few seconds, and shows all of the work.
// DELTA_DATABASE_URL and TEMPORAL_ADDRESS name servers to use instead; an existing database keeps its table. With DEMO_ONCE=1 it ends after the first full
// pass.
package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

// options has the settings from the command line and the environment.
type options struct {
	modfile string
	prefix  string
	every   time.Duration
	rate    float64
	once    bool
}

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	started := false
	cmd := &cobra.Command{
		Use:   "modules",
		Short: "Keep a Postgres table of a Go project's dependencies in step with its module proxy",
		Long: "List the requirements of a go.mod, look up their latest versions at the module proxies of `go env GOPROXY`, and write them\n" +
			"to the table module. Everything is checked again and again, until Ctrl-C.\n\n" +
			"Environment:\n" +
			"  DEMO_ONCE=1         end after the first full pass, with exit code 0 also when modules failed\n" +
			"  DELTA_DATABASE_URL  use this Postgres instead of a private one\n" +
			"  TEMPORAL_ADDRESS    use this Temporal instead of a private one\n" +
			"  GOPROXY, GONOPROXY, GOPRIVATE  as for the go command",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.every <= 0 {
				return fmt.Errorf("--every %s: must be more than 0", o.every)
			}
			if !(o.rate > 0) || math.IsInf(o.rate, 0) {
				return fmt.Errorf("--rate %v: must be more than 0", o.rate)
			}
			started = true
			return runDemo(cmd.Context(), o, stdout)
		},
	}
	once := os.Getenv("DEMO_ONCE")
	o.once = once != "" && once != "0"
	flags := cmd.Flags()
	flags.StringVar(&o.modfile, "modfile", "", "`file` to watch (default: the go.mod here or in the nearest directory above)")
	flags.DurationVar(&o.every, "every", 2*time.Minute, "how `long` an answer is valid before it is looked up again")
	flags.Float64Var(&o.rate, "rate", 10, "maximum number of `requests` a second to proxies")
	flags.StringVar(&o.prefix, "prefix", "delta", "`prefix` of the ids of workflows")
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)

	switch err := cmd.ExecuteContext(ctx); {
	case err == nil:
		return exitOK
	case started:
		_, _ = fmt.Fprintln(stderr, "modules:", err)
		return exitFailure
	default:
		_, _ = fmt.Fprintf(stderr, "modules: %v\nRun with --help for usage.\n", err)
		return exitUsage
	}
}
