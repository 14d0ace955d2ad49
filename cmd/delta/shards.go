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

func toShardsJSON(k delta.KindStatus) []shardJSON {
	all := make([]shardJSON, len(k.Shards))
	for i, s := range k.Shards {
		all[i] = shardJSON{
			Shard: s.Shard, Paused: s.Paused, GoneSince: s.GoneSince, LastInformTime: s.LastInformTime, LastFullListing: s.LastFullListing,
			LastSuccess: s.LastSuccess, LastFailure: s.LastFailure, LagSeconds: toLagSeconds(s.Lag), Error: nullIfEmpty(s.Error), Withheld: toWithheldJSON(s.Withheld),
		}
	}
	return all
}

// nullIfEmpty returns nil for an empty text.
func nullIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func addShardFlag(cmd *cobra.Command, to *string, usage string) {
	cmd.Flags().StringVar(to, "shard", "", usage)
}

// formatShard formats the name of a kind, or of one of its shards.
func formatShard(kind, shard string) string {
	if shard == "" {
		return kind
	}
	return kind + " " + wording.Line(shard)
}

// listingState returns the word in the column LISTING.
func (s shardJSON) listingState() string {
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

// maxShardsShown limits the shards of a kind in the table.
const maxShardsShown = 50

// printShardTable lists the shards that need attention first. It prints nothing if no kind has shards.
func (c *cli) printShardTable(all []kindJSON, now time.Time) error {
	var rows [][]string
	hidden := 0
	for _, k := range all {
		shown := 0
		for _, first := range []bool{true, false} {
			for _, s := range k.Informer.Shards {
				if first != (s.listingState() != "runs" || s.Withheld != nil) {
					continue
				}
				if shown++; shown > maxShardsShown {
					hidden++
					continue
				}
				rows = append(rows, s.toRow(k.Kind, now))
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(c.out)
	if err := c.printTable([]string{"KIND", "SHARD", "LISTING", "LAST SUCCESS", "LAG", "WITHHELD"}, rows, 1); err != nil {
		return err
	}
	if hidden > 0 {
		c.printNote(fmt.Sprintf("%s more run: see -o json", wording.Count(hidden, "shard")))
	}
	return nil
}

func (s shardJSON) toRow(kind string, now time.Time) []string {
	withheld := "-"
	if s.Withheld != nil {
		if withheld = s.Withheld.formatMissing(); s.Withheld.Decision != "" {
			withheld += ", " + s.Withheld.Decision
		}
	}
	return []string{kind, wording.Line(s.Shard), s.listingState(), wording.When(s.LastSuccess, now), formatLag(s.LagSeconds), withheld}
}

// printShardNotes prints which shards fail, and which decisions on withheld deletions are open.
func (c *cli) printShardNotes(k kindJSON) {
	if k.Shardless > 0 {
		c.printNote(fmt.Sprintf("%s: %s without a shard: no listing marks them deleted. Any that remain after %s are in no shard, or no longer exist.",
			k.Kind, wording.Count(k.Shardless, "resource"), "delta inform "+k.Kind+" --full"))
	}
	for _, s := range k.Informer.Shards {
		if s.Error != nil {
			c.printNote(fmt.Sprintf("%s: %s", formatShard(k.Kind, s.Shard), wording.Line(*s.Error)))
		}
		w := s.Withheld
		if w == nil || w.Decision != "" {
			continue
		}
		why := "the listings leave out " + w.formatMissing() + " resources since " + w.Since.Format(time.RFC3339) + " (" + w.Reason + "): none is marked deleted"
		if s.GoneSince != nil {
			why = "the controller no longer names it since " + s.GoneSince.Format(time.RFC3339) + ": what is left of it (" + wording.Count(w.Missing, "resource") + ") stays as it is"
		}
		c.printNote(fmt.Sprintf("%s: %s. Decide with delta informs approve %s%s, or dismiss.", formatShard(k.Kind, s.Shard), why, k.Kind, remedy.ShardFlag(s.Shard)))
	}
}
