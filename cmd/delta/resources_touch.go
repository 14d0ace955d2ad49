package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func touchCommand(c *cli) *cobra.Command {
	states := undeleted()
	return choosing{
		verb: "touch", doneOne: "will be synced", doneMany: "will be synced", states: states, usual: states,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return s.Touch
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.TouchAll },
	}.command(c, &cobra.Command{
		Short: "Have resources synced because something has changed outside",
		Long: "touch takes resources by name, or all that match filters, whatever state they are in, but for deleted ones. A call of\n" +
			"Work begins after it, also for those that are being worked on: that call may have read what was there before.",
		Example: "  delta resources touch user usr_3kd81mQa7Lp\n" +
			"  delta resources touch --kind user --tag premium --dry-run",
	})
}
