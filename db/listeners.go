package db

import "context"

const countListeners = `SELECT count(*) FILTER (WHERE a.query = 'LISTEN "' || delta_channel() || '"'), count(*) FILTER (WHERE a.query = '<insufficient privilege>')
FROM pg_stat_activity a WHERE a.datname = current_database()`

// CountListeners counts the started clients: each listens on a connection. Without the rights of pg_read_all_stats the
// queries of other roles are hidden, and are counted as hidden. It is written by hand because sqlc does not know the
// view.
func (q *Queries) CountListeners(ctx context.Context, db DBTX) (listeners, hidden int64, err error) {
	err = db.QueryRow(ctx, countListeners).Scan(&listeners, &hidden)
	return listeners, hidden, err
}
