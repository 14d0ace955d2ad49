package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/difference"
	"github.com/chariot-giving/delta/internal/wording"
	"github.com/chariot-giving/delta/sinks/changelog"
)

func historyCommand(c *cli) *cobra.Command {
	limit, before := 20, int64(0)
	cmd := &cobra.Command{
		Use:   "history KIND ID",
		Short: "Show the changes of a resource from the log of changes",
		Long: "Show the changes of a resource, the latest first: created, updated, failed, deleted, finalized or revived, with the fields that\n" +
			"differ from the object that was synced before. Only kinds with a log (ObjectSettings.Log) have a history. It lasts as long as the\n" +
			"log keeps its entries, even after the resource's row was removed.",
		Example:           "  delta resources history user usr_1 --limit 100",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error {
				if limit < 1 {
					return fmt.Errorf("--limit %d: must be between 1 and 10000", limit)
				}
				changes, err := s.ResourceChanges(ctx, args[0], args[1], before, limit)
				if err != nil {
					return err
				}
				if done, err := c.printJSON(toHistoryJSON(changes, limit)); done {
					return err
				}
				return c.printHistory(args[0], args[1], changes, limit, time.Now())
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "`maximum` number of changes to show")
	cmd.Flags().Int64Var(&before, "before", 0, "show only changes before the one with this `id`")
	return cmd
}

// historyJSON is a history as --output json shows it. Members may be added, but are never renamed or removed.
type historyJSON struct {
	Changes []changeJSON `json:"changes"`
	// NextBefore is the value of --before for the next page; null on the last page.
	NextBefore *int64 `json:"next_before"`
}

type changeJSON struct {
	changelog.Entry
	Differences []differenceJSON `json:"differences"`
}

// differenceJSON is a field that differs. Before or After is left out if that side has no such field.
type differenceJSON struct {
	Field  string          `json:"field"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

func toHistoryJSON(changes []*delta.Change, limit int) historyJSON {
	out := historyJSON{Changes: []changeJSON{}}
	for _, c := range changes {
		out.Changes = append(out.Changes, changeJSON{changelog.EntryOf(c), findDifferences(c.Before, c.After)})
	}
	if n := len(changes); n == limit {
		out.NextBefore = &changes[n-1].ID
	}
	return out
}

// printHistory prints the changes of a resource as text.
func (c *cli) printHistory(kind, id string, changes []*delta.Change, limit int, now time.Time) error {
	var b strings.Builder
	if len(changes) == 0 {
		_, err := fmt.Fprintf(c.err, "The log has no changes of %s/%s: only kinds with ObjectSettings.Log have one.\n", kind, wording.Line(id))
		return err
	}
	for i, change := range changes {
		if i > 0 {
			fmt.Fprintln(&b)
		}
		fmt.Fprintf(&b, "%s (%s)  %s, generation %d\n", change.At.Format(time.RFC3339), wording.When(&change.At, now), change.Type, change.Generation)
		for _, text := range wrapText(wording.Line(change.Error), max(c.width-4, 0)) {
			if text != "" {
				fmt.Fprintf(&b, "    %s\n", text)
			}
		}
		switch {
		case deltatype.IsEncoded(change.Before) || deltatype.IsEncoded(change.After):
			for _, text := range wrapText("its object is encoded (Config.ObjectCodec): the console of a program with the codec shows what has changed", max(c.width-4, 0)) {
				fmt.Fprintf(&b, "    %s\n", text)
			}
		case change.After != nil:
			c.writeDifferences(&b, findDifferences(change.Before, change.After))
		}
	}
	if _, err := fmt.Fprint(c.out, b.String()); err != nil {
		return err
	}
	if n := len(changes); n == limit {
		_, err := fmt.Fprintf(c.err, "There may be more: --before %d\n", changes[n-1].ID)
		return err
	}
	return nil
}

// writeDifferences writes a line for each field: its new value, and the old one if there was one.
func (c *cli) writeDifferences(b *strings.Builder, all []differenceJSON) {
	for _, d := range all {
		text := fmt.Sprintf("%s: %s", wording.Line(d.Field), wording.Line(string(d.After)))
		switch {
		case d.After == nil:
			text = fmt.Sprintf("%s: %s → gone", wording.Line(d.Field), wording.Line(string(d.Before)))
		case d.Before != nil:
			text = fmt.Sprintf("%s: %s → %s", wording.Line(d.Field), wording.Line(string(d.Before)), wording.Line(string(d.After)))
		}
		if c.width > 0 {
			text = truncateText(text, max(c.width-4, minColumnWidth))
		}
		fmt.Fprintf(b, "    %s\n", text)
	}
}

// findDifferences returns the fields in which two JSON texts differ.
func findDifferences(before, after json.RawMessage) []differenceJSON {
	all := []differenceJSON{}
	for _, f := range difference.Fields(before, after) {
		all = append(all, differenceJSON{f.Name, f.Before, f.After})
	}
	return all
}
