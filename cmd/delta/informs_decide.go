package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/internal/wording"
)

// decision is a command by which a person decides on withheld deletions.
type decision struct {
	verb, short, long, done string
	decide                  func(s *session) func(ctx context.Context, kind, shard string, missing int64) (*delta.Withheld, error)
}

// approveCommand and dismissCommand are subcommands of informs.
func approveCommand(c *cli) *cobra.Command {
	return decision{
		verb: "approve", short: "Approve withheld deletions, although suspiciously many resources are missing from the listings",
		long: "Allow the next complete listing of a kind to mark the resources that it leaves out deleted, up to as many as are withheld now.\n" +
			"The command asks first. To run the informer at once, use delta inform KIND. With --shard the decision is about one shard, which\n" +
			"may be one that the controller no longer names.",
		done: "the next complete listing marks deleted what it leaves out: delta inform %s runs one",
		decide: func(s *session) func(context.Context, string, string, int64) (*delta.Withheld, error) {
			return s.ApproveWithheld
		},
	}.newCommand(c)
}

func dismissCommand(c *cli) *cobra.Command {
	return decision{
		verb: "dismiss", short: "Dismiss withheld deletions, and keep the resources",
		long: "Keep the resources that the listings of a kind leave out. delta kinds and delta doctor no longer report them, until a listing leaves\n" +
			"out more than now.",
		done: "what the listings of %s leave out is kept",
		decide: func(s *session) func(context.Context, string, string, int64) (*delta.Withheld, error) {
			return s.DismissWithheld
		},
	}.newCommand(c)
}

// newCommand returns the command of the decision.
func (d decision) newCommand(c *cli) *cobra.Command {
	var yes bool
	var shard string
	cmd := &cobra.Command{
		Use: d.verb + " KIND", Short: d.short, Long: d.long, Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeKindFirst,
		Example: "  delta informs " + d.verb + " user",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error { return c.decideWithheld(ctx, s, d, args[0], shard, yes) })
		},
	}
	addShardFlag(cmd, &shard, "decide on this `shard` of the kind")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// withheldJSON is a withheld deletion as --output json shows it.
type withheldJSON struct {
	Missing   int64      `json:"missing"`
	Total     int64      `json:"total"`
	Reason    string     `json:"reason"`
	Since     time.Time  `json:"since"`
	SeenAt    time.Time  `json:"seen_at"`
	Decision  string     `json:"decision"`
	DecidedAt *time.Time `json:"decided_at"`
}

func toWithheldJSON(w *delta.Withheld) *withheldJSON {
	if w == nil {
		return nil
	}
	return &withheldJSON{Missing: w.Missing, Total: w.Total, Reason: w.Reason, Since: w.Since, SeenAt: w.SeenAt, Decision: w.Decision, DecidedAt: w.DecidedAt}
}

// formatMissing says how many resources the listings leave out, and of how many.
func (w *withheldJSON) formatMissing() string {
	return fmt.Sprintf("%s of %s", wording.Number(w.Missing), wording.Number(w.Total))
}

func (c *cli) decideWithheld(ctx context.Context, s *session, d decision, kind, shard string, yes bool) error {
	if err := s.requireKind(ctx, kind); err != nil {
		return err
	}
	all, err := s.Withheld(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(w delta.Withheld) bool { return w.Kind == kind && w.Shard == shard })
	if at < 0 {
		return fmt.Errorf("%s: %w: the last complete listing of %s left out no more than may be deleted", d.verb, delta.ErrNotWithheld, formatShard(kind, shard))
	}
	looked := toWithheldJSON(&all[at])
	if err := c.askToConfirm(ctx, yes, fmt.Sprintf("%s the deletion of %s resources of kind %s?", decision{verb: d.verb}.capitalizedVerb(), looked.formatMissing(), formatShard(kind, shard))); err != nil {
		return err
	}
	decided, err := d.decide(s)(ctx, kind, shard, looked.Missing)
	if err != nil {
		return err
	}
	if done, err := c.printJSON(toWithheldJSON(decided)); done {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s: "+d.done+"\n", looked.formatMissing(), kind+remedy.ShardFlag(shard))
	return err
}

func (d decision) capitalizedVerb() string { return bulkCommand{verb: d.verb}.capitalizedVerb() }
