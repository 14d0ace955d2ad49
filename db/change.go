package db

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// ResourceOf returns the row that a command has deleted.
func (r DeleteResourcesRow) ResourceOf() Resource { return r.Resource }

// ResourceOf returns the row that a command has revived.
func (r ReviveResourcesRow) ResourceOf() Resource { return r.Resource }

// ResourceOf returns the row that a listing has deleted.
func (r DeleteMissingRow) ResourceOf() Resource { return r.Resource }

// ResourceOf returns the row that a source has deleted.
func (r DeleteGoneRow) ResourceOf() Resource { return r.Resource }

// ResourcesOf returns the rows of a set.
func ResourcesOf[R interface{ ResourceOf() Resource }](rows []R, err error) ([]Resource, error) {
	if err != nil {
		return nil, err
	}
	all := make([]Resource, len(rows))
	for i, row := range rows {
		all[i] = row.ResourceOf()
	}
	return all, nil
}

// OpenTransaction is a transaction of the server that has not ended. Fields that the role may not read are empty.
type OpenTransaction struct {
	PID                                int
	Prepared                           string
	Database, User, Application, State string
	Age                                time.Duration
}

// A prepared transaction has no process.
const findOldestTransaction = `SELECT o.pid, o.prepared, o.database, o.role, o.application, o.state, o.age FROM (
	SELECT a.pid, '' AS prepared, coalesce(a.datname, '')::text AS database, coalesce(a.usename, '')::text AS role, coalesce(a.application_name, '') AS application,
		coalesce(a.state, '') AS state, coalesce(pg_catalog.clock_timestamp() - a.xact_start, '0') AS age, a.backend_xid AS xid
	FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
	UNION ALL
	SELECT 0, p.gid, p.database::text, p.owner::text, '', 'prepared', pg_catalog.clock_timestamp() - p.prepared, p.transaction FROM pg_catalog.pg_prepared_xacts p
) o
ORDER BY pg_catalog.age(o.xid) DESC LIMIT 1`

// FindOldestTransaction returns the transaction that has had its id for longest; nil where the role sees none. It is
// written by hand because sqlc does not know the views.
func (q *Queries) FindOldestTransaction(ctx context.Context, db DBTX) (*OpenTransaction, error) {
	var o OpenTransaction
	err := db.QueryRow(ctx, findOldestTransaction).Scan(&o.PID, &o.Prepared, &o.Database, &o.User, &o.Application, &o.State, &o.Age)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is no error
	}
	return &o, err
}
