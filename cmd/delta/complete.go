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

// completeFrom completes values of a fixed list.
func completeFrom(values ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

func stateNames() []string {
	var all []string
	for _, s := range deltatype.ResourceStates() {
		all = append(all, string(s))
	}
	return all
}

// completeKinds completes the names of kinds, from the database.
func (c *cli) completeKinds(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	config, err := c.parsePoolConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	_ = withPool(ctx, config, func(ctx context.Context, pool *pgxpool.Pool) (err error) {
		names, err = findKindNames(ctx, pool)
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
		panic(err) // the flag does not exist
	}
}

// findKindNames returns the kinds of clients, and those that have resources: it skips from one kind to the next in the index, because
// SELECT DISTINCT would read the whole table.
func findKindNames(ctx context.Context, pool *pgxpool.Pool) ([]string, error) {
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

// asSchemaError replaces the error of a missing table by delta.ErrNoSchema, because its text names the remedy.
func asSchemaError(err error) error {
	const undefinedTable = "42P01"
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == undefinedTable {
		return delta.ErrNoSchema
	}
	return err
}

// requireKind returns an error if no such kind is known, so that nobody pauses or waits for a misspelled one.
func (s *session) requireKind(ctx context.Context, kind string) error {
	names, err := findKindNames(ctx, s.pool)
	if err != nil {
		return asSchemaError(err)
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

// errNoKind is a delta.ErrNotFound, but its text says that the kind is missing, not the resource.
var errNoKind error = noKind{}

type noKind struct{}

func (noKind) Error() string        { return "there is no such kind" }
func (noKind) Is(target error) bool { return target == delta.ErrNotFound }
