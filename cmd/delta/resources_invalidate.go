package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func invalidateCommand(c *cli) *cobra.Command {
	return choosing{
		verb: "invalidate", doneOne: "is expired and will be synced again", doneMany: "will be synced again",
		states:     []deltatype.ResourceState{deltatype.ResourceStateSynced},
		usual:      []deltatype.ResourceState{deltatype.ResourceStateSynced},
		everything: true,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return func(ctx context.Context, kind, id string) (*deltatype.ResourceRow, error) {
				return s.Invalidate(ctx, named{kind, id})
			}
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.InvalidateAll },
	}.command(c, &cobra.Command{
		Short: "Have synced resources synced again at once",
		Long:  "invalidate takes resources by name, or all synced ones that match filters.",
		Example: "  delta resources invalidate user usr_3kd81mQa7Lp\n" +
			"  delta resources invalidate --kind user --tag premium --dry-run",
	})
}
