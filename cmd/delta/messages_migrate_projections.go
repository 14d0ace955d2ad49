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
		Short: "Create the table in which projections keep their positions",
		Long: "Create the table messagedb_projection in an existing schema, unless it is there already. Projectors of the package messagedb keep\n" +
			"their positions in it. It belongs in the database of the projections' tables, which need not be that of the message store.",
		Example: "  delta messages migrate-projections\n" +
			"  delta messages migrate-projections --projection-schema views",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("schema") {
				return errors.New("--schema is the schema of a message store; use --projection-schema for the table")
			}
			config, err := c.parsePoolConfig()
			if err != nil {
				return err
			}
			return markFailure(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
				if err := messagedb.MigrateProjections(ctx, pool, schema); err != nil {
					return err
				}
				if done, err := c.printJSON(map[string]any{"schema": schema}); done {
					return err
				}
				_, err := fmt.Fprintf(c.out, "schema %s has a table of projections\n", schema)
				return err
			}))
		},
	}
	addProjectionSchemaFlag(cmd, &schema)
	return cmd
}

// addProjectionSchemaFlag adds the flag of all commands that read projections.
func addProjectionSchemaFlag(cmd *cobra.Command, schema *string) {
	cmd.Flags().StringVar(schema, "projection-schema", messagedb.DefaultProjectionSchema, "`schema` of the table messagedb_projection")
}
