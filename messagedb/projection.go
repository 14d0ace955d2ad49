package messagedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DefaultProjectionSchema is where the table of projections is.
const DefaultProjectionSchema = "public"

const projectionTable = "messagedb_projection"

// ProjectionState is the purpose of a version of a projection.
type ProjectionState string

// The states of the versions of a projection. One of them is live.
const (
	// ProjectionBuilding has not caught up with the live one yet.
	ProjectionBuilding ProjectionState = "building"
	// ProjectionLive is the one to read.
	ProjectionLive ProjectionState = "live"
	// ProjectionRetired was live before another one. Its projector writes no more.
	ProjectionRetired ProjectionState = "retired"
)

// Projection is one version of a projection, as its row in the table messagedb_projection has it.
type Projection struct {
	Name     string
	Version  int
	Category string
	State    ProjectionState
	// Position is the global position of the last message that it has, 0 if there is none.
	Position int64
	// MessageID is the id of that message, empty if there is none: see [Client.CheckPosition].
	MessageID string
	// SavedAt is when the position was saved last, in UTC.
	SavedAt time.Time
}

// ProjectionTable is the SQL that makes the table of projections in a schema, if it is not there: for your own migrations. An empty
// schema is [DefaultProjectionSchema]. A row is one version of one projection.
func ProjectionTable(schema string) string {
	schema = cmp.Or(schema, DefaultProjectionSchema)
	table := pgx.Identifier{schema, projectionTable}.Sanitize()
	return `CREATE TABLE IF NOT EXISTS ` + table + ` (
	name text NOT NULL,
	version integer NOT NULL CHECK (version > 0),
	category text NOT NULL,
	state text NOT NULL CHECK (state IN ('building', 'live', 'retired')),
	position bigint NOT NULL DEFAULT 0, -- the global position of the last message that the projection has
	message_id uuid, -- of that message: a store that was restored from a backup may have another one there
	saved_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (name, version)
);
-- One version is live.
CREATE UNIQUE INDEX IF NOT EXISTS ` + pgx.Identifier{projectionTable + "_live"}.Sanitize() + ` ON ` + table + ` (name) WHERE state = 'live';
`
}

// MigrateProjections makes the table of projections in a schema that exists, if the table is not there. It is safe to call from many
// processes at once, at every start. See [ProjectionTable].
func MigrateProjections(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	if pool == nil {
		return newInvalidError(FieldPool, "nil", "must be an open *pgxpool.Pool")
	}
	schema = cmp.Or(schema, DefaultProjectionSchema) // before it names the lock
	if err := validSchema(schema); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, utf8Pool{pool}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, waitLocally); err != nil {
			return err
		}
		// CREATE TABLE IF NOT EXISTS fails when two do it at once.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", Hash64("messagedb projections "+schema)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, ProjectionTable(schema), pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil {
		return fmt.Errorf("messagedb: making the table of projections in schema %q: %w", schema, explainReadOnly(err))
	}
	return nil
}

// Projections lists all versions of all projections of a schema, by name and version. An empty schema is [DefaultProjectionSchema]. Where
// there is no table of projections, there are none.
func Projections(ctx context.Context, pool *pgxpool.Pool, schema string) ([]Projection, error) {
	if pool == nil {
		return nil, newInvalidError(FieldPool, "nil", "must be an open *pgxpool.Pool")
	}
	schema = cmp.Or(schema, DefaultProjectionSchema)
	if err := validSchema(schema); err != nil {
		return nil, err
	}
	all, err := listProjections(ctx, utf8Pool{pool}, projectionSelect(schema)+" ORDER BY name, version")
	if isUndefinedTable(err) {
		return nil, nil
	}
	if err == nil {
		err = refuseHiddenProjections(ctx, utf8Pool{pool}, schema)
	}
	if hidden := asRowSecurity(err); hidden != nil {
		return nil, hidden
	}
	if err != nil {
		return nil, fmt.Errorf("messagedb: listing projections: %w", err)
	}
	return all, nil
}

func isUndefinedTable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == stateNoTable
}

func projectionSelect(schema string) string {
	return "SELECT name, version, category, state, position, coalesce(message_id::text, ''), saved_at FROM " +
		pgx.Identifier{schema, projectionTable}.Sanitize()
}

// refuseHiddenProjections fails where policies may hide projections.
func refuseHiddenProjections(ctx context.Context, db rowQuerier, schema string) error {
	_, err := db.Exec(ctx, "SELECT "+buildUnfilteredCheck(pgx.Identifier{schema, projectionTable}.Sanitize()))
	return err
}

func listProjections(ctx context.Context, db rowQuerier, sql string, args ...any) ([]Projection, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Projection, err error) {
		err = row.Scan(&p.Name, &p.Version, &p.Category, (*string)(&p.State), &p.Position, &p.MessageID, &p.SavedAt)
		p.SavedAt = p.SavedAt.UTC()
		return p, err
	})
}

// rowQuerier runs statements about projections: a pool or a transaction.
type rowQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// projectionRow is the row of one version, which only its statements change: each is one legal transition.
type projectionRow struct {
	schema, name string
	version      int
	category     string

	register, load, lockAll, advance, retireLive, makeLive string
}

func newProjectionRow(schema, name string, version int, category string) projectionRow {
	table := pgx.Identifier{schema, projectionTable}.Sanitize()
	get := projectionSelect(schema)
	return projectionRow{
		schema: schema, name: name, version: version, category: category,
		// The first version is live at once. If two first ones race for that, nothing is inserted for one of them, and it tries again.
		register: `INSERT INTO ` + table + ` (name, version, category, state)
			SELECT $1::text, $2::integer, $3::text, CASE WHEN EXISTS (SELECT FROM ` + table + ` WHERE name = $1 AND state = 'live') THEN 'building' ELSE 'live' END
			ON CONFLICT DO NOTHING`,
		load:    get + " WHERE name = $1 ORDER BY version",
		lockAll: get + " WHERE name = $1 ORDER BY version FOR UPDATE",
		advance: `UPDATE ` + table + ` SET position = $4, message_id = nullif($5, '')::uuid, saved_at = now()
			WHERE name = $1 AND version = $2 AND position = $3 AND state <> 'retired'`,
		retireLive: `UPDATE ` + table + ` SET state = 'retired' WHERE name = $1 AND state = 'live'`,
		makeLive:   `UPDATE ` + table + ` SET state = 'live' WHERE name = $1 AND version = $2`,
	}
}

// readProjection returns the row and that of the live version. It inserts the row if there is none.
func (r projectionRow) readProjection(ctx context.Context, db rowQuerier) (own, live Projection, err error) {
	// Where a policy hid the live version, this one would take its place.
	if err := refuseHiddenProjections(ctx, db, r.schema); err != nil {
		return own, live, err
	}
	for range 3 {
		if _, err := db.Exec(ctx, r.register, r.name, r.version, r.category); err != nil {
			return own, live, err
		}
		own, live, err = r.queryVersions(ctx, db, r.load)
		var none *ProjectionError
		if !errors.As(err, &none) || none.Reason != ProjectionGone {
			return own, live, err
		}
	}
	return own, live, err
}

// queryVersions runs one of the statements that return all versions, and checks that this version may go on.
func (r projectionRow) queryVersions(ctx context.Context, db rowQuerier, sql string) (own, live Projection, err error) {
	all, err := listProjections(ctx, db, sql, r.name)
	if err != nil {
		return own, live, err
	}
	for _, p := range all {
		if p.Version == r.version {
			own = p
		}
		if p.State == ProjectionLive {
			live = p
		}
	}
	switch {
	case own.Version == 0:
		if err = refuseHiddenProjections(ctx, db, r.schema); err == nil {
			err = r.newStoppedError(ProjectionGone, "its row was deleted")
		}
	case own.Category != r.category:
		err = r.newStoppedError(ProjectionOfOtherCategory, fmt.Sprintf("its row is of category %q, not %q", own.Category, r.category))
	case own.State == ProjectionRetired || live.Version > r.version:
		err = r.newStoppedError(ProjectionSuperseded, fmt.Sprintf("version %d is live", live.Version))
	}
	return own, live, err
}

func (r projectionRow) newStoppedError(reason ProjectionReason, detail string) *ProjectionError {
	return &ProjectionError{Name: r.name, Version: r.version, Reason: reason, detail: detail}
}

// ProjectionReason is why a projector must not go on.
type ProjectionReason string

// The reasons.
const (
	// ProjectionSuperseded means that a later version is live.
	ProjectionSuperseded ProjectionReason = "superseded"
	// ProjectionAhead means that the store ends before the projection's position: it was restored from a backup, or emptied. What the
	// projection has of messages that are no more can only be undone by building another version.
	ProjectionAhead ProjectionReason = "ahead"
	// ProjectionOfOtherStore means that another message is at the projection's position: as for ProjectionAhead.
	ProjectionOfOtherStore ProjectionReason = "other_store"
	// ProjectionOfOtherCategory means that the name belongs to a projection of another category.
	ProjectionOfOtherCategory ProjectionReason = "other_category"
	// ProjectionGone means that somebody deleted the row.
	ProjectionGone ProjectionReason = "gone"
	// ProjectionNotMigrated means that there is no table of projections: call [MigrateProjections].
	ProjectionNotMigrated ProjectionReason = "not_migrated"
)

// ProjectionError is a projector that must not go on. Nothing was written.
type ProjectionError struct {
	Name    string
	Version int
	Reason  ProjectionReason
	detail  string
}

func (e *ProjectionError) Error() string {
	return fmt.Sprintf("messagedb: projection %q, version %d: %s: %s", e.Name, e.Version, e.Reason, e.detail)
}
