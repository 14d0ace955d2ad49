package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func reviveCommand(c *cli) *cobra.Command {
	deleted := []deltatype.ResourceState{deltatype.ResourceStateDeleted}
	return choosing{
		verb: "revive", doneOne: "is not deleted any longer and will be synced", doneMany: "will be synced", states: deleted, usual: deleted, everything: true,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return s.Revive
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.ReviveAll },
	}.command(c, &cobra.Command{
		Short: "Have deleted resources synced again",
		Long: "revive takes deleted resources by name, or all that match filters, and has them synced as they were informed last.\n" +
			"What a complete listing left out comes back by itself when it is listed again; what Work or a person deleted does not.",
		Example: "  delta resources revive user usr_3kd81mQa7Lp\n" +
			"  delta resources revive --kind user --dry-run",
	})
}
