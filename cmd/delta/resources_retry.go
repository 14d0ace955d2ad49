package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func retryCommand(c *cli) *cobra.Command {
	return bulkCommand{
		verb: "retry", doneOne: "will be tried again", doneMany: "will be tried again",
		states:        []deltatype.ResourceState{deltatype.ResourceStateDegraded, deltatype.ResourceStateFailed},
		defaultStates: []deltatype.ResourceState{deltatype.ResourceStateDegraded},
		hasAllFlag:    true,
		one: func(s *session) func(context.Context, string, string) (*deltatype.ResourceRow, error) {
			return s.Retry
		},
		many: func(s *session) func(context.Context, delta.Filter) (int, error) { return s.RetryAll },
	}.newCommand(c, &cobra.Command{
		Short: "Retry degraded or failed resources at once",
		Long: "Retry resources by name or by filters. By name they may be degraded, or failed and waiting for their next attempt. Filters select\n" +
			"degraded resources, or with --state failed the failed ones. The attempt counter is reset.",
		Example: "  delta resources retry user usr_3kd81mQa7Lp\n" +
			"  delta resources retry --kind user --state degraded,failed --yes",
	})
}
