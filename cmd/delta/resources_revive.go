package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func reviveCommand(c *cli) *cobra.Command {
	deleted := []deltatype.ResourceState{deltatype.ResourceStateDeleted}
	return bulkCommand{
		verb: "revive", doneOne: "is not deleted any longer and will be synced", doneMany: "will be synced", states: deleted, defaultStates: deleted, hasAllFlag: true,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return s.Revive
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.ReviveAll },
	}.newCommand(c, &cobra.Command{
		Short: "Undelete resources and sync them again",
		Long: "Undelete resources by name or by filters, and sync the objects that were informed last. A resource that was deleted because a\n" +
			"complete listing left it out comes back by itself when it is listed again; one that Work or a person deleted does not.",
		Example: "  delta resources revive user usr_3kd81mQa7Lp\n" +
			"  delta resources revive --kind user --dry-run",
	})
}
