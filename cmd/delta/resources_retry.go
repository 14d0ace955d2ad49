package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// counts no further than this before a question.
const countedBefore = 1000

func retryCommand(c *cli) *cobra.Command {
	var f filterFlags
	var yes, all bool
	cmd := &cobra.Command{
		Use:   "retry (KIND ID... | filters | --all)",
		Short: "Have degraded or failed resources tried again at once",
		Long: "retry takes resources by name, or all that match filters. Those by name may be degraded, or failed and waiting.\n" +
			"Filters take degraded ones, and failed ones with --state failed. All attempts are before them again.",
		Example: "  delta resources retry user ann@example.com\n" +
			"  delta resources retry --kind user --state degraded,failed --yes",
		ValidArgsFunction: c.completeKindFirst,
		Args: func(cmd *cobra.Command, args []string) error {
			switch byFilter := all || f.any(cmd); {
			case byFilter && len(args) > 0:
				return errors.New("give names or filters, not both")
			case len(args) == 1:
				return errors.New("give the id of a resource too, or --kind " + args[0])
			case !byFilter && len(args) == 0:
				return errors.New("say which: KIND ID, filters, or --all")
			}
			for _, state := range f.states {
				if s := deltatype.ResourceState(state); s != deltatype.ResourceStateDegraded && s != deltatype.ResourceStateFailed {
					return fmt.Errorf("--state %s: must be degraded or failed: the others are not retried", state)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error {
				if len(args) > 0 {
					return c.act(ctx, "retry", "will be tried again", args[0], args[1:], s.Retry)
				}
				return c.retryAll(ctx, s, f.filter(), yes)
			})
		},
	}
	f.add(c, cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all degraded resources")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask, for filters and --all")
	return cmd
}

func (c *cli) retryAll(ctx context.Context, s *session, filter delta.Filter, yes bool) error {
	if len(filter.States) == 0 {
		filter.States = []deltatype.ResourceState{deltatype.ResourceStateDegraded}
	}
	if !yes {
		found, err := s.List(ctx, filter, delta.Page{Limit: countedBefore})
		if err != nil {
			return err
		}
		what := counted(len(found), "resource")
		if len(found) == countedBefore {
			what = number(countedBefore) + " resources or more"
		}
		if len(found) > 0 {
			if err := c.confirm(ctx, false, "Retry "+what+"?"); err != nil {
				return err
			}
		}
	}
	count, err := s.RetryAll(ctx, filter)
	if err != nil {
		return fmt.Errorf("after %s: %w", counted(count, "resource"), err)
	}
	if done, err := c.json(actionJSON{Action: "retry", Count: count, Resources: []resourceJSON{}, Failed: []failedJSON{}}); done {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s will be tried again\n", counted(count, "resource"))
	return err
}
