package cdc

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// FindTables lists the tables whose schema.table matches one of the patterns, by name, for [Publication.Tables]: an allow-list.
// In a pattern * stands for any characters, a slash and a dot among them, ? for one, [a-z] for one of these, and a backslash takes from the
// next its meaning. Partitions are left out, as are the server's own tables. It fails with an [*InvalidError] on a bad
// pattern, and on one that no table matches.
func FindTables(ctx context.Context, db DB, patterns ...string) ([]PublishedTable, error) {
	if len(patterns) == 0 {
		return nil, newInvalidError(FieldTables, patterns, "at least one pattern")
	}
	if err := checkEncoding(ctx, db); err != nil {
		return nil, err
	}
	rows, err := db.Query(ctx, `
		SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
			AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
		ORDER BY n.nspname, c.relname`)
	if err != nil {
		return nil, fmt.Errorf("cdc: listing tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t PublishedTable, err error) {
		return t, row.Scan(&t.Schema, &t.Table)
	})
	if err != nil {
		return nil, fmt.Errorf("cdc: listing tables: %w", err)
	}
	chosen := make([]bool, len(tables))
	for _, pattern := range patterns {
		found := false
		for i, t := range tables {
			match, err := MatchTable(pattern, t.Schema+"."+t.Table)
			if err != nil {
				return nil, err
			}
			chosen[i] = chosen[i] || match
			found = found || match
		}
		if !found {
			return nil, newInvalidError(FieldTables, pattern, "a pattern that matches the schema.table of at least one table")
		}
	}
	i := -1
	return slices.DeleteFunc(tables, func(PublishedTable) bool { i++; return !chosen[i] }), nil
}

// MatchTable reports whether a pattern of [FindTables] chooses a table, whose name is its schema and its own with a dot between them,
// as [Relation.Name] has them. It fails with an [*InvalidError] on a bad pattern.
func MatchTable(pattern, name string) (bool, error) {
	match, err := path.Match(withoutSlashes(pattern), withoutSlashes(name))
	if err != nil {
		return false, newInvalidError(FieldTables, pattern, "a pattern of *, ?, [a-z] and other characters")
	}
	return match, nil
}

// withoutSlashes puts what no name can hold in the place of slashes. To path.Match they separate, and in the name of a table they do not.
func withoutSlashes(text string) string { return strings.ReplaceAll(text, "/", "\x00") }
