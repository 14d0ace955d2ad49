package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func deleteCommand(c *cli) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete KIND ID...",
		Short: "Mark resources deleted: they are not worked on any longer",
		Long: "delete marks resources deleted, whatever state they are in. What is outside is left as it is. An informer does not\n" +
			"bring them back, an explicit inform does; their rows are removed after the retention period of deleted resources.",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error {
				what := fmt.Sprintf("%s/%s", args[0], plain(args[1]))
				if n := len(args) - 1; n > 1 {
					what = fmt.Sprintf("%s of kind %s", counted(n, "resource"), args[0])
				}
				if err := c.confirm(ctx, yes, "Delete "+what+"?"); err != nil {
					return err
				}
				return c.act(ctx, "delete", "is deleted", args[0], args[1:], s.Delete)
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
