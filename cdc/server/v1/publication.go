package v1

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server/internal/identity"
)

// If a publication includes the updates of a table without a replica identity, Postgres refuses the updates themselves.
// So there are two: changes has the tables with an identity, and inserts has the inserts and truncates of the others.
// Postgres 18 also refuses updates if generated columns, which are not published, belong to the identity.
// For a superuser, inserts is for all tables, so that a new table is published before a refresh finds it.

// publishedTable is a table that is in a publication, or should be.
type publishedTable struct {
	publication string
	table       pgx.Identifier
}

// ensurePublications creates the publications that do not exist. Call it in a transaction.
func (h *Handler) ensurePublications(ctx context.Context, db cdc.DB) error {
	all, err := h.canPublishAll(ctx, db)
	if err != nil {
		return err
	}
	other := false
	for _, p := range []struct{ name, what string }{
		{h.markers.changes, ` WITH (publish = 'insert, update, delete, truncate')`},
		{h.markers.inserts, map[bool]string{true: ` FOR ALL TABLES`}[all] + ` WITH (publish = 'insert, truncate')`},
	} {
		made, err := h.markers.readMarker(ctx, db, p.name)
		if err != nil {
			return err
		}
		if made != nil && p.name == h.markers.inserts {
			// FOR ALL TABLES cannot be changed later. It is dropped and created at one position of the log, so that no stream stops.
			if other, err = h.dropMismatch(ctx, db, all); err != nil {
				return err
			}
		}
		if made != nil && !other {
			continue
		}
		if _, err := db.Exec(ctx, `CREATE PUBLICATION `+pgx.Identifier{p.name}.Sanitize()+p.what); err != nil {
			return fmt.Errorf("creating publication %q, for which the role needs CREATE on the database: %w", p.name, err)
		}
		if err := h.markers.writeMarker(ctx, db, p.name); err != nil {
			return err
		}
	}
	if !other {
		return nil
	}
	statements, err := h.planChanges(ctx, db) // in the same transaction, so that no change is missed in between
	if err != nil {
		return err
	}
	return execAll(ctx, db, statements)
}

func execAll(ctx context.Context, db cdc.DB, statements []string) error {
	for _, s := range statements {
		if _, err := db.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// dropMismatch drops the publication of inserts if it is for all tables and should not be, or the other way round.
func (h *Handler) dropMismatch(ctx context.Context, db cdc.DB, all bool) (dropped bool, err error) {
	if is, err := h.isForAllTables(ctx, db); err != nil || is == all {
		return false, err
	}
	return true, cdc.DropPublication(ctx, db, h.markers.inserts)
}

// isForAllTables reports whether the publication of inserts is for all tables.
func (h *Handler) isForAllTables(ctx context.Context, db cdc.DB) (bool, error) {
	rows, err := db.Query(ctx, `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND puballtables)`, h.markers.inserts)
	if err != nil {
		return false, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
}

// canPublishAll reports whether one publication can have all tables, also future ones.
func (h *Handler) canPublishAll(ctx context.Context, db cdc.DB) (bool, error) {
	if len(h.config.Tables) != 1 || h.config.Tables[0] != "*" {
		return false, nil
	}
	rows, err := db.Query(ctx, `SELECT rolsuper FROM pg_roles WHERE rolname = current_user`)
	if err != nil {
		return false, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
}

// planChanges returns the statements that add and remove tables of the publications.
func (h *Handler) planChanges(ctx context.Context, db cdc.DB) ([]string, error) {
	wanted, strangers, err := h.findWantedTables(ctx, db)
	if err != nil {
		return nil, err
	}
	if h.foreignTables.Swap(strangers) != strangers && strangers > 0 {
		h.config.Logger.Warn("v1: tables are not streamed, because the role does not own them", "tables", strangers)
	}
	rows, err := db.Query(ctx, `
		SELECT p.pubname, n.nspname, c.relname
		FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
		JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname IN ($1, $2)`, h.markers.changes, h.markers.inserts)
	if err != nil {
		return nil, err
	}
	there := map[string]publishedTable{}
	var p publishedTable
	var schema, table string
	_, err = pgx.ForEachRow(rows, []any{&p.publication, &schema, &table}, func() error {
		p.table = pgx.Identifier{schema, table}
		there[p.mapKey()] = p
		return nil
	})
	if err != nil {
		return nil, err
	}
	var statements []string
	for key, p := range there { // first, so that no table is in both publications
		if _, keep := wanted[key]; !keep {
			statements = append(statements, p.alterStatement("DROP"))
		}
	}
	for key, p := range wanted {
		if _, done := there[key]; !done {
			statements = append(statements, p.alterStatement("ADD"))
		}
	}
	return statements, nil
}

func (p publishedTable) mapKey() string { return p.publication + " " + p.table.Sanitize() }

func (p publishedTable) alterStatement(verb string) string {
	return `ALTER PUBLICATION ` + pgx.Identifier{p.publication}.Sanitize() + ` ` + verb + ` TABLE ONLY ` + p.table.Sanitize()
}

// findWantedTables returns the tables to stream, and how many others the role may not publish. A partitioned table is published as a whole,
// including future partitions, if all of its partitions have an identity; its partitions are listed as well.
func (h *Handler) findWantedTables(ctx context.Context, db cdc.DB) (wanted map[string]publishedTable, strangers int64, err error) {
	rows, err := db.Query(ctx, `
		WITH `+identity.CTE+`, tables AS (
			SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition, pg_has_role(c.relowner, 'USAGE') AS owned,
				c.oid IN (SELECT oid FROM identified) AS identity
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
		)
		SELECT t.nspname, t.relname, t.owned, CASE WHEN t.relkind = 'r' THEN t.identity ELSE t.identity AND NOT EXISTS (
			SELECT FROM pg_partition_tree(t.oid) leaf JOIN tables l ON l.oid = leaf.relid WHERE leaf.isleaf AND NOT l.identity) END,
			EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND puballtables)
		FROM tables t WHERE t.relkind = 'r' OR NOT t.relispartition`, h.markers.inserts)
	if err != nil {
		return nil, 0, err
	}
	wanted = map[string]publishedTable{}
	var schema, table string
	var owned, identified, all bool
	_, err = pgx.ForEachRow(rows, []any{&schema, &table, &owned, &identified, &all}, func() error {
		p := publishedTable{h.markers.changes, pgx.Identifier{schema, table}}
		if !identified {
			p.publication = h.markers.inserts
		}
		switch {
		case !h.allowsTable(schema, table), !identified && all:
		case !owned:
			strangers++
		default:
			wanted[p.mapKey()] = p
		}
		return nil
	})
	return wanted, strangers, err
}

// allowsTable reports whether a table may be read and streamed.
func (h *Handler) allowsTable(schema, table string) bool {
	for _, pattern := range h.config.Tables {
		if match, err := cdc.MatchTable(pattern, schema+"."+table); match && err == nil {
			return true
		}
	}
	return false
}

// refreshPublications looks for new and changed tables until the handler is closed.
func (h *Handler) refreshPublications() {
	ticker := time.NewTicker(h.config.RefreshInterval)
	defer ticker.Stop()
	failing := ""
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-ticker.C:
		}
		err := h.refreshOnce(h.ctx)
		switch {
		case err == nil:
			failing = ""
		case h.ctx.Err() == nil && err.Error() != failing: // log each error once
			failing = err.Error()
			h.config.Logger.Warn("v1: new tables are not streamed yet", "error", err)
		}
	}
}

// refreshOnce applies the changes, each in its own transaction, so that a locked table does not delay the others. It is tried again at the
// next refresh.
func (h *Handler) refreshOnce(ctx context.Context) (failed error) {
	slots, err := h.markers.readSlots(ctx, h.pool)
	if err != nil || len(slots) == 0 {
		return err
	}
	all, err := h.canPublishAll(ctx, h.pool)
	if err != nil {
		return err
	}
	is, err := h.isForAllTables(ctx, h.pool)
	if err != nil {
		return err
	}
	made, err := h.markers.readMarker(ctx, h.pool, h.markers.inserts)
	if err != nil {
		return err
	}
	if made == nil || is != all { // another program has dropped it, or the settings were changed by a restart
		return pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error { return h.ensurePublications(ctx, tx) })
	}
	statements, err := h.planChanges(ctx, h.pool)
	if err != nil {
		return err
	}
	for _, s := range statements {
		err := pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, s)
			return err
		})
		if err != nil {
			failed = fmt.Errorf("%s: %w", s, err)
		}
	}
	return failed
}
