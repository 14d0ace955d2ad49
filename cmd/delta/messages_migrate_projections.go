package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/messagedb"
)

func migrateProjectionsCommand(c *cli) *cobra.Command {
	var schema string
	cmd := &cobra.Command{
		Use:   "migrate-projections",
		Short: "Make the table in which projections keep their positions",
		Long: "migrate-projections makes the table messagedb_projection in a schema that exists, if the table is not there, for projectors\n" +
			"of the package messagedb. It may be in another database than the message store: in the one that has the tables of the projections.",
		Example: "  delta messages migrate-projections\n" +
			"  delta messages migrate-projections --projection-schema views",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("schema") {
				return errors.New("--schema: is that of a message store; the schema of the table is --projection-schema")
			}
			config, err := c.database()
			if err != nil {
				return err
			}
			return fail(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
				if err := messagedb.MigrateProjections(ctx, pool, schema); err != nil {
					return err
				}
				if done, err := c.json(map[string]any{"schema": schema}); done {
					return err
				}
				_, err := fmt.Fprintf(c.out, "schema %s has a table of projections\n", schema)
				return err
			}))
		},
	}
	projectionSchemaFlag(cmd, &schema)
	return cmd
}

// projectionSchemaFlag is the flag of all commands that look at projections.
func projectionSchemaFlag(cmd *cobra.Command, schema *string) {
	cmd.Flags().StringVar(schema, "projection-schema", messagedb.DefaultProjectionSchema, "`schema` of the table messagedb_projection")
}
