package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/messagedb"
)

func migrateMessageDBCommand(c *cli) *cobra.Command {
	var schema string
	cmd := &cobra.Command{
		Use:   "messagedb",
		Short: "Install or update a message store, for the package messagedb",
		Long: "messagedb makes a message store that clients of Message DB 1.3 work with, in a schema of its own. A store of\n" +
			"Message DB's own installer is left alone. It has nothing to do with Delta's own tables.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := c.database()
			if err != nil {
				return err
			}
			return fail(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
				if err := messagedb.Migrate(ctx, pool, schema); err != nil {
					return err
				}
				if done, err := c.json(map[string]any{"schema": schema}); done {
					return err
				}
				_, err := fmt.Fprintf(c.out, "schema %s has a message store\n", schema)
				return err
			}))
		},
	}
	cmd.Flags().StringVar(&schema, "schema", messagedb.DefaultSchema, "the schema of the message store")
	return cmd
}
