package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// fixed completes from a list.
func fixed(values ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

func states() []string {
	var all []string
	for _, s := range deltatype.ResourceStates() {
		all = append(all, string(s))
	}
	return all
}

// completeKinds completes the names of kinds, from the database.
func (c *cli) completeKinds(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	config, err := c.database()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	_ = withPool(ctx, config, func(ctx context.Context, pool *pgxpool.Pool) (err error) {
		names, err = kindNames(ctx, pool)
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeKindFirst completes the first argument, a kind.
func (c *cli) completeKindFirst(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeKinds(cmd, args, text)
}

func mustComplete(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag is not there
	}
}

// kindNames are the kinds that clients were started with, and those that have
// resources. Those are found by skipping from one to the next in the index.
func kindNames(ctx context.Context, pool *pgxpool.Pool) ([]string, error) {
	rows, err := pool.Query(ctx, `
		WITH RECURSIVE kinds AS (
			(SELECT kind FROM delta_resource ORDER BY kind LIMIT 1)
			UNION ALL
			SELECT (SELECT r.kind FROM delta_resource r WHERE r.kind > k.kind ORDER BY r.kind LIMIT 1) FROM kinds k WHERE k.kind IS NOT NULL
		)
		SELECT kind FROM kinds WHERE kind IS NOT NULL UNION SELECT name FROM delta_controller ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// schemaError says what to do where the tables are missing.
func schemaError(err error) error {
	const undefinedTable = "42P01"
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == undefinedTable {
		return delta.ErrNoSchema
	}
	return err
}

// needKind sees that a kind is known: a slip of the pen is not to be paused, or waited for.
func (s *session) needKind(ctx context.Context, kind string) error {
	names, err := kindNames(ctx, s.pool)
	if err != nil {
		return schemaError(err)
	}
	for _, name := range names {
		if name == kind {
			return nil
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("kind %q: %w: no client has started on this database yet, and it has no resources", kind, errNoKind)
	}
	return fmt.Errorf("kind %q: %w: there are %s", kind, errNoKind, strings.Join(names, ", "))
}

// errNoKind is an ErrNotFound in words of its own.
var errNoKind error = noKind{}

type noKind struct{}

func (noKind) Error() string        { return "there is no such kind" }
func (noKind) Is(target error) bool { return target == delta.ErrNotFound }
