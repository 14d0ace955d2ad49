package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/migrations"
)

const databaseVariable = "DELTA_DATABASE_URL"

func migrateCommand() *cobra.Command {
	var databaseURL string
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Apply, take back or list the migrations of Delta's schema",
		Long: "migrate works on the first schema of the connection's search_path that exists.\n" +
			"To use a schema of its own, create it and name it in the URL: …/delta?search_path=delta",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to do: up, down, status or version")
		},
	}
	cmd.PersistentFlags().StringVar(&databaseURL, "database-url", "", "`URL` of the database (default $"+databaseVariable+")")

	add := func(use, short string, do func(context.Context, *pgxpool.Pool, io.Writer) error) {
		cmd.AddCommand(&cobra.Command{
			Use:   use,
			Short: short,
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				target := databaseURL
				if target == "" {
					target = os.Getenv(databaseVariable)
				}
				if target == "" {
					return fmt.Errorf("no database: give --database-url or set %s (delta dev prints one)", databaseVariable)
				}
				config, err := pgxpool.ParseConfig(target)
				if err != nil {
					return err
				}
				config.MaxConns = 4
				return fail(withPool(cmd.Context(), config, func(ctx context.Context, pool *pgxpool.Pool) error {
					return do(ctx, pool, cmd.OutOrStdout())
				}))
			},
		})
	}
	add("up", "Apply all migrations that are pending", migrateUp)
	add("down", "Take back the newest migration that is applied, with the data in its tables", migrateDown)
	add("status", "List the migrations and when they were applied", migrateStatus)
	add("version", "Print the version of the newest migration that is applied, 0 if none", migrateVersion)
	return cmd
}

func withPool(ctx context.Context, config *pgxpool.Config, do func(context.Context, *pgxpool.Pool) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 10 * time.Second
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	// Asked first, so that an address that is wrong is not reported as a
	// migration that failed.
	if err := pool.Ping(ctx); err != nil {
		return err
	}
	return do(ctx, pool)
}

func migrateUp(ctx context.Context, pool *pgxpool.Pool, w io.Writer) error {
	return change(ctx, pool, w, migrations.Up, "nothing to apply")
}

func migrateDown(ctx context.Context, pool *pgxpool.Pool, w io.Writer) error {
	return change(ctx, pool, w, migrations.Down, "nothing to take back")
}

// change runs a step and says what it changed.
func change(ctx context.Context, pool *pgxpool.Pool, w io.Writer, do func(context.Context, *pgxpool.Pool) error, nothing string) error {
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
	if before == after {
		_, err = fmt.Fprintf(w, "schema %s is at version %d: %s\n", schema, after, nothing)
	} else {
		_, err = fmt.Fprintf(w, "schema %s went from version %d to %d\n", schema, before, after)
	}
	return err
}

func migrateStatus(ctx context.Context, pool *pgxpool.Pool, w io.Writer) error {
	list, err := migrations.List(ctx, pool)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "VERSION\tAPPLIED\tNAME")
	for _, one := range list {
		applied := "pending"
		if one.AppliedAt != nil {
			applied = one.AppliedAt.Format(time.RFC3339)
		}
		_, _ = fmt.Fprintf(table, "%d\t%s\t%s\n", one.Version, applied, one.Name)
	}
	return table.Flush()
}

func migrateVersion(ctx context.Context, pool *pgxpool.Pool, w io.Writer) error {
	version, err := migrations.Version(ctx, pool)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, version)
	return err
}
