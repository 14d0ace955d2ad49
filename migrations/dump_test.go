package migrations_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// dump returns everything in the catalogs about the pool's schema, one line each, sorted. Names have no schema, so that two schemas can be compared.
func dump(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		WITH schema AS (SELECT oid, quote_ident(nspname) || '.' AS prefix FROM pg_namespace WHERE nspname = current_schema()),
		lines AS (
			SELECT format('relation %s %s persistence %s options %s', c.relname, c.relkind, c.relpersistence, c.reloptions) AS line
			FROM pg_class c JOIN schema s ON c.relnamespace = s.oid
		UNION ALL
			SELECT format('column %s %s.%s %s notnull %s identity %s default %s',
				a.attnum, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
				pg_get_expr(d.adbin, d.adrelid))
			FROM pg_class c JOIN schema s ON c.relnamespace = s.oid
			JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
			WHERE c.relkind IN ('r', 'p', 'v', 'm')
		UNION ALL
			SELECT format('constraint %s on %s: %s', k.conname, k.conrelid::regclass, pg_get_constraintdef(k.oid))
			FROM pg_constraint k JOIN schema s ON k.connamespace = s.oid
		UNION ALL
			SELECT format('index %s on %s: %s', i.indexname, i.tablename, i.indexdef)
			FROM pg_indexes i JOIN schema s ON i.schemaname = current_schema()
		UNION ALL
			SELECT format('function %s: %s', p.proname, replace(pg_get_functiondef(p.oid), E'\n', ' '))
			FROM pg_proc p JOIN schema s ON p.pronamespace = s.oid
		UNION ALL
			SELECT format('trigger %s: %s', g.tgname, pg_get_triggerdef(g.oid))
			FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN schema s ON c.relnamespace = s.oid
		UNION ALL
			SELECT format('type %s %s: %s', y.typname, y.typtype,
				(SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = y.oid))
			FROM pg_type y JOIN schema s ON y.typnamespace = s.oid
		UNION ALL
			SELECT format('comment on %s: %s', c.relname, d.description)
			FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN schema s ON c.relnamespace = s.oid
		)
		SELECT regexp_replace(replace(line, s.prefix, ''), '\s*\n\s*', ' ', 'g') FROM lines, schema s ORDER BY 1`)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return strings.Join(lines, "\n")
}
