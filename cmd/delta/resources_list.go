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
		Short: "List the resources that match all filters, a page at a time",
		Long: "List resources in the order of their rows. A repeated filter matches any of its values, but for --tag and --label all values\n" +
			"must match.\n\n" +
			"For the next page, pass the row id that is printed at the end of a page as --after. In JSON it is next_after, which is null on\n" +
			"the last page. With --sort or --descending, pass --cursor instead, which is next_cursor in JSON.\n\n" +
			"--sort changed, due and error are for few resources: they need --late, --error, or --state degraded or failed.",
		Example: "  delta resources list --kind user --state degraded,failed\n" +
			"  delta resources list --kind user --error 'quota exceeded' --sort changed --descending\n" +
			"  delta resources list --label plan=pro --limit 1000 -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if name := f.findEmptyFlag(cmd); name == "error" || name == "late" {
				return fmt.Errorf("--%s must not be empty: it would select everything", name)
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withSession(cmd, func(ctx context.Context, s *session) error { return c.listResources(ctx, s, f.toFilter(), page) })
		},
	}
	f.addFlags(c, cmd)
	cmd.Flags().IntVar(&page.Limit, "limit", 100, "`maximum` number of resources of a page, from 1 to 1000")
	cmd.Flags().Int64Var(&page.after, "after", 0, "id of the `row` that the page begins after")
	cmd.Flags().StringVar(&page.Cursor, "cursor", "", "`cursor` at which the page begins, printed at the end of the page before it")
	cmd.Flags().StringVar((*string)(&page.Sort), "sort", string(delta.SortCreated), "`order`: created, changed, due or error")
	cmd.Flags().BoolVar(&page.Descending, "descending", false, "reverse the order, for example to list the newest first")
	mustComplete(cmd, "sort", completeFrom("created", "changed", "due", "error"))
	cmd.MarkFlagsMutuallyExclusive("after", "cursor")
	cmd.MarkFlagsMutuallyExclusive("after", "sort")
	cmd.MarkFlagsMutuallyExclusive("after", "descending")
	return cmd
}

// listFlags has the flags that select a page.
type listFlags struct {
	delta.SortedPage
	// after is set for pages in the order of rows only.
	after int64
}

// pageJSON is a page of resources.
type pageJSON struct {
	Resources []resourceJSON `json:"resources"`
	NextAfter *int64         `json:"next_after"`
	// NextCursor is set if the page is in another order than that of rows, and is not the last.
	NextCursor string `json:"next_cursor,omitempty"`
}

func (c *cli) listResources(ctx context.Context, s *session, filter delta.Filter, page listFlags) error {
	if page.Limit < 1 || page.Limit > 1000 {
		return &delta.InputError{Field: "--limit", Value: fmt.Sprint(page.Limit), Rule: "must be between 1 and 1000"}
	}
	out, rows, err := readPage(ctx, s, filter, page)
	if err != nil {
		return err
	}
	if done, err := c.printJSON(out); done {
		return err
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(c.err, "No resources match.")
		return err
	}
	if err := c.printResourceTable(rows, time.Now(), filter.Error != "" || page.Sort == delta.SortError, filter.Late || page.Sort == delta.SortDue); err != nil {
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
	if page.Sort != delta.SortCreated || page.Descending || page.Cursor != "" {
		listed, err := s.ListSorted(ctx, filter, page.SortedPage)
		if err != nil {
			return out, nil, err
		}
		return pageJSON{Resources: toResourcesJSON(listed.Rows), NextCursor: listed.Next}, listed.Rows, nil
	}
	rows, err = s.List(ctx, filter, delta.Page{After: page.after, Limit: page.Limit})
	if err != nil {
		return out, nil, err
	}
	out.Resources = toResourcesJSON(rows)
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

// printResourceTable adds columns for the latest errors and for the due times if the filter or the order is about them.
func (c *cli) printResourceTable(rows []*deltatype.ResourceRow, now time.Time, showsErrors, showsDue bool) error {
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
	return c.printTable(columns, cells, shortens)
}
