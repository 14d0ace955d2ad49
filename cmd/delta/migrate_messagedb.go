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
		Long: "Create or update a message store in a separate schema. Clients of Message DB 1.3 can use it. A store that Message DB's own\n" +
			"installer has made is left unchanged. The store is independent of Delta's tables.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := c.parsePoolConfig()
			if err != nil {
				return err
			}
			return markFailure(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
				if err := messagedb.Migrate(ctx, pool, schema); err != nil {
					return err
				}
				if done, err := c.printJSON(map[string]any{"schema": schema}); done {
					return err
				}
				_, err := fmt.Fprintf(c.out, "schema %s has a message store\n", schema)
				return err
			}))
		},
	}
	cmd.Flags().StringVar(&schema, "schema", messagedb.DefaultSchema, "`schema` of the message store")
	return cmd
}
