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
		Long: "messages looks at a store of Message DB, or of delta migrate messagedb. It has nothing to do with Delta's own tables, and\n" +
			"writes nothing, but for the table that migrate-projections makes. See docs/messagedb.md.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to look at: tail, streams or lag, or migrate-projections")
		},
	}
	c.databaseFlags(cmd)
	schema := cmd.PersistentFlags().String("schema", messagedb.DefaultSchema, "`schema` of the message store")
	cmd.AddCommand(tailCommand(c, schema), streamsCommand(c, schema), lagCommand(c, schema), migrateProjectionsCommand(c))
	return cmd
}

// withStore does something with a message store. What it returns is a failure, unless it says otherwise.
func (c *cli) withStore(cmd *cobra.Command, schema string, do func(ctx context.Context, store *messagedb.Client, pool *pgxpool.Pool) error) error {
	config, err := c.database()
	if err != nil {
		return err
	}
	return fail(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
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

func messageOf(m *messagedb.Message) messageJSON {
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
