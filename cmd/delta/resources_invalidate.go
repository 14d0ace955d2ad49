package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func invalidateCommand(c *cli) *cobra.Command {
	return bulkCommand{
		verb: "invalidate", doneOne: "is expired and will be synced again", doneMany: "will be synced again",
		states:        []deltatype.ResourceState{deltatype.ResourceStateSynced},
		defaultStates: []deltatype.ResourceState{deltatype.ResourceStateSynced},
		hasAllFlag:    true,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return func(ctx context.Context, kind, id string) (*deltatype.ResourceRow, error) {
				return s.Invalidate(ctx, objectName{kind, id})
			}
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.InvalidateAll },
	}.newCommand(c, &cobra.Command{
		Short: "Sync synced resources again at once",
		Long:  "Expire resources at once, so that they are synced again: by name, or all synced ones that match filters.",
		Example: "  delta resources invalidate user usr_3kd81mQa7Lp\n" +
			"  delta resources invalidate --kind user --tag premium --dry-run",
	})
}
