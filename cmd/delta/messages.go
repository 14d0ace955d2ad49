package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/messagedb"
)

func messagesCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "messages",
		Short: "Look at a message store: its messages, streams and consumers",
		Long: "Look at a message store, made by Message DB's installer or by delta migrate messagedb. It is independent of Delta's own tables.\n" +
			"Nothing is written, except that migrate-projections makes a table. See docs/messagedb.md.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("missing subcommand: tail, streams, lag or migrate-projections")
		},
	}
	c.addDatabaseFlags(cmd)
	schema := cmd.PersistentFlags().String("schema", messagedb.DefaultSchema, "`schema` of the message store")
	cmd.AddCommand(tailCommand(c, schema), streamsCommand(c, schema), lagCommand(c, schema), migrateProjectionsCommand(c))
	return cmd
}

// withMessageStore connects to a message store and calls do. An error of do is a failure and not a usage error, unless it is a usageError.
func (c *cli) withMessageStore(cmd *cobra.Command, schema string, do func(ctx context.Context, store *messagedb.Client, pool *pgxpool.Pool) error) error {
	config, err := c.parsePoolConfig()
	if err != nil {
		return err
	}
	return markFailure(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
		store, err := messagedb.NewClient(pool, &messagedb.Config{
			Schema: schema, Logger: slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		if err != nil {
			return err
		}
		return do(ctx, store, pool)
	}))
}

// messageJSON is a message as --output json shows it.
type messageJSON struct {
	ID             string          `json:"id"`
	Stream         string          `json:"stream"`
	Type           string          `json:"type"`
	Position       int64           `json:"position"`
	GlobalPosition int64           `json:"global_position"`
	Time           time.Time       `json:"time"`
	Data           json.RawMessage `json:"data"`
	Metadata       json.RawMessage `json:"metadata"`
}

func toMessageJSON(m *messagedb.Message) messageJSON {
	out := messageJSON{
		ID: m.ID, Stream: m.Stream.String(), Type: m.Type, Position: m.Position, GlobalPosition: m.GlobalPosition, Time: m.Time,
		Data: m.Data, Metadata: m.Metadata,
	}
	for _, raw := range []*json.RawMessage{&out.Data, &out.Metadata} {
		if *raw == nil {
			*raw = json.RawMessage("null")
		}
	}
	return out
}
