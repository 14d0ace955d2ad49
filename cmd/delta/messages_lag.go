package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/internal/wording"
	"github.com/chariot-giving/delta/messagedb"
)

func lagCommand(c *cli, schema *string) *cobra.Command {
	var projections string
	cmd := &cobra.Command{
		Use:   "lag [CATEGORY]",
		Short: "Show the positions of consumers and projections, and how far they are behind",
		Long: "Show how many messages consumers and projections still have to read: the positions that consumers have saved in the store, and\n" +
			"those of projections in the same database, against the messages in their categories. A position is saved only every few messages,\n" +
			"so a consumer may be further than shown. Messages that a correlation or condition leaves out are counted too.\n\n" +
			"REWOUND means that the store ends before the position, because it was restored from a backup or emptied. The reader stops with an\n" +
			"error or begins again, and the number of messages means nothing.",
		Example: "  delta messages lag account\n" +
			"  delta messages lag -o json",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			category := ""
			if len(args) > 0 {
				category = args[0]
			}
			return c.withMessageStore(cmd, *schema, func(ctx context.Context, store *messagedb.Client, pool *pgxpool.Pool) error {
				out, err := readLag(ctx, store, pool, category, projections)
				if err != nil {
					return err
				}
				return c.printLag(out)
			})
		},
	}
	addProjectionSchemaFlag(cmd, &projections)
	return cmd
}

// readerJSON has the fields that consumers and projections share.
type readerJSON struct {
	Category string    `json:"category"`
	Position int64     `json:"position"`
	SavedAt  time.Time `json:"saved_at"`
	// Messages counts the messages after the position, and OldestSeconds is the age of the oldest of them.
	Messages      int64   `json:"messages"`
	OldestSeconds float64 `json:"oldest_seconds"`
	// Rewound reports whether the store ends before the position.
	Rewound bool `json:"rewound"`
}

type consumerJSON struct {
	readerJSON
	PositionStream string `json:"position_stream"`
	Identifier     string `json:"identifier"`
	Member         *int   `json:"member"`
	Size           *int   `json:"size"`
}

type projectionJSON struct {
	readerJSON
	Name    string `json:"name"`
	Version int    `json:"version"`
	State   string `json:"state"`
}

type lagJSON struct {
	Consumers   []consumerJSON   `json:"consumers"`
	Projections []projectionJSON `json:"projections"`
}

func readLag(ctx context.Context, store *messagedb.Client, pool *pgxpool.Pool, category, projectionSchema string) (lagJSON, error) {
	out := lagJSON{Consumers: []consumerJSON{}, Projections: []projectionJSON{}}
	consumers, err := store.ConsumerPositions(ctx, category)
	if err != nil {
		return out, err
	}
	for _, p := range consumers {
		one := consumerJSON{
			readerJSON:     toReaderJSON(p.Category, p.Position, p.SavedAt, p.Lag, p.Rewound != nil),
			PositionStream: p.Stream.String(), Identifier: p.Identifier,
		}
		if p.Group != nil {
			one.Member, one.Size = &p.Group.Member, &p.Group.Size
		}
		out.Consumers = append(out.Consumers, one)
	}
	projections, err := messagedb.Projections(ctx, pool, projectionSchema)
	if err != nil {
		return out, err
	}
	for _, p := range projections {
		if category != "" && p.Category != category {
			continue
		}
		lag, err := store.CategoryLag(ctx, p.Category, p.Position, nil)
		if err != nil {
			return out, err
		}
		err = store.CheckPosition(ctx, p.Category, p.Position, p.MessageID)
		rewound := errors.As(err, new(*messagedb.RewoundError))
		if err != nil && !rewound {
			return out, err
		}
		out.Projections = append(out.Projections, projectionJSON{
			readerJSON: toReaderJSON(p.Category, p.Position, p.SavedAt, lag, rewound), Name: p.Name, Version: p.Version, State: string(p.State),
		})
	}
	return out, nil
}

func toReaderJSON(category string, position int64, saved time.Time, lag messagedb.Lag, rewound bool) readerJSON {
	return readerJSON{
		Category: category, Position: position, SavedAt: saved, Messages: lag.Messages, OldestSeconds: lag.Age.Seconds(), Rewound: rewound,
	}
}

func (c *cli) printLag(out lagJSON) error {
	if done, err := c.printJSON(out); done {
		return err
	}
	if len(out.Consumers)+len(out.Projections) == 0 {
		c.printNote("No consumer has saved a position, and there are no projections.")
		return nil
	}
	now := time.Now()
	var rows [][]string
	for _, one := range out.Consumers {
		rows = append(rows, append([]string{wording.Line(one.PositionStream), "consumer"}, one.formatCells(now)...))
	}
	for _, one := range out.Projections {
		rows = append(rows, append([]string{wording.Line(fmt.Sprintf("%s %d", one.Name, one.Version)), one.State}, one.formatCells(now)...))
	}
	return c.printTable([]string{"READER", "IS", "POSITION", "BEHIND", "OLDEST", "SAVED"}, rows, 0)
}

func (r readerJSON) formatCells(now time.Time) []string {
	behind, oldest := wording.Number(r.Messages), "-"
	if r.Messages > 0 {
		oldest = wording.Duration(time.Duration(r.OldestSeconds * float64(time.Second)))
	}
	if r.Rewound {
		behind = "REWOUND"
	}
	return []string{fmt.Sprint(r.Position), behind, oldest, wording.When(&r.SavedAt, now)}
}
