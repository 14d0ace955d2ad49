package wal2json

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// Types returns the names of the types of columns, such as integer and character varying(20).
type Types func(ctx context.Context, columns []cdc.Column) ([]string, error)

// unknownType is format_type's result for a type that does not exist.
const unknownType = "???"

// Catalog asks the database for the names, with format_type. Types that are not on the connection's search path are
// prefixed with their schema, so the search path should be the walsender's: that of the role or the database. A type
// that was dropped meanwhile has the name from the stream. A renamed type has its new name from the next description of
// a table on.
func Catalog(db cdc.DB) Types {
	return func(ctx context.Context, columns []cdc.Column) ([]string, error) {
		oids, modifiers := make([]uint32, len(columns)), make([]int32, len(columns))
		for i, c := range columns {
			oids[i], modifiers[i] = c.TypeOID, c.Modifier
		}
		rows, err := db.Query(ctx, `SELECT format_type(t.oid, t.modifier)
			FROM unnest($1::oid[], $2::int[]) WITH ORDINALITY t (oid, modifier, n) ORDER BY t.n`, oids, modifiers)
		if err != nil {
			return nil, err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for i, name := range names {
			if err == nil && strings.HasPrefix(name, unknownType) && columns[i].Type != "" {
				names[i], err = droppedTypeName(ctx, db, columns[i].Type)
			}
		}
		return names, err
	}
}

// droppedTypeName returns the name of a dropped type, with its schema if that is not on the search path.
func droppedTypeName(ctx context.Context, db cdc.DB, full string) (string, error) {
	schema, name, qualified := strings.Cut(full, ".")
	if !qualified {
		return full, nil
	}
	rows, err := db.Query(ctx, `SELECT CASE WHEN $1 = ANY (current_schemas(true)) THEN '' ELSE quote_ident($1) || '.' END || quote_ident($2)`, schema, name)
	if err != nil {
		return "", err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
}

// appendType appends the name of a type. Like the plugin, it does not quote a quoted name again.
func appendType(out []byte, name string) []byte {
	if inner, quoted := strings.CutPrefix(name, `"`); quoted {
		if inner, quoted = strings.CutSuffix(inner, `"`); quoted && !strings.ContainsAny(inner, "\"\\\n\r\t") {
			return append(out, name...)
		}
	}
	return AppendString(out, name)
}
