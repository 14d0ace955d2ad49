package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta/deltatype"
)

func invalidateCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "invalidate KIND ID...",
		Short:             "Have synced resources synced again at once",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error {
				return c.act(ctx, "invalidate", "is expired and will be synced again", args[0], args[1:],
					func(ctx context.Context, kind, id string) (*deltatype.ResourceRow, error) {
						return s.Invalidate(ctx, named{kind, id})
					})
			})
		},
	}
}
