package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/internal/wording"
	"github.com/chariot-giving/delta/messagedb"
)

// tailFlags has the flags of delta messages tail.
type tailFlags struct {
	name        string
	from        int64 // -1 for the end
	limit       int   // 0 for no limit
	follow      bool
	correlation string
}

// isCategory reports whether the name is a category's and not a stream's.
func (f tailFlags) isCategory() bool { return messagedb.StreamName(f.name).IsCategory() }

func tailCommand(c *cli, schema *string) *cobra.Command {
	f := tailFlags{}
	cmd := &cobra.Command{
		Use:   "tail STREAM|CATEGORY",
		Short: "Show and follow the messages of a stream or category",
		Long: "Show the last messages of a stream or category: a stream has a \"-\" in its name, a category has none. With --from it shows the\n" +
			"first messages from a position on: for a stream a position in the stream, for a category a global position.\n\n" +
			"With --follow it also shows new messages as they are written, until interrupted, which is not a failure. In JSON each message is\n" +
			"then one value on one line; without --follow the output is one value.",
		Example: "  delta messages tail account-123\n" +
			"  delta messages tail account --from 1200 --limit 100 -o json\n" +
			"  delta messages tail account --follow --correlation order",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.name = args[0]
			if err := f.validate(cmd); err != nil {
				return err
			}
			err := c.withMessageStore(cmd, *schema, func(ctx context.Context, store *messagedb.Client, _ *pgxpool.Pool) error {
				return c.printTail(ctx, store, f)
			})
			if f.follow && errors.Is(err, errInterrupted) {
				return nil // an interrupt is the normal end
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.Int64Var(&f.from, "from", 0, "`position` to begin at, inclusively (default the last messages)")
	flags.IntVar(&f.limit, "limit", 20, "`maximum` number of messages to show before following, from 1 to 1000; no maximum with both --from and --follow")
	flags.BoolVarP(&f.follow, "follow", "f", false, "keep showing new messages")
	flags.StringVar(&f.correlation, "correlation", "", "show only messages correlated with a stream of this `category`")
	return cmd
}

// validate checks the flags before anything is read.
func (f *tailFlags) validate(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case f.limit < 1 || f.limit > messagedb.DefaultBatchSize:
		return fmt.Errorf("--limit %d: must be between 1 and %d", f.limit, messagedb.DefaultBatchSize)
	case given("from") && f.from < 0:
		return fmt.Errorf("--from %d: must not be negative", f.from)
	case given("from") && given("limit") && f.follow:
		return errors.New("--limit cannot be used with both --from and --follow: it would leave out messages")
	case f.correlation != "" && !f.isCategory():
		return fmt.Errorf("--correlation %s: is for categories, and %q is a stream", f.correlation, f.name)
	}
	if !given("from") {
		f.from = -1
	} else if f.follow {
		f.limit = 0
	}
	return nil
}

func (c *cli) printTail(ctx context.Context, store *messagedb.Client, f tailFlags) error {
	next := max(f.from, 0)
	if f.limit > 0 {
		messages, err := f.readMessages(ctx, store)
		if err != nil {
			return err
		}
		if !f.follow {
			return c.printMessages(messages)
		}
		for _, m := range messages {
			if err := c.printMessage(m); err != nil {
				return err
			}
			next = f.positionOf(m) + 1
		}
	}
	return f.followMessages(ctx, store, next, c.printMessage)
}

// positionOf returns the position of a message in the count that --from uses.
func (f tailFlags) positionOf(m *messagedb.Message) int64 {
	if f.isCategory() {
		return m.GlobalPosition
	}
	return m.Position
}

// readMessages reads the messages that are shown before following.
func (f tailFlags) readMessages(ctx context.Context, store *messagedb.Client) ([]*messagedb.Message, error) {
	stream := messagedb.StreamName(f.name)
	switch {
	case f.isCategory() && f.from < 0:
		return store.LastCategoryMessages(ctx, f.name, f.limit, f.correlation)
	case f.isCategory():
		return store.ReadCategory(ctx, f.name, messagedb.CategoryOptions{From: f.from, BatchSize: f.limit, Correlation: f.correlation})
	case f.from >= 0:
		return store.ReadStream(ctx, stream, messagedb.StreamOptions{From: f.from, BatchSize: f.limit})
	}
	version, err := store.StreamVersion(ctx, stream)
	if err != nil {
		return nil, err
	}
	return store.ReadStream(ctx, stream, messagedb.StreamOptions{From: max(version+1-int64(f.limit), 0), BatchSize: f.limit})
}

// followMessages shows new messages until the context ends.
func (f tailFlags) followMessages(ctx context.Context, store *messagedb.Client, from int64, show func(*messagedb.Message) error) error {
	handle := func(_ context.Context, m *messagedb.Message) error { return show(m) }
	options := messagedb.SubscriptionOptions{Polling: messagedb.ConstantPolling(messagedb.DefaultPollingInterval)}
	var subscription *messagedb.Subscription
	var err error
	if f.isCategory() {
		subscription, err = store.SubscribeToCategory(ctx, f.name, handle, messagedb.CategoryOptions{From: from, Correlation: f.correlation}, options)
	} else {
		subscription, err = store.SubscribeToStream(ctx, messagedb.StreamName(f.name), handle, messagedb.StreamOptions{From: from}, options)
	}
	if err != nil {
		return err
	}
	if err := subscription.Err(); err != nil {
		return err
	}
	return ctx.Err()
}

type messagesJSON struct {
	Messages []messageJSON `json:"messages"`
}

func (c *cli) printMessages(messages []*messagedb.Message) error {
	out := messagesJSON{Messages: make([]messageJSON, len(messages))}
	for i, m := range messages {
		out.Messages[i] = toMessageJSON(m)
	}
	if done, err := c.printJSON(out); done {
		return err
	}
	if len(messages) == 0 {
		c.printNote("There are no such messages.")
	}
	for _, m := range messages {
		if err := c.printMessage(m); err != nil {
			return err
		}
	}
	return nil
}

// printMessage prints a message as one line, shortened to the width of the terminal.
func (c *cli) printMessage(m *messagedb.Message) error {
	if c.output == outputJSON {
		encoder := json.NewEncoder(c.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(toMessageJSON(m))
	}
	data := "-"
	if m.Data != nil {
		data = string(m.Data)
	}
	line := strings.Join([]string{
		fmt.Sprint(m.GlobalPosition), m.Time.Format(time.RFC3339), wording.Line(fmt.Sprintf("%s@%d", m.Stream, m.Position)), wording.Line(m.Type), wording.Line(data),
	}, "  ")
	if c.width > 0 {
		line = truncateText(line, c.width)
	}
	_, err := fmt.Fprintln(c.out, line)
	return err
}
