package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

func listCommand(c *cli) *cobra.Command {
	var f filterFlags
	var page listFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the resources that match all of the filters, a page at a time",
		Long: "list shows resources in the order of their rows. A filter that is repeated matches any of its values,\n" +
			"except for --tag and --label, where all must match.\n\n" +
			"The next page begins after the row that --after names: it is said at the end of a page, and is next_after in JSON\n" +
			"(null on the last page). In another order it begins where --cursor says, which is next_cursor in JSON.\n\n" +
			"--sort changed, due and error are for few resources: they need --late, --error, or --state degraded or failed.",
		Example: "  delta resources list --kind user --state degraded,failed\n" +
			"  delta resources list --kind user --error 'quota exceeded' --sort changed --descending\n" +
			"  delta resources list --label plan=pro --limit 1000 -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if name := f.empty(cmd); name == "error" || name == "late" {
				return fmt.Errorf("--%s must not be empty: it would choose everything", name)
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error { return c.list(ctx, s, f.filter(), page) })
		},
	}
	f.add(c, cmd)
	cmd.Flags().IntVar(&page.Limit, "limit", 100, "`most` resources of a page, from 1 to 1000")
	cmd.Flags().Int64Var(&page.after, "after", 0, "`row` id that the page begins after")
	cmd.Flags().StringVar(&page.Cursor, "cursor", "", "where the page begins, as the page before it `said`")
	cmd.Flags().StringVar((*string)(&page.Sort), "sort", string(delta.SortMade), "the `order`: made, changed, due or error")
	cmd.Flags().BoolVar(&page.Descending, "descending", false, "in the opposite order, such as the newest first")
	mustComplete(cmd, "sort", fixed("made", "changed", "due", "error"))
	cmd.MarkFlagsMutuallyExclusive("after", "cursor")
	cmd.MarkFlagsMutuallyExclusive("after", "sort")
	cmd.MarkFlagsMutuallyExclusive("after", "descending")
	return cmd
}

// listFlags say which page is listed.
type listFlags struct {
	delta.SortedPage
	// after is for pages in the order of rows.
	after int64
}

// pageJSON is a page of resources.
type pageJSON struct {
	Resources []resourceJSON `json:"resources"`
	NextAfter *int64         `json:"next_after"`
	// NextCursor is there where the page is in another order than that of rows, and is not the last.
	NextCursor string `json:"next_cursor,omitempty"`
}

func (c *cli) list(ctx context.Context, s *session, filter delta.Filter, page listFlags) error {
	if page.Limit < 1 || page.Limit > 1000 {
		return &delta.InputError{Field: "--limit", Value: fmt.Sprint(page.Limit), Rule: "must be between 1 and 1000"}
	}
	out, rows, err := readPage(ctx, s, filter, page)
	if err != nil {
		return err
	}
	if done, err := c.json(out); done {
		return err
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(c.err, "No resources match.")
		return err
	}
	if err := c.resourceTable(rows, time.Now(), filter.Error != "" || page.Sort == delta.SortError, filter.Late || page.Sort == delta.SortDue); err != nil {
		return err
	}
	switch {
	case out.NextCursor != "":
		_, err = fmt.Fprintf(c.err, "There are more: --cursor %s\n", out.NextCursor)
	case out.NextAfter != nil:
		_, err = fmt.Fprintf(c.err, "There are more: --after %d\n", *out.NextAfter)
	}
	return err
}

func readPage(ctx context.Context, s *session, filter delta.Filter, page listFlags) (out pageJSON, rows []*deltatype.ResourceRow, err error) {
	if page.Sort != delta.SortMade || page.Descending || page.Cursor != "" {
		listed, err := s.ListSorted(ctx, filter, page.SortedPage)
		if err != nil {
			return out, nil, err
		}
		return pageJSON{Resources: allJSON(listed.Rows), NextCursor: listed.Next}, listed.Rows, nil
	}
	rows, err = s.List(ctx, filter, delta.Page{After: page.after, Limit: page.Limit})
	if err != nil {
		return out, nil, err
	}
	out.Resources = allJSON(rows)
	if n := len(rows); n == page.Limit {
		last := rows[n-1].ID
		more, err := s.List(ctx, filter, delta.Page{After: last, Limit: 1})
		if err != nil {
			return out, nil, err
		}
		if len(more) > 0 {
			out.NextAfter = &last
		}
	}
	return out, rows, nil
}

// resourceTable shows also the latest errors, and since when late ones are due, where that is asked about.
func (c *cli) resourceTable(rows []*deltatype.ResourceRow, now time.Time, showsErrors, showsDue bool) error {
	columns := []string{"KIND", "ID", "NAMESPACE", "STATE", "TRIES", "SYNCED", "NEXT"}
	if showsErrors {
		columns = append(columns, "ERROR")
	}
	cells := make([][]string, len(rows))
	for i, r := range rows {
		next := wording.When(r.DueAt, now)
		switch {
		case r.Paused:
			next = "paused"
		case showsDue && r.DueAt == nil && r.ClaimedUntil != nil:
			next = "claimed until " + wording.When(r.ClaimedUntil, now)
		case !showsDue && r.DueAt != nil && r.DueAt.Before(now):
			next = "now"
		}
		cells[i] = []string{
			r.ObjectKind, wording.Line(r.ObjectID), r.Namespace, string(r.State), fmt.Sprintf("%d/%d", r.Attempt, r.MaxAttempts), wording.When(r.SyncedAt, now), next,
		}
		if !showsErrors {
			continue
		}
		text := ""
		if n := len(r.Errors); n > 0 {
			text, _, _ = strings.Cut(r.Errors[n-1].Error, "\n")
		}
		cells[i] = append(cells[i], wording.Line(text))
	}
	shortens := 1
	if showsErrors {
		shortens = len(columns) - 1
	}
	return c.table(columns, cells, shortens)
}
