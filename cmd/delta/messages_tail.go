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

// tailFlags are those of messages tail.
type tailFlags struct {
	name        string
	from        int64 // -1 for the end
	limit       int   // 0 for no limit
	follow      bool
	correlation string
}

// isCategory reports whether the name is that of a category, and not of a stream.
func (f tailFlags) isCategory() bool { return messagedb.StreamName(f.name).IsCategory() }

func tailCommand(c *cli, schema *string) *cobra.Command {
	f := tailFlags{}
	cmd := &cobra.Command{
		Use:   "tail STREAM|CATEGORY",
		Short: "Show the last messages of a stream or category, or those from a position on, and follow it",
		Long: "tail shows the last messages of a stream, whose name has a \"-\", or of a category, whose name has none. With --from it\n" +
			"shows the first ones from a position on: of a stream the message's position in it, of a category the global one.\n\n" +
			"With --follow it goes on with what comes, until it is interrupted, which is no failure. In JSON each message is a\n" +
			"value on a line of its own then; otherwise all are one value.",
		Example: "  delta messages tail account-123\n" +
			"  delta messages tail account --from 1200 --limit 100 -o json\n" +
			"  delta messages tail account --follow --correlation order",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.name = args[0]
			if err := f.check(cmd); err != nil {
				return err
			}
			err := c.withStore(cmd, *schema, func(ctx context.Context, store *messagedb.Client, _ *pgxpool.Pool) error {
				return c.tail(ctx, store, f)
			})
			if f.follow && errors.Is(err, errInterrupted) {
				return nil // that is how it is ended
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.Int64Var(&f.from, "from", 0, "`position` to begin at, inclusively (default the last messages)")
	flags.IntVar(&f.limit, "limit", 20, "`most` messages to show before following, from 1 to 1000; all of them with --from and --follow")
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with messages that come")
	flags.StringVar(&f.correlation, "correlation", "", "only messages that are correlated with a stream of this `category`")
	return cmd
}

// check sees what can be wrong before anything is asked.
func (f *tailFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case f.limit < 1 || f.limit > messagedb.DefaultBatchSize:
		return fmt.Errorf("--limit %d: must be between 1 and %d", f.limit, messagedb.DefaultBatchSize)
	case given("from") && f.from < 0:
		return fmt.Errorf("--from %d: must not be negative", f.from)
	case given("from") && given("limit") && f.follow:
		return errors.New("--limit with --from and --follow: it would leave out messages between those and what comes")
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

func (c *cli) tail(ctx context.Context, store *messagedb.Client, f tailFlags) error {
	next := max(f.from, 0)
	if f.limit > 0 {
		messages, err := f.read(ctx, store)
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
			next = f.placeOf(m) + 1
		}
	}
	return f.subscribe(ctx, store, next, c.printMessage)
}

// placeOf is the position that --from counts in.
func (f tailFlags) placeOf(m *messagedb.Message) int64 {
	if f.isCategory() {
		return m.GlobalPosition
	}
	return m.Position
}

// read reads what is shown before anything is followed.
func (f tailFlags) read(ctx context.Context, store *messagedb.Client) ([]*messagedb.Message, error) {
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

// subscribe shows what comes until the context ends.
func (f tailFlags) subscribe(ctx context.Context, store *messagedb.Client, from int64, show func(*messagedb.Message) error) error {
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
		out.Messages[i] = messageOf(m)
	}
	if done, err := c.json(out); done {
		return err
	}
	if len(messages) == 0 {
		c.tell("There are no such messages.")
	}
	for _, m := range messages {
		if err := c.printMessage(m); err != nil {
			return err
		}
	}
	return nil
}

// printMessage shows one message on a line of its own, which a terminal has room for.
func (c *cli) printMessage(m *messagedb.Message) error {
	if c.output == outputJSON {
		encoder := json.NewEncoder(c.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(messageOf(m))
	}
	data := "-"
	if m.Data != nil {
		data = string(m.Data)
	}
	line := strings.Join([]string{
		fmt.Sprint(m.GlobalPosition), m.Time.Format(time.RFC3339), wording.Line(fmt.Sprintf("%s@%d", m.Stream, m.Position)), wording.Line(m.Type), wording.Line(data),
	}, "  ")
	if c.width > 0 {
		line = cut(line, c.width)
	}
	_, err := fmt.Fprintln(c.out, line)
	return err
}
