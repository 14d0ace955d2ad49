package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

func informsCommand(c *cli) *cobra.Command {
	limit, shard := 20, ""
	cmd := &cobra.Command{
		Use:   "informs [KIND]",
		Short: "Show the latest passes of informers and their results",
		Long: "Show the latest passes of informers: what started each, how long it took, and its result. A run that fails is tried a few\n" +
			"times, and each try is a pass. The latest 1000 passes of each kind are kept, and 100 of each shard.",
		Example:           "  delta informs user --limit 100",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := ""
			if len(args) > 0 {
				kind = args[0]
			}
			if limit < 1 || limit > 10_000 {
				return fmt.Errorf("--limit %d: must be between 1 and 10000", limit)
			}
			return c.withSession(cmd, func(ctx context.Context, s *session) error { return c.printPasses(ctx, s, kind, shard, limit) })
		},
	}
	c.addTemporalFlags(cmd)
	cmd.Flags().IntVar(&limit, "limit", limit, "`maximum` number of passes to show")
	addShardFlag(cmd, &shard, "show only passes of this `shard`")
	cmd.AddCommand(approveCommand(c), dismissCommand(c))
	return cmd
}

// passJSON is a pass as --output json shows it.
type passJSON struct {
	ID          int64      `json:"id"`
	Kind        string     `json:"kind"`
	Shard       string     `json:"shard"`
	Trigger     string     `json:"trigger"`
	FullListing bool       `json:"full_listing"`
	WorkflowID  string     `json:"workflow_id"`
	RunID       string     `json:"run_id"`
	Attempt     int        `json:"attempt"`
	StartedAt   time.Time  `json:"started_at"`
	EndedAt     *time.Time `json:"ended_at"`
	Listed      int64      `json:"listed"`
	New         int64      `json:"new"`
	Changed     int64      `json:"changed"`
	Unchanged   int64      `json:"unchanged"`
	Stale       int64      `json:"stale"`
	Refused     int64      `json:"refused"`
	Unkept      int64      `json:"unkept"`
	Deleted     int64      `json:"deleted"`
	Withheld    int64      `json:"withheld"`
	Error       *string    `json:"error"`
}

type passesJSON struct {
	Passes []passJSON `json:"passes"`
}

func (c *cli) printPasses(ctx context.Context, s *session, kind, shard string, limit int) error {
	if kind != "" {
		if err := s.requireKind(ctx, kind); err != nil {
			return err
		}
	}
	all, err := s.InformPasses(ctx, kind, shard, limit)
	if err != nil {
		return err
	}
	out := passesJSON{Passes: make([]passJSON, len(all))}
	for i, p := range all {
		out.Passes[i] = toPassJSON(p)
	}
	if done, err := c.printJSON(out); done {
		return err
	}
	if len(all) == 0 {
		of := ""
		if shard != "" {
			of = " of shard " + wording.Line(shard)
		}
		c.printNote("There are no passes" + of + " yet.")
		return nil
	}
	return c.printPassTable(out.Passes, time.Now())
}

func toPassJSON(p delta.InformPass) passJSON {
	out := passJSON{
		ID: p.ID, Kind: p.Kind, Shard: p.Shard, Trigger: p.Trigger, FullListing: p.FullListing, WorkflowID: p.WorkflowID, RunID: p.RunID, Attempt: p.Attempt,
		StartedAt: p.StartedAt, EndedAt: p.EndedAt, Listed: p.Listed, New: p.New, Changed: p.Changed, Unchanged: p.Unchanged,
		Stale: p.Stale, Refused: p.Refused, Unkept: p.Unkept, Deleted: p.Deleted, Withheld: p.Withheld,
	}
	if p.Error != "" {
		out.Error = &p.Error
	}
	return out
}

// printPassTable has columns for rare results only if a pass has them, and prints errors below the table.
func (c *cli) printPassTable(all []passJSON, now time.Time) error {
	headers := []string{"KIND", "STARTED", "BY", "TOOK", "LISTED", "NEW", "CHANGED", "SAME"}
	rare := []struct {
		header string
		of     func(passJSON) int64
		shown  bool
	}{
		{header: "STALE", of: func(p passJSON) int64 { return p.Stale }},
		{header: "REFUSED", of: func(p passJSON) int64 { return p.Refused }},
		{header: "UNKEPT", of: func(p passJSON) int64 { return p.Unkept }},
		{header: "DELETED", of: func(p passJSON) int64 { return p.Deleted }},
		{header: "WITHHELD", of: func(p passJSON) int64 { return p.Withheld }},
	}
	for i := range rare {
		for _, p := range all {
			rare[i].shown = rare[i].shown || rare[i].of(p) > 0
		}
		if rare[i].shown {
			headers = append(headers, rare[i].header)
		}
	}
	rows := make([][]string, len(all))
	for i, p := range all {
		took := "runs"
		switch {
		case p.Error != nil:
			took = "failed"
		case p.EndedAt != nil:
			took = wording.Interval(p.EndedAt.Sub(p.StartedAt))
		}
		by := p.Trigger
		if p.FullListing {
			by += ", all"
		}
		rows[i] = []string{formatShard(p.Kind, p.Shard), wording.When(&p.StartedAt, now), by, took, wording.Number(p.Listed), wording.Number(p.New), wording.Number(p.Changed), wording.Number(p.Unchanged)}
		for _, r := range rare {
			if r.shown {
				rows[i] = append(rows[i], wording.Number(r.of(p)))
			}
		}
	}
	if err := c.printTable(headers, rows, 0); err != nil {
		return err
	}
	for _, p := range all {
		if p.Error != nil {
			c.printNote(fmt.Sprintf("%s, %s: %s", formatShard(p.Kind, p.Shard), p.StartedAt.Format(time.RFC3339), wording.Line(*p.Error)))
		}
	}
	return nil
}
