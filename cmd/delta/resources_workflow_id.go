package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

// workflowIDJSON is the output of workflow-id with --output json.
type workflowIDJSON struct {
	Kind       string `json:"kind"`
	ObjectID   string `json:"object_id"`
	WorkflowID string `json:"workflow_id"`
}

func workflowIDCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workflow-id KIND ID",
		Short: "Print the id of a resource's workflow in Temporal",
		Long: "workflow-id prints the id under which Temporal knows the workflow of a resource, for signals and queries by hand.\n" +
			"Bytes that are not printable ASCII, spaces, '%' and '~' are written as %XX, and long ids are cut and end in a hash.\n" +
			"Where object ids are kept from Temporal, a hash stands for the object's. The resource need not be there.",
		Example: "  temporal workflow query --type state --workflow-id \"$(delta resources workflow-id user usr_3kd81mQa7Lp)\"",
		Args:    cobra.ExactArgs(2),

		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error {
				id, err := s.WorkflowID(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				if done, err := c.json(workflowIDJSON{Kind: args[0], ObjectID: args[1], WorkflowID: id}); done {
					return err
				}
				_, err = fmt.Fprintln(c.out, id)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&c.prefix, "prefix", "", "`prefix` of workflow ids, Config.WorkflowIDPrefix (default the one of the database)")
	return cmd
}
