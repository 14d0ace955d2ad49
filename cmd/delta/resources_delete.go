package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func deleteCommand(c *cli) *cobra.Command {
	states := undeleted()
	return choosing{
		verb: "delete", doneOne: "is deleted", doneMany: "marked deleted", states: states, usual: states, everything: true, asks: true,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return s.Delete
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.DeleteAll },
	}.command(c, &cobra.Command{
		Short: "Mark resources deleted: they are not worked on any longer",
		Long: "delete marks resources deleted, whatever state they are in: those by name, or all that match filters. What is outside\n" +
			"is left as it is. An informer does not bring them back, an explicit inform and revive do; their rows are removed after\n" +
			"the retention period of deleted resources.",
		Example: "  delta resources delete user usr_3kd81mQa7Lp\n" +
			"  delta resources delete --kind user --state degraded --dry-run\n" +
			"  delta resources delete --all",
	})
}
