package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

func listCommand(c *cli) *cobra.Command {
	var f filterFlags
	var page delta.Page
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the resources that match all of the filters, a page at a time",
		Long: "list shows resources in the order of their rows. A filter that is repeated matches any of its values,\n" +
			"except for --tag and --label, where all must match.\n\n" +
			"The next page begins after the row that --after names: it is said at the end of a page, and is next_after in JSON\n" +
			"(null on the last page).",
		Example: "  delta resources list --kind user --state degraded,failed\n" +
			"  delta resources list --label plan=pro --limit 1000 -o json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error { return c.list(ctx, s, f.filter(), page) })
		},
	}
	f.add(c, cmd)
	cmd.Flags().IntVar(&page.Limit, "limit", 100, "`most` resources of a page, from 1 to 1000")
	cmd.Flags().Int64Var(&page.After, "after", 0, "`row` id that the page begins after")
	return cmd
}

// pageJSON is a page of resources.
type pageJSON struct {
	Resources []resourceJSON `json:"resources"`
	NextAfter *int64         `json:"next_after"`
}

func (c *cli) list(ctx context.Context, s *session, filter delta.Filter, page delta.Page) error {
	if page.Limit < 1 || page.Limit > 1000 {
		return &delta.InputError{Field: "--limit", Value: fmt.Sprint(page.Limit), Rule: "must be between 1 and 1000"}
	}
	rows, err := s.List(ctx, filter, page)
	if err != nil {
		return err
	}
	out := pageJSON{Resources: allJSON(rows)}
	if n := len(rows); n == page.Limit {
		last := rows[n-1].ID
		more, err := s.List(ctx, filter, delta.Page{After: last, Limit: 1})
		if err != nil {
			return err
		}
		if len(more) > 0 {
			out.NextAfter = &last
		}
	}
	if done, err := c.json(out); done {
		return err
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(c.err, "No resources match.")
		return err
	}
	if err := c.resourceTable(rows, time.Now()); err != nil {
		return err
	}
	if out.NextAfter != nil {
		_, err = fmt.Fprintf(c.err, "There are more: --after %d\n", *out.NextAfter)
	}
	return err
}

func (c *cli) resourceTable(rows []*deltatype.ResourceRow, now time.Time) error {
	cells := make([][]string, len(rows))
	for i, r := range rows {
		next := wording.When(r.DueAt, now)
		if r.Paused {
			next = "paused"
		} else if r.DueAt != nil && r.DueAt.Before(now) {
			next = "now"
		}
		cells[i] = []string{
			r.ObjectKind, wording.Line(r.ObjectID), r.Namespace, string(r.State), fmt.Sprintf("%d/%d", r.Attempt, r.MaxAttempts), wording.When(r.SyncedAt, now), next,
		}
	}
	return c.table([]string{"KIND", "ID", "NAMESPACE", "STATE", "TRIES", "SYNCED", "NEXT"}, cells, 1)
}
