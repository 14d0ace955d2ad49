package main

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

// refusedJSON is an object that a listing named and Delta refused.
type refusedJSON struct {
	Kind  string    `json:"kind"`
	Shard string    `json:"shard"`
	ID    string    `json:"id"`
	Rule  string    `json:"rule"`
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`
	// Kept reports whether its JSON is kept, so that the object is taken as soon as it is valid.
	Kept bool `json:"kept"`
}

// readRefused reads the refused objects of kinds.
func readRefused(ctx context.Context, s *session, all []delta.KindStatus) ([]refusedJSON, error) {
	found := []refusedJSON{}
	for _, k := range all {
		if k.Refused == 0 {
			continue
		}
		objects, err := s.Refused(ctx, k.Kind)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			found = append(found, refusedJSON{Kind: o.Kind, Shard: o.Shard, ID: o.ObjectID, Rule: o.Rule, Since: o.Since, Last: o.Last, Kept: o.IsKept})
		}
	}
	return found, nil
}

// maxRefusedShown limits the rows of the table of refused objects.
const maxRefusedShown = 20

func (c *cli) printRefusedTable(all []refusedJSON, now time.Time) error {
	if len(all) == 0 {
		return nil
	}
	shown := all[:min(len(all), maxRefusedShown)]
	rows := make([][]string, len(shown))
	for i, o := range shown {
		rule := wording.Line(o.Rule)
		if !o.Kept {
			rule += " (not kept: too large, or Postgres cannot store it)"
		}
		rows[i] = []string{formatShard(o.Kind, o.Shard), wording.Line(o.ID), wording.When(&o.Since, now), rule}
	}
	_, _ = fmt.Fprintln(c.out)
	if err := c.printTable([]string{"REFUSED KIND", "ID", "SINCE", "RULE"}, rows, 3); err != nil {
		return err
	}
	if len(all) > len(shown) {
		c.printNote(fmt.Sprintf("%s more are refused: see -o json", wording.Number(len(all)-len(shown))))
	}
	return nil
}
