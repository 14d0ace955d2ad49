package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/internal/wording"
	"github.com/chariot-giving/delta/messagedb"
)

func streamsCommand(c *cli, schema *string) *cobra.Command {
	limit, after := 100, int64(0)
	cmd := &cobra.Command{
		Use:   "streams CATEGORY",
		Short: "List the streams of a category with their versions and numbers of messages, a page at a time",
		Long: "List streams in the order of their first messages. A page reads the category's messages up to its last stream.\n\n" +
			"For the next page, pass the global position that is printed at the end of a page as --after. In JSON it is next_after, which is\n" +
			"null on the last page.",
		Example: "  delta messages streams account\n" +
			"  delta messages streams account --limit 1000 --after 81242 -o json",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > messagedb.MaxStreamsListed {
				return fmt.Errorf("--limit %d: must be between 1 and %d", limit, messagedb.MaxStreamsListed)
			}
			if after < 0 {
				return fmt.Errorf("--after %d: must not be negative", after)
			}
			return c.withMessageStore(cmd, *schema, func(ctx context.Context, store *messagedb.Client, _ *pgxpool.Pool) error {
				return c.printStreams(ctx, store, args[0], after, limit)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "`maximum` number of streams of a page, from 1 to 1000")
	cmd.Flags().Int64Var(&after, "after", 0, "global `position` that the page begins after")
	return cmd
}

// streamJSON is a stream as --output json shows it.
type streamJSON struct {
	Stream              string    `json:"stream"`
	Version             int64     `json:"version"`
	Messages            int64     `json:"messages"`
	FirstGlobalPosition int64     `json:"first_global_position"`
	LastTime            time.Time `json:"last_time"`
}

type streamsJSON struct {
	Streams   []streamJSON `json:"streams"`
	NextAfter *int64       `json:"next_after"`
}

func (c *cli) printStreams(ctx context.Context, store *messagedb.Client, category string, after int64, limit int) error {
	found, err := store.Streams(ctx, category, after, limit)
	if err != nil {
		return err
	}
	out := streamsJSON{Streams: make([]streamJSON, len(found))}
	for i, s := range found {
		out.Streams[i] = streamJSON{Stream: s.Stream.String(), Version: s.Version, Messages: s.Messages, FirstGlobalPosition: s.First, LastTime: s.LastTime}
	}
	if n := len(found); n == limit {
		more, err := store.Streams(ctx, category, found[n-1].First, 1)
		if err != nil {
			return err
		}
		if len(more) > 0 {
			out.NextAfter = &found[n-1].First
		}
	}
	if done, err := c.printJSON(out); done {
		return err
	}
	if len(found) == 0 {
		c.printNote("There are no streams in this category.")
		return nil
	}
	now := time.Now()
	rows := make([][]string, len(found))
	for i, s := range out.Streams {
		rows[i] = []string{wording.Line(s.Stream), fmt.Sprint(s.Version), wording.Number(s.Messages), wording.When(&s.LastTime, now)}
	}
	if err := c.printTable([]string{"STREAM", "VERSION", "MESSAGES", "LAST"}, rows, 0); err != nil {
		return err
	}
	if out.NextAfter != nil {
		c.printNote(fmt.Sprintf("There are more: --after %d", *out.NextAfter))
	}
	return nil
}
