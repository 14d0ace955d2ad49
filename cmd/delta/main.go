// Command delta operates an installation of Delta: its schema, kinds, resources and informers. It also runs the servers for development.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/internal/buildinfo"
)

const about = `Operate an installation of Delta: its schema, kinds, resources and informers.
delta also runs the servers that you need for development.

Settings, highest precedence first:
  flags        --database-url, --temporal-address, --temporal-namespace, --prefix, --task-queue
  environment  DELTA_DATABASE_URL; TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS…
  file         temporal.toml, with the profile that TEMPORAL_PROFILE names
The default of --prefix is the prefix that the clients of the database use.

Exit codes:
  0    done
  1    failed
  2    wrong usage: an invalid flag, argument or value
  3    there is no such resource, or no such kind
  4    the state of the resource does not allow it
  5    Postgres or Temporal cannot be reached, or Delta's schema or the message store is missing
  130  interrupted
delta doctor has its own: 0 all is well, 1 warnings, 2 failures.`

func main() {
	os.Exit(run(context.Background(), os.Args[1:], processStreams()))
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	root := rootCommand(&cli{streams: s})
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCodeOf(err)
	if silent := (*silentExit)(nil); errors.As(err, &silent) {
		return code
	}
	s.printNote("delta: " + formatError(err))
	if code == exitUsage && !isFailure(err) {
		_, _ = fmt.Fprintf(s.err, "Run '%s --help' for usage.\n", command.CommandPath())
	}
	return code
}

func rootCommand(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:           "delta",
		Short:         "Keep a Postgres table of resources in step with the world",
		Long:          about,
		Version:       buildinfo.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.AddGroup(&cobra.Group{ID: groupOperate, Title: "Read and command:"}, &cobra.Group{ID: groupSetup, Title: "Set up:"})
	root.SetHelpCommandGroupID(groupSetup)
	root.SetCompletionCommandGroupID(groupSetup)
	for id, commands := range map[string][]*cobra.Command{
		groupOperate: {
			doctorCommand(c), informCommand(c), informsCommand(c), kindsCommand(c), messagesCommand(c), namespacesCommand(c), pauseCommand(c), resourcesCommand(c),
			resumeCommand(c),
		},
		groupSetup: {consoleCommand(c), devCommand(c), metricsCommand(c), migrateCommand(c), restoredCommand(c), sinkCommand(), streamCommand(c)},
	} {
		for _, cmd := range commands {
			cmd.GroupID = id
			root.AddCommand(cmd)
		}
	}
	return root
}

const (
	groupOperate = "look"
	groupSetup   = "serve"
)
