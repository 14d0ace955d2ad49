package v1

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// table is a table that a snapshot is read of.
type table struct {
	cdc.Relation
	isPartitioned bool
	key           []string // columns of the primary key
}

// refusal says that a request cannot be served, with the status of the answer.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// nameSpelling is one way to read a client's text as a name.
type nameSpelling struct{ schema, name string }

// nameSpellings returns the ways to read the name of a table, the best first: as in the catalog, and as in SQL. Both may have a schema and
// a dot before it.
func nameSpellings(text string) []nameSpelling {
	ways := []nameSpelling{{"", text}}
	if schema, name, dot := strings.Cut(text, "."); dot && schema != "" {
		ways = append(ways, nameSpelling{schema, name})
	}
	switch parts := splitIdentifiers(text); {
	case len(parts) == 1:
		ways = append(ways, nameSpelling{"", parts[0]})
	case len(parts) == 2 && parts[0] != "":
		ways = append(ways, nameSpelling{parts[0], parts[1]})
	}
	return ways
}

// splitIdentifiers parses names with dots between them as SQL does. It returns nil if the text is not that.
func splitIdentifiers(text string) (parts []string) {
	for {
		var part string
		if rest, quoted := strings.CutPrefix(text, `"`); quoted {
			end := 0
			for end < len(rest) && (rest[end] != '"' || strings.HasPrefix(rest[end:], `""`)) {
				if rest[end] == '"' {
					end++
				}
				end++
			}
			if end >= len(rest) {
				return nil
			}
			part, text = strings.ReplaceAll(rest[:end], `""`, `"`), rest[end+1:]
		} else {
			end := strings.IndexByte(text+".", '.')
			part, text = strings.ToLower(text[:end]), text[end:]
		}
		parts = append(parts, part)
		if text == "" {
			return parts
		}
		if text[0] != '.' {
			return nil
		}
		text = text[1:]
	}
}

// lookupTable finds a table in the catalog.
func (h *Handler) lookupTable(ctx context.Context, text string) (*table, error) {
	var schemas, names []string
	for _, s := range nameSpellings(text) {
		schemas, names = append(schemas, s.schema), append(names, s.name)
	}
	none := &refusal{http.StatusNotFound, fmt.Sprintf("there is no table %.100q", text)}
	if strings.ContainsRune(text, 0) {
		return nil, none
	}
	rows, err := h.pool.Query(ctx, `
		SELECT c.oid, n.nspname, c.relname, c.relkind = 'p'
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY s (schema, name, n)
		JOIN pg_class c ON c.relname = s.name JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE CASE WHEN s.schema = '' THEN n.nspname = ANY (current_schemas(false)) ELSE n.nspname = s.schema END
			AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
		ORDER BY s.n, array_position(current_schemas(false), n.nspname)`, schemas, names)
	if err != nil {
		return nil, err
	}
	t := &table{}
	found := false
	var oid uint32
	var schema, name string
	var partitioned bool
	_, err = pgx.ForEachRow(rows, []any{&oid, &schema, &name, &partitioned}, func() error {
		if !found && h.allowsTable(schema, name) {
			found, t.OID, t.Schema, t.Table, t.isPartitioned = true, oid, schema, name, partitioned
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, none
	}
	return t, t.describeColumns(ctx, h.pool)
}

// describeColumns reads the columns and the primary key. A domain is replaced by its base type, as in an answer of Postgres.
func (t *table) describeColumns(ctx context.Context, db cdc.DB) error {
	rows, err := db.Query(ctx, `
		WITH RECURSIVE based (domain, type) AS (
			SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd'
			UNION ALL
			SELECT b.domain, t.typbasetype FROM based b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
		)
		SELECT a.attname, coalesce(b.type, a.atttypid), coalesce(array_position(i.indkey[0:i.indnkeyatts-1]::int2[], a.attnum), -1)
		FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
			LEFT JOIN based b ON b.domain = a.atttypid AND b.type NOT IN (SELECT oid FROM pg_type WHERE typtype = 'd')
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, t.OID)
	if err != nil {
		return err
	}
	places := map[int]string{}
	var c cdc.Column
	var place int
	_, err = pgx.ForEachRow(rows, []any{&c.Name, &c.TypeOID, &place}, func() error {
		t.Columns = append(t.Columns, c)
		if place >= 0 {
			places[place] = c.Name
		}
		return nil
	})
	for place := 0; place <= len(places); place++ { // a slice of an array counts from one in some versions
		if name, there := places[place]; there {
			t.key = append(t.key, name)
		}
	}
	return err
}

// findColumn returns the name of a column as it is in the catalog.
func (t *table) findColumn(text string) (string, error) {
	if t.Index(text) >= 0 {
		return text, nil
	}
	if parts := splitIdentifiers(text); len(parts) == 1 && t.Index(parts[0]) >= 0 {
		return parts[0], nil
	}
	return "", &refusal{http.StatusBadRequest, fmt.Sprintf("table %q has no column %.100q", t.Name(), text)}
}

// pageQuery returns the statement that reads a page of rows. Rows that are equal in the order are sorted by the primary key, or else by
// where they are stored, which does not change within a snapshot. So consecutive pages have each row once.
func (t *table) pageQuery(order string, descending bool, offset, limit int64) string {
	var columns, by []string
	for _, c := range t.Columns {
		columns = append(columns, pgx.Identifier{c.Name}.Sanitize())
	}
	if order != "" {
		by = append(by, pgx.Identifier{order}.Sanitize())
		if descending {
			by[0] += " DESC"
		}
	}
	for _, name := range t.key {
		by = append(by, pgx.Identifier{name}.Sanitize())
	}
	from := pgx.Identifier{t.Schema, t.Table}.Sanitize()
	if len(t.key) == 0 {
		by = append(by, "tableoid", "ctid")
	}
	if !t.isPartitioned {
		from = "ONLY " + from
	}
	return fmt.Sprintf("SELECT %s FROM %s ORDER BY %s OFFSET %d LIMIT %d", strings.Join(columns, ", "), from, strings.Join(by, ", "), offset, limit)
}
