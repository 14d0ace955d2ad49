package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

// workflowIDJSON is a workflow id as --output json shows it.
type workflowIDJSON struct {
	Kind       string `json:"kind"`
	ObjectID   string `json:"object_id"`
	WorkflowID string `json:"workflow_id"`
}

func workflowIDCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workflow-id KIND ID",
		Short: "Print the id of a resource's workflow in Temporal",
		Long: "Print the id of a resource's workflow in Temporal, for signals and queries by hand. The resource need not exist.\n\n" +
			"Spaces, '%', '~' and bytes that are not printable ASCII are written as %XX. Long ids are cut and end in a hash. If object ids are\n" +
			"kept from Temporal, the id has a hash instead of the object's id.",
		Example: "  temporal workflow query --type state --workflow-id \"$(delta resources workflow-id user usr_3kd81mQa7Lp)\"",
		Args:    cobra.ExactArgs(2),

		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error {
				id, err := s.WorkflowID(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				if done, err := c.printJSON(workflowIDJSON{Kind: args[0], ObjectID: args[1], WorkflowID: id}); done {
					return err
				}
				_, err = fmt.Fprintln(c.out, id)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&c.prefix, "prefix", "", "`prefix` of workflow ids, Config.WorkflowIDPrefix (default the one in the database)")
	return cmd
}
