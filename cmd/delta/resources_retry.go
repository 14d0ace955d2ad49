package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func retryCommand(c *cli) *cobra.Command {
	return choosing{
		verb: "retry", doneOne: "will be tried again", doneMany: "will be tried again",
		states:     []deltatype.ResourceState{deltatype.ResourceStateDegraded, deltatype.ResourceStateFailed},
		usual:      []deltatype.ResourceState{deltatype.ResourceStateDegraded},
		everything: true,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return s.Retry
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.RetryAll },
	}.command(c, &cobra.Command{
		Short: "Have degraded or failed resources tried again at once",
		Long: "retry takes resources by name, or all that match filters. Those by name may be degraded, or failed and waiting.\n" +
			"Filters take degraded ones, and failed ones with --state failed. All attempts are before them again.",
		Example: "  delta resources retry user usr_3kd81mQa7Lp\n" +
			"  delta resources retry --kind user --state degraded,failed --yes",
	})
}
