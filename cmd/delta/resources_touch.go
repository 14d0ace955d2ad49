package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func touchCommand(c *cli) *cobra.Command {
	states := undeletedStates()
	return bulkCommand{
		verb: "touch", doneOne: "will be synced", doneMany: "will be synced", states: states, defaultStates: states,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return s.Touch
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.TouchAll },
	}.newCommand(c, &cobra.Command{
		Short: "Sync resources because their external objects have changed",
		Long: "Sync resources in any state but deleted, by name or by filters. Work is called again even for a resource that is being worked\n" +
			"on, because the running call may have read the old external object.",
		Example: "  delta resources touch user usr_3kd81mQa7Lp\n" +
			"  delta resources touch --kind user --tag premium --dry-run",
	})
}
