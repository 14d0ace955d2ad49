package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func deleteCommand(c *cli) *cobra.Command {
	states := undeletedStates()
	return bulkCommand{
		verb: "delete", doneOne: "is deleted", doneMany: "marked deleted", states: states, defaultStates: states, hasAllFlag: true, isAskingFirst: true,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return s.Delete
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.DeleteAll },
	}.newCommand(c, &cobra.Command{
		Short: "Mark resources deleted, so that they are no longer worked on",
		Long: "Mark resources deleted in any state, by name or by filters. The external objects stay as they are. Informers do not bring\n" +
			"the resources back; an explicit inform or delta resources revive does. Their rows are removed after the retention period of\n" +
			"deleted resources.",
		Example: "  delta resources delete user usr_3kd81mQa7Lp\n" +
			"  delta resources delete --kind user --state degraded --dry-run\n" +
			"  delta resources delete --all",
	})
}
