package db

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Setting is a setting of the session, as Postgres has it.
type Setting struct {
	Name, Value string
	// Source is the origin of the value, in the words of pg_settings: "user", "database", "database user", "client",
	// "configuration file", …
	Source string
}

const findSettings = `SELECT s.name, s.setting, s.source FROM pg_catalog.pg_settings s WHERE s.name = ANY ($1::text[]) ORDER BY s.name`

// FindSettings returns the connection's settings with these names. It is written by hand because sqlc does not know the
// view.
func (q *Queries) FindSettings(ctx context.Context, db DBTX, names []string) ([]Setting, error) {
	rows, err := db.Query(ctx, findSettings, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Setting])
}

const findHiddenTables = `SELECT c.relname::text FROM pg_catalog.pg_class c
WHERE c.relnamespace = (SELECT o.relnamespace FROM pg_catalog.pg_class o WHERE o.oid = 'delta_installation'::regclass)
	AND c.relname = ANY (ARRAY['delta_installation', 'delta_namespace', 'delta_controller', 'delta_shard', 'delta_resource', 'delta_key', 'delta_claim', 'delta_listing',
		'delta_refused', 'delta_inform', 'delta_withheld', 'delta_pass', 'delta_stale', 'delta_source', 'delta_delivery', 'delta_figure', 'delta_change',
		'delta_change_consumer', 'delta_touch', 'delta_command'])
	AND pg_catalog.row_security_active(c.oid)
ORDER BY 1`

// FindHiddenTables returns Delta's tables with policies that may hide rows from the role.
func (q *Queries) FindHiddenTables(ctx context.Context, db DBTX) ([]string, error) {
	rows, err := db.Query(ctx, findHiddenTables)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
