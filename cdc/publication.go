package cdc

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Publication names the tables to stream.
type Publication struct {
	Name string
	// AllTables streams every table of the database, including future ones. Tables must be empty then.
	AllTables bool
	Tables    []PublishedTable
	// ViaRoot reports changes of partitions as changes of the partitioned table.
	ViaRoot bool
}

// PublishedTable is a table of a publication.
type PublishedTable struct {
	// Schema of the table. Default: public.
	Schema string
	Table  string
	// Columns are the columns to stream. For updates and deletes they must include those of the replica identity.
	// Default: all. Postgres 15 and later.
	Columns []string
	// Filter is an SQL expression; only rows for which it is true are streamed. It is sent to the server as it is, so
	// never take it from people who may not run SQL. Default: all rows. Postgres 15 and later.
	Filter string
}

// CreatePublication creates a publication. It fails with [ErrExists], or an [*InvalidError].
func CreatePublication(ctx context.Context, db DB, p Publication) error {
	if err := validateName(FieldPublications, p.Name); err != nil {
		return err
	}
	if p.AllTables == (len(p.Tables) > 0) {
		return newInvalidError(FieldTables, p.Name, "either AllTables, or at least one of Tables")
	}
	if err := checkEncoding(ctx, db); err != nil {
		return err
	}
	sql := `CREATE PUBLICATION ` + quoteIdentifier(p.Name) + ` FOR ALL TABLES`
	if !p.AllTables {
		var tables []string
		for _, t := range p.Tables {
			text, err := t.toSQL()
			if err != nil {
				return err
			}
			tables = append(tables, text)
		}
		sql = `CREATE PUBLICATION ` + quoteIdentifier(p.Name) + ` FOR TABLE ` + strings.Join(tables, ", ")
	}
	if p.ViaRoot {
		sql += ` WITH (publish_via_partition_root = true)`
	}
	for _, t := range p.Tables {
		if len(t.Columns) > 0 || t.Filter != "" {
			if err := requireVersion(ctx, db, 15, FieldTables, "a column list or a row filter"); err != nil {
				return err
			}
			break
		}
	}
	// The extended protocol allows a single statement only, whatever a filter holds.
	if _, err := db.Exec(ctx, sql, pgx.QueryExecModeDescribeExec); err != nil {
		return fmt.Errorf("cdc: creating publication %q: %w", p.Name, wrapServerError(err))
	}
	return nil
}

func (t PublishedTable) toSQL() (string, error) {
	schema := t.Schema
	if schema == "" {
		schema = "public"
	}
	for _, name := range []string{schema, t.Table} {
		if err := validateName(FieldTable, name); err != nil {
			return "", err
		}
	}
	sql := pgx.Identifier{schema, t.Table}.Sanitize()
	if len(t.Columns) > 0 {
		var columns []string
		for _, c := range t.Columns {
			if err := validateName(FieldColumns, c); err != nil {
				return "", err
			}
			columns = append(columns, quoteIdentifier(c))
		}
		sql += " (" + strings.Join(columns, ", ") + ")"
	}
	if t.Filter != "" {
		if strings.ContainsRune(t.Filter, 0) {
			return "", newInvalidError(FieldFilter, t.Filter, "no zero byte")
		}
		sql += " WHERE (" + t.Filter + "\n)"
	}
	return sql, nil
}

// Publications lists the publications of the database by name. Tables holds the tables that were named explicitly, with
// columns and filters on Postgres 15 and later.
func Publications(ctx context.Context, db DB) ([]Publication, error) {
	if err := checkEncoding(ctx, db); err != nil {
		return nil, err
	}
	version, err := queryOne[int](ctx, db, `SELECT current_setting('server_version_num')::int`)
	if err != nil {
		return nil, fmt.Errorf("cdc: listing publications: %w", err)
	}
	columns, filter := `NULL::text[]`, `''`
	if version >= 150000 {
		columns = `(SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
			WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs))::text[]`
		filter = `coalesce(pg_get_expr(r.prqual, c.oid), '')`
	}
	rows, err := db.Query(ctx, `
		SELECT p.pubname, p.puballtables, p.pubviaroot, n.nspname, c.relname,
			`+columns+`, `+filter+`
		FROM pg_publication p
		LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid
		LEFT JOIN pg_class c ON c.oid = r.prrelid
		LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
		ORDER BY p.pubname, n.nspname, c.relname`)
	if err != nil {
		return nil, fmt.Errorf("cdc: listing publications: %w", err)
	}
	defer rows.Close()
	var found []Publication
	for rows.Next() {
		var p Publication
		var schema, table *string
		var t PublishedTable
		if err := rows.Scan(&p.Name, &p.AllTables, &p.ViaRoot, &schema, &table, &t.Columns, &t.Filter); err != nil {
			return nil, fmt.Errorf("cdc: listing publications: %w", err)
		}
		if len(found) == 0 || found[len(found)-1].Name != p.Name {
			found = append(found, p)
		}
		if schema != nil && table != nil {
			t.Schema, t.Table = *schema, *table
			last := &found[len(found)-1]
			last.Tables = append(last.Tables, t)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cdc: listing publications: %w", err)
	}
	return found, nil
}

// DropPublication drops the publication of exactly this name. It fails with [ErrNotFound].
func DropPublication(ctx context.Context, db DB, name string) error {
	if err := validateName(FieldPublications, name); err != nil {
		return err
	}
	if err := checkEncoding(ctx, db); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, `DROP PUBLICATION `+quoteIdentifier(name)); err != nil {
		return fmt.Errorf("cdc: dropping publication %q: %w", name, wrapServerError(err))
	}
	return nil
}
