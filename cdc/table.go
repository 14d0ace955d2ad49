package cdc

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// table describes how to read a table page by page.
type table struct {
	relation *Relation
	from     string // for a FROM clause
	columns  string
	filter   string // an expression, or ""
	key      []keyColumn
	index    []keyColumn // of the replica identity, if that is an index
}

type keyColumn struct {
	column string
	name   string // quoted
	cast   string // its type, to compare it with texts
}

// useReplicaIdentity sets the key to the one by which the stream identifies rows, and returns its columns.
func (t *table) useReplicaIdentity() (columns []string, err error) {
	if t.relation.Identity == IdentityIndex && len(t.index) > 0 {
		t.key = t.index
	}
	for _, k := range t.key {
		if t.relation.Index(k.column) < 0 {
			return nil, newInvalidError(FieldTable, t.relation.Name(), "its key column "+k.column+" must be published")
		}
		columns = append(columns, k.column)
	}
	return columns, nil
}

// lookupTable looks up a table. Names are as in the catalog, not quoted.
func lookupTable(ctx context.Context, conn *connection, schema, name string, publications []string) (*table, error) {
	full := schema + "." + name
	rows, err := conn.queryRows(ctx, `
		SELECT c.oid, c.relkind, c.relreplident, row_security_active(c.oid), current_user
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`, schema, name)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, newInvalidError(FieldTable, full, "there is no table of this name")
	}
	if rows[0][3].Text == "t" {
		return nil, &RowSecurityError{Table: full, Role: rows[0][4].Text}
	}
	oid := rows[0][0].Text
	number, err := strconv.ParseUint(oid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%w: oid %q", ErrProtocol, oid)
	}
	t := &table{
		relation: &Relation{OID: uint32(number), Schema: schema, Table: name, Identity: Identity(rows[0][2].Text[0])},
		from:     pgx.Identifier{schema, name}.Sanitize(),
	}
	if rows[0][1].Text == "r" { // without the tables that inherit from it
		t.from = "ONLY " + t.from
	}
	listed, err := t.lookupPublished(ctx, conn, publications)
	if err != nil {
		return nil, err
	}
	if err := t.lookupColumns(ctx, conn, oid, listed); err != nil {
		return nil, err
	}
	if conn.isRaw && !t.relation.hasUTF8Names() {
		return nil, newInvalidError(FieldTable, full, "a table with a name and columns in UTF-8")
	}
	return t, nil
}

// lookupColumns finds the columns that the stream also has, and the keys.
func (t *table) lookupColumns(ctx context.Context, conn *connection, oid string, listed map[string]bool) error {
	rows, err := conn.queryRows(ctx, `
		SELECT a.attname, a.atttypid, a.atttypmod, base.typname, bn.nspname,
			coalesce(array_position(p.indkey[0:p.indnkeyatts-1]::int2[], a.attnum), -1),
			coalesce(array_position(r.indkey[0:r.indnkeyatts-1]::int2[], a.attnum), -1),
			a.attgenerated <> '', y.typname, yn.nspname
		FROM pg_attribute a
		JOIN pg_type y ON y.oid = a.atttypid
		JOIN pg_namespace yn ON yn.oid = y.typnamespace
		CROSS JOIN LATERAL (
			WITH RECURSIVE made (typname, typnamespace, typtype, typbasetype) AS (
				SELECT y.typname, y.typnamespace, y.typtype, y.typbasetype
				UNION ALL
				SELECT t.typname, t.typnamespace, t.typtype, t.typbasetype FROM made JOIN pg_type t ON made.typtype = 'd' AND t.oid = made.typbasetype
			)
			SELECT typname, typnamespace FROM made WHERE typtype <> 'd'
		) base
		JOIN pg_namespace bn ON bn.oid = base.typnamespace
		LEFT JOIN pg_index p ON p.indrelid = a.attrelid AND p.indisprimary
		LEFT JOIN pg_index r ON r.indrelid = a.attrelid AND r.indisreplident
		WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
		ORDER BY a.attnum`, oid)
	if err != nil {
		return err
	}
	primary, index := map[string]keyColumn{}, map[string]keyColumn{}
	var columns []string
	for _, row := range rows {
		c := Column{Name: row[0].Text, Type: row[3].Text}
		typeOID, err := strconv.ParseUint(row[1].Text, 10, 32)
		if err != nil {
			return fmt.Errorf("%w: oid %q", ErrProtocol, row[1].Text)
		}
		modifier, err := strconv.ParseInt(row[2].Text, 10, 32)
		if err != nil {
			return fmt.Errorf("%w: type modifier %q", ErrProtocol, row[2].Text)
		}
		c.TypeOID, c.Modifier = uint32(typeOID), int32(modifier)
		if row[4].Text != "pg_catalog" {
			c.Type = row[4].Text + "." + c.Type
		}
		key := keyColumn{c.Name, quoteIdentifier(c.Name), pgx.Identifier{row[9].Text, row[8].Text}.Sanitize()}
		if row[5].Text != "-1" {
			primary[row[5].Text] = key
		}
		if row[6].Text != "-1" {
			index[row[6].Text] = key
		}
		c.Key = t.relation.Identity == IdentityFull || t.relation.Identity == IdentityDefault && row[5].Text != "-1" ||
			t.relation.Identity == IdentityIndex && row[6].Text != "-1"
		// Before Postgres 18 generated columns are never streamed; since then the column list decides.
		hidden := row[7].Text == "t" && (listed == nil || conn.version < 180000)
		if !hidden && (listed == nil || listed[c.Name]) {
			t.relation.Columns = append(t.relation.Columns, c)
			columns = append(columns, quoteIdentifier(c.Name))
		}
	}
	for i := range len(index) {
		t.index = append(t.index, index[strconv.Itoa(i+1)])
	}
	if len(primary) == 0 {
		primary = index
	}
	for i := range len(primary) { // a slice of an array counts from one
		t.key = append(t.key, primary[strconv.Itoa(i+1)])
	}
	if len(t.key) == 0 {
		return newInvalidError(FieldTable, t.relation.Name(), "it needs a primary key, or a replica identity with an index, to be read page by page")
	}
	t.columns = strings.Join(columns, ", ")
	return nil
}

// lookupPublished returns the columns of the table in the publications, nil for all, and sets the filter.
func (t *table) lookupPublished(ctx context.Context, conn *connection, publications []string) (columns map[string]bool, err error) {
	if len(publications) == 0 {
		return nil, nil
	}
	extra := `NULL, NULL`
	if conn.version >= 150000 {
		extra = `array_to_json(attnames), rowfilter`
	}
	var names []string
	for _, p := range publications {
		names = append(names, quoteLiteral(p))
	}
	rows, err := conn.queryRows(ctx, `SELECT pubname, `+extra+` FROM pg_publication_tables
		WHERE schemaname = $1 AND tablename = $2 AND pubname IN (`+strings.Join(names, ", ")+`)`, t.relation.Schema, t.relation.Table)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, newInvalidError(FieldTable, t.relation.Name(), "it must be in one of the publications "+strings.Join(publications, ", "))
	}
	var filters []string
	for _, row := range rows {
		if row[1].State == ValuePresent {
			if columns, err = addNames(columns, row[1].Text); err != nil {
				return nil, err
			}
		}
		if row[2].State == ValuePresent {
			filters = append(filters, "("+row[2].Text+")")
		}
	}
	if len(filters) == len(rows) { // a publication without a filter includes all rows
		t.filter = strings.Join(filters, " OR ")
	}
	return columns, nil
}

// addNames adds the names of a JSON list to a set.
func addNames(names map[string]bool, text string) (map[string]bool, error) {
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("%w: names %s: %w", ErrProtocol, text, err)
	}
	if names == nil {
		names = map[string]bool{}
	}
	for _, n := range list {
		names[n] = true
	}
	return names, nil
}
