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

// decision is one that a person makes about deletions that were withheld.
type decision struct {
	verb, short, long, done string
	decide                  func(s *session) func(ctx context.Context, kind, shard string, missing int64) (*delta.Withheld, error)
}

// approveCommand and dismissCommand are subcommands of informs.
func approveCommand(c *cli) *cobra.Command {
	return decision{
		verb: "approve", short: "Have what a complete listing no longer has deleted, although it is suspiciously much, or all",
		long: "approve allows the next complete listing of a kind to mark deleted what it leaves out, up to as many resources as are\n" +
			"withheld now. It asks before. Run the informer at once with delta inform KIND. With --shard it is about one shard, also about\n" +
			"one that the controller no longer names.",
		done: "the next complete listing marks deleted what it leaves out: delta inform %s runs one",
		decide: func(s *session) func(context.Context, string, string, int64) (*delta.Withheld, error) {
			return s.ApproveWithheld
		},
	}.command(c)
}

func dismissCommand(c *cli) *cobra.Command {
	return decision{
		verb: "dismiss", short: "Keep what a complete listing no longer has",
		long: "dismiss keeps what the listings of a kind leave out, and has kinds and doctor say no more of it, until a listing leaves\n" +
			"out more than now.",
		done: "what the listings of %s leave out is kept",
		decide: func(s *session) func(context.Context, string, string, int64) (*delta.Withheld, error) {
			return s.DismissWithheld
		},
	}.command(c)
}

// command makes a command of it.
func (d decision) command(c *cli) *cobra.Command {
	var yes bool
	var shard string
	cmd := &cobra.Command{
		Use: d.verb + " KIND", Short: d.short, Long: d.long, Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeKindFirst,
		Example: "  delta informs " + d.verb + " user",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error { return c.decide(ctx, s, d, args[0], shard, yes) })
		},
	}
	shardFlag(cmd, &shard, "decide of this `shard` of the kind")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// withheldJSON is a deletion that is withheld, as --output json shows it.
type withheldJSON struct {
	Missing   int64      `json:"missing"`
	Total     int64      `json:"total"`
	Reason    string     `json:"reason"`
	Since     time.Time  `json:"since"`
	SeenAt    time.Time  `json:"seen_at"`
	Decision  string     `json:"decision"`
	DecidedAt *time.Time `json:"decided_at"`
}

func withheldOf(w *delta.Withheld) *withheldJSON {
	if w == nil {
		return nil
	}
	return &withheldJSON{Missing: w.Missing, Total: w.Total, Reason: w.Reason, Since: w.Since, SeenAt: w.SeenAt, Decision: w.Decision, DecidedAt: w.DecidedAt}
}

// missing says how much is withheld.
func (w *withheldJSON) missing() string {
	return fmt.Sprintf("%s of %s", wording.Number(w.Missing), wording.Number(w.Total))
}

func (c *cli) decide(ctx context.Context, s *session, d decision, kind, shard string, yes bool) error {
	if err := s.needKind(ctx, kind); err != nil {
		return err
	}
	all, err := s.Withheld(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(w delta.Withheld) bool { return w.Kind == kind && w.Shard == shard })
	if at < 0 {
		return fmt.Errorf("%s: %w: the last complete listing of %s left out no more than may be deleted", d.verb, delta.ErrNotWithheld, inShard(kind, shard))
	}
	looked := withheldOf(&all[at])
	if err := c.confirm(ctx, yes, fmt.Sprintf("%s the deletion of %s resources of kind %s?", decision{verb: d.verb}.title(), looked.missing(), inShard(kind, shard))); err != nil {
		return err
	}
	decided, err := d.decide(s)(ctx, kind, shard, looked.Missing)
	if err != nil {
		return err
	}
	if done, err := c.json(withheldOf(decided)); done {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s: "+d.done+"\n", looked.missing(), kind+remedy.ShardFlag(shard))
	return err
}

func (d decision) title() string { return choosing{verb: d.verb}.title() }
