package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// restoredCommand decides what a database is that was restored from a backup.
func restoredCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restored",
		Short: "Decide whether a restored database is the original from now on, or a copy",
		Long: "Decide whether a database that was restored from a backup takes the place of the original, or is a copy. Clients do not\n" +
			"start on it before, because two databases in one Temporal namespace would share their workflows.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("missing subcommand: adopt or separate")
		},
	}
	c.addTemporalFlags(cmd)
	add := func(use, short, long, question, done string, do func(context.Context, *session) error) {
		var yes bool
		added := &cobra.Command{
			Use: use, Short: short, Long: long, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return c.withSession(cmd, func(ctx context.Context, s *session) error {
					if err := c.askToConfirm(ctx, yes, question); err != nil {
						return err
					}
					if err := do(ctx, s); err != nil {
						return err
					}
					if asked, err := c.printJSON(map[string]any{"done": use}); asked {
						return err
					}
					_, err := fmt.Fprintln(c.out, done)
					return err
				})
			},
		}
		added.Flags().BoolVar(&yes, "yes", false, "do not ask")
		cmd.AddCommand(added)
	}
	add("adopt", "It takes the place of the original, in the same Temporal namespace",
		"It takes the place of the original, in the same Temporal namespace and with the same prefix. Stop the clients of the original\n"+
			"first. All lifecycles are dispatched again from the rows, and positions in the log of changes are refused from then on.",
		"Have all clients of the original been stopped?",
		"the database takes the place of the original: start its clients, and consumers of its log of changes with Restart",
		func(ctx context.Context, s *session) error {
			if err := s.requireTemporal(ctx); err != nil {
				return err
			}
			return s.AdoptRestored(ctx)
		})
	add("separate", "It is a copy beside the original, which goes on",
		"It is a copy beside the original, which goes on. It becomes an installation of its own, whose clients need another prefix\n"+
			"(Config.WorkflowIDPrefix). No client may run on it. Resources that are due are worked like any others when its clients start,\n"+
			"so give its controllers another outside world.",
		"Is this database a copy, and does no client run on it?",
		"the database is an installation of its own: start its clients with another Config.WorkflowIDPrefix",
		func(ctx context.Context, s *session) error { return s.SeparateCopy(ctx) })
	return cmd
}
