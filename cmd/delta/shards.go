package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/remedy"
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
	return kind + " " + plain(shard)
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
		c.tell(fmt.Sprintf("%s more run: see -o json", counted(hidden, "shard")))
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
	return []string{kind, plain(s.Shard), s.state(), when(s.LastSuccess, now), lagShown(s.LagSeconds), withheld}
}

// tellShards says what is to be decided of shards, and which fail.
func (c *cli) tellShards(k kindJSON) {
	if k.Shardless > 0 {
		c.tell(fmt.Sprintf("%s: %s without a shard: no listing marks them deleted. What is left after %s is in no shard, or gone.",
			k.Kind, counted(k.Shardless, "resource"), "delta inform "+k.Kind+" --full"))
	}
	for _, s := range k.Informer.Shards {
		if s.Error != nil {
			c.tell(fmt.Sprintf("%s: %s", inShard(k.Kind, s.Shard), plain(*s.Error)))
		}
		w := s.Withheld
		if w == nil || w.Decision != "" {
			continue
		}
		why := "the listings leave out " + w.missing() + " resources since " + w.Since.Format(time.RFC3339) + " (" + w.Reason + "): none is marked deleted"
		if s.GoneSince != nil {
			why = "the controller no longer names it since " + s.GoneSince.Format(time.RFC3339) + ": what is left of it (" + counted(w.Missing, "resource") + ") stays as it is"
		}
		c.tell(fmt.Sprintf("%s: %s. Decide with delta informs approve %s%s, or dismiss.", inShard(k.Kind, s.Shard), why, k.Kind, remedy.ShardFlag(s.Shard)))
	}
}

// shards looks at shards that fail, are paused, or are gone. It says nothing of kinds without shards.
func (f *findings) shards(kinds []delta.KindStatus) {
	for _, k := range kinds {
		if len(k.Shards) == 0 {
			continue
		}
		found := len(*f)
		if k.InformError != "" {
			f.addKind("shards", k.Kind, healthWarn, "the controller could not name them: "+k.InformError, "see why: delta informs "+k.Kind)
		}
		if k.Shardless > 0 {
			f.addKind("shards", k.Kind, healthWarn, counted(k.Shardless, "resource")+" without a shard: no listing marks them deleted", remedy.ListShardless(k.Kind))
		}
		for _, s := range k.Shards {
			f.shard(k.Kind, s)
		}
		if len(*f) == found {
			f.addKind("shards", k.Kind, healthOK, counted(len(k.Shards), "shard"), "")
		}
	}
}

func (f *findings) shard(kind string, s delta.ShardStatus) {
	add := func(detail, remedy string) { f.addKind("shards", kind, healthWarn, s.Shard+": "+detail, remedy) }
	undecided := s.Withheld != nil && s.Withheld.Decision == ""
	switch flag := remedy.ShardFlag(s.Shard); {
	case s.GoneSince != nil && undecided:
		add(fmt.Sprintf("no longer named by the controller since %s, and %s left", s.GoneSince.Format(time.RFC3339), counted(s.Withheld.Missing, "resource")),
			remedy.DecideWithheldOfShard(kind, s.Shard))
	case undecided:
		add(fmt.Sprintf("its listings leave out %s resources (%s): none is marked deleted", withheldOf(s.Withheld).missing(), s.Withheld.Reason),
			remedy.DecideWithheldOfShard(kind, s.Shard))
	case s.Error != "":
		add("its latest pass failed: "+s.Error, "see its passes: delta informs "+kind+flag)
	case s.Paused:
		add("paused", "when it is time: delta resume informer "+kind+flag)
	}
}
