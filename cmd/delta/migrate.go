package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/migrations"
)

func migrateCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Apply, revert or list the migrations of Delta's schema",
		Long: "Apply, revert or list the migrations of Delta's schema, in the first schema of the connection's search_path that exists.\n" +
			"To give Delta a separate schema, create it and name it in the URL: …/delta?search_path=delta",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("missing subcommand: up, down, status, version or messagedb")
		},
	}
	c.addDatabaseFlags(cmd)
	add := func(use, short string, do func(context.Context, *pgxpool.Pool, *cli) error) {
		cmd.AddCommand(&cobra.Command{
			Use:   use,
			Short: short,
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				config, err := c.parsePoolConfig()
				if err != nil {
					return err
				}
				return markFailure(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
					return do(ctx, pool, c)
				}))
			},
		})
	}
	add("up", "Apply all pending migrations", migrateUp)
	add("down", "Revert the newest applied migration, and drop the data in its tables", migrateDown)
	add("status", "List the migrations and when they were applied", migrateStatus)
	add("version", "Print the version of the newest applied migration, or 0", migrateVersion)
	cmd.AddCommand(migrateMessageDBCommand(c))
	return cmd
}

func migrateUp(ctx context.Context, pool *pgxpool.Pool, c *cli) error {
	return migrateSchema(ctx, pool, c, migrations.Up, "nothing to apply")
}

func migrateDown(ctx context.Context, pool *pgxpool.Pool, c *cli) error {
	return migrateSchema(ctx, pool, c, migrations.Down, "nothing to revert")
}

// migrateSchema runs do and prints how the version changed.
func migrateSchema(ctx context.Context, pool *pgxpool.Pool, c *cli, do func(context.Context, *pgxpool.Pool) error, nothing string) error {
	before, err := migrations.Version(ctx, pool)
	if err != nil {
		return err
	}
	if err := do(ctx, pool); err != nil {
		return err
	}
	after, err := migrations.Version(ctx, pool)
	if err != nil {
		return err
	}
	var schema string
	if err := pool.QueryRow(ctx, `select current_schema()`).Scan(&schema); err != nil {
		return err
	}
	if done, err := c.printJSON(map[string]any{"schema": schema, "version_before": before, "version": after}); done {
		return err
	}
	if before == after {
		_, err = fmt.Fprintf(c.out, "schema %s is at version %d: %s\n", schema, after, nothing)
	} else {
		_, err = fmt.Fprintf(c.out, "schema %s went from version %d to %d\n", schema, before, after)
	}
	return err
}

// migrationJSON is a migration as --output json shows it.
type migrationJSON struct {
	Version   int64      `json:"version"`
	Name      string     `json:"name"`
	AppliedAt *time.Time `json:"applied_at"`
}

func migrateStatus(ctx context.Context, pool *pgxpool.Pool, c *cli) error {
	list, err := migrations.List(ctx, pool)
	if err != nil {
		return err
	}
	all := make([]migrationJSON, len(list))
	rows := make([][]string, len(list))
	for i, one := range list {
		all[i] = migrationJSON(one)
		applied := "pending"
		if one.AppliedAt != nil {
			applied = one.AppliedAt.Format(time.RFC3339)
		}
		rows[i] = []string{fmt.Sprint(one.Version), applied, one.Name}
	}
	if done, err := c.printJSON(map[string]any{"migrations": all}); done {
		return err
	}
	return c.printTable([]string{"VERSION", "APPLIED", "NAME"}, rows, 2)
}

func migrateVersion(ctx context.Context, pool *pgxpool.Pool, c *cli) error {
	version, err := migrations.Version(ctx, pool)
	if err != nil {
		return err
	}
	if done, err := c.printJSON(map[string]any{"version": version}); done {
		return err
	}
	_, err = fmt.Fprintln(c.out, version)
	return err
}
