package db

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// SourceWriter is a transaction that holds the row of a source: it writes a page, or the end of a listing.
type SourceWriter struct {
	Kind, Name string
	// IsWaiting reports whether it waits for a lock, and Blocker is the transaction with that lock: one of them, if
	// there are several.
	IsWaiting bool
	Blocker   OpenTransaction
}

// A row's xmax is the transaction that has updated it and not ended. A prepared transaction that holds a lock has the
// process 0 and no other name there, so the oldest one of the database is named.
const findSourceWriters = `SELECT DISTINCT ON (s.kind, s.name) s.kind, s.name, coalesce(w.wait_event_type = 'Lock', FALSE), coalesce(p.pid, 0), coalesce(x.gid, ''),
	coalesce(b.datname, x.database, '')::text, coalesce(b.usename, x.owner, '')::text, coalesce(b.application_name, ''), coalesce(b.state, ''),
	coalesce(pg_catalog.clock_timestamp() - coalesce(b.xact_start, x.prepared), '0')
FROM delta_source s JOIN pg_catalog.pg_stat_activity w ON w.backend_xid = s.xmax
LEFT JOIN LATERAL pg_catalog.unnest(CASE WHEN w.wait_event_type = 'Lock' THEN pg_catalog.pg_blocking_pids(w.pid) END) p (pid) ON TRUE
LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = p.pid
LEFT JOIN LATERAL (
	SELECT * FROM pg_catalog.pg_prepared_xacts o WHERE o.database = pg_catalog.current_database() ORDER BY o.prepared LIMIT 1
) x ON p.pid = 0
ORDER BY s.kind, s.name, b.xact_start`

// FindSourceWriters returns the transactions that currently write for sources, as far as the role may see those of
// others. Finding the holder of a lock locks all lock tables of the server for a moment, so do not call it often. It is
// written by hand because sqlc does not know the views.
func (q *Queries) FindSourceWriters(ctx context.Context, db DBTX) ([]SourceWriter, error) {
	rows, err := db.Query(ctx, findSourceWriters)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (w SourceWriter, err error) {
		b := &w.Blocker
		err = row.Scan(&w.Kind, &w.Name, &w.IsWaiting, &b.PID, &b.Prepared, &b.Database, &b.User, &b.Application, &b.State, &b.Age)
		return w, err
	})
}
