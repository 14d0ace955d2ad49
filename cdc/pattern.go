package cdc

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// FindTables lists the tables for which schema.table matches one of the patterns, by name, for [Publication.Tables]. In
// a pattern, * matches any characters including slashes and dots, ? matches one character, [a-z] one of these, and a
// backslash escapes the next character. Partitions and system tables are left out. It fails with an [*InvalidError] on
// an invalid pattern, and on one that matches no table.
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

// MatchTable reports whether a pattern of [FindTables] matches a table name of the form schema.table, as
// [Relation.Name] returns it. It fails with an [*InvalidError] on an invalid pattern.
func MatchTable(pattern, name string) (bool, error) {
	match, err := path.Match(withoutSlashes(pattern), withoutSlashes(name))
	if err != nil {
		return false, newInvalidError(FieldTables, pattern, "a pattern of *, ?, [a-z] and other characters")
	}
	return match, nil
}

// withoutSlashes replaces slashes by a character that no name can contain, because to path.Match a slash is a
// separator.
func withoutSlashes(text string) string { return strings.ReplaceAll(text, "/", "\x00") }
