package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/remedy"
	"github.com/chariot-giving/delta/internal/wording"
)

// shardJSON is a shard of a kind as --output json shows it.
type shardJSON struct {
	Shard           string        `json:"shard"`
	Paused          bool          `json:"paused"`
	GoneSince       *time.Time    `json:"gone_since"`
	LastInformTime  *time.Time    `json:"last_inform_time"`
	LastFullListing *time.Time    `json:"last_full_listing"`
	LastSuccess     *time.Time    `json:"last_success"`
	LastFailure     *time.Time    `json:"last_failure"`
	LagSeconds      *float64      `json:"lag_seconds"`
	Error           *string       `json:"error"`
	Withheld        *withheldJSON `json:"withheld"`
}

func shardsOf(k delta.KindStatus) []shardJSON {
	all := make([]shardJSON, len(k.Shards))
	for i, s := range k.Shards {
		all[i] = shardJSON{
			Shard: s.Shard, Paused: s.Paused, GoneSince: s.GoneSince, LastInformTime: s.LastInformTime, LastFullListing: s.LastFullListing,
			LastSuccess: s.LastSuccess, LastFailure: s.LastFailure, LagSeconds: lagSeconds(s.Lag), Error: textOf(s.Error), Withheld: withheldOf(s.Withheld),
		}
	}
	return all
}

// textOf is null for an empty text.
func textOf(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func shardFlag(cmd *cobra.Command, to *string, usage string) {
	cmd.Flags().StringVar(to, "shard", "", usage)
}

// inShard names a kind, or one of its shards.
func inShard(kind, shard string) string {
	if shard == "" {
		return kind
	}
	return kind + " " + wording.Line(shard)
}

// state is a word for how a shard stands: the first that applies.
func (s shardJSON) state() string {
	switch {
	case s.GoneSince != nil:
		return "gone"
	case s.Paused:
		return "paused"
	case s.Error != nil:
		return "failed"
	}
	return "runs"
}

// maxShardsShown is how many shards the table has of a kind.
const maxShardsShown = 50

// shardTable shows the shards of kinds, if they have any: first those that somebody should look at.
func (c *cli) shardTable(all []kindJSON, now time.Time) error {
	var rows [][]string
	hidden := 0
	for _, k := range all {
		shown := 0
		for _, first := range []bool{true, false} {
			for _, s := range k.Informer.Shards {
				if first != (s.state() != "runs" || s.Withheld != nil) {
					continue
				}
				if shown++; shown > maxShardsShown {
					hidden++
					continue
				}
				rows = append(rows, s.row(k.Kind, now))
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(c.out)
	if err := c.table([]string{"KIND", "SHARD", "LISTING", "LAST SUCCESS", "LAG", "WITHHELD"}, rows, 1); err != nil {
		return err
	}
	if hidden > 0 {
		c.tell(fmt.Sprintf("%s more run: see -o json", wording.Count(hidden, "shard")))
	}
	return nil
}

func (s shardJSON) row(kind string, now time.Time) []string {
	withheld := "-"
	if s.Withheld != nil {
		if withheld = s.Withheld.missing(); s.Withheld.Decision != "" {
			withheld += ", " + s.Withheld.Decision
		}
	}
	return []string{kind, wording.Line(s.Shard), s.state(), wording.When(s.LastSuccess, now), lagShown(s.LagSeconds), withheld}
}

// tellShards says what is to be decided of shards, and which fail.
func (c *cli) tellShards(k kindJSON) {
	if k.Shardless > 0 {
		c.tell(fmt.Sprintf("%s: %s without a shard: no listing marks them deleted. What is left after %s is in no shard, or gone.",
			k.Kind, wording.Count(k.Shardless, "resource"), "delta inform "+k.Kind+" --full"))
	}
	for _, s := range k.Informer.Shards {
		if s.Error != nil {
			c.tell(fmt.Sprintf("%s: %s", inShard(k.Kind, s.Shard), wording.Line(*s.Error)))
		}
		w := s.Withheld
		if w == nil || w.Decision != "" {
			continue
		}
		why := "the listings leave out " + w.missing() + " resources since " + w.Since.Format(time.RFC3339) + " (" + w.Reason + "): none is marked deleted"
		if s.GoneSince != nil {
			why = "the controller no longer names it since " + s.GoneSince.Format(time.RFC3339) + ": what is left of it (" + wording.Count(w.Missing, "resource") + ") stays as it is"
		}
		c.tell(fmt.Sprintf("%s: %s. Decide with delta informs approve %s%s, or dismiss.", inShard(k.Kind, s.Shard), why, k.Kind, remedy.ShardFlag(s.Shard)))
	}
}
