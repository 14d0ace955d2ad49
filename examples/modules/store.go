package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/examples/modules/proxy"
)

// The table is the application's own, beside Delta's. The last three columns say which attempt wrote a row: ids of resources ascend, and so do the generations of
// each resource and the attempts of each generation.
const createTableSQL = `
CREATE TABLE IF NOT EXISTS module (
    path        text PRIMARY KEY,
    version     text NOT NULL,
    indirect    boolean NOT NULL,
    replaced_by text,
    latest      text,
    released_at timestamptz,
    age         interval GENERATED ALWAYS AS (checked_at - released_at) STORED,
    newer       integer,
    behind      text,
    status      text NOT NULL,
    reason      text,
    proxy       text,
    checked_at  timestamptz NOT NULL DEFAULT now(),
    resource_id bigint NOT NULL,
    generation  bigint NOT NULL,
    attempt     integer NOT NULL
)`

// The condition makes Work safe to run twice, late, or beside a run that Delta has given up on, because an older write never overwrites a newer one.
const upsertSQL = `
INSERT INTO module AS m
    (path, version, indirect, replaced_by, latest, released_at, newer, behind, status, reason, proxy, resource_id, generation, attempt)
VALUES
    (@path, @version, @indirect, nullif(@replaced_by, ''), nullif(@latest, ''), @released_at, @newer, @behind,
     @status, nullif(@reason, ''), nullif(@proxy, ''), @resource_id, @generation, @attempt)
ON CONFLICT (path) DO UPDATE SET
    version = excluded.version, indirect = excluded.indirect, replaced_by = excluded.replaced_by,
    latest = excluded.latest, released_at = excluded.released_at, newer = excluded.newer, behind = excluded.behind,
    status = excluded.status, reason = excluded.reason, proxy = excluded.proxy, checked_at = excluded.checked_at,
    resource_id = excluded.resource_id, generation = excluded.generation, attempt = excluded.attempt
WHERE (m.resource_id, m.generation, m.attempt) <= (excluded.resource_id, excluded.generation, excluded.attempt)`

const removeRow = `
DELETE FROM module
WHERE path = @path AND (resource_id, generation, attempt) <= (@resource_id, @generation, @attempt)`

const selectRows = `
SELECT r.object, r.state::text, r.attempt, r.due_at, r.attempted_at, r.synced_at,
       coalesce(r.errors[cardinality(r.errors)]->>'error', ''),
       coalesce(m.latest, ''), m.released_at, coalesce(m.newer, 0), coalesce(m.behind, ''),
       coalesce(m.status, ''), coalesce(m.reason, ''), m.checked_at
FROM delta_resource r LEFT JOIN module m ON m.path = r.object_id
WHERE r.kind = $1
ORDER BY r.object_id`

// The values of the column status.
const (
	statusKnown   = "known"   // the proxy knows it
	statusSkipped = "skipped" // no proxy may be asked
	statusRefused = "refused" // the proxy refuses to answer
	statusMissing = "missing" // the proxy does not have it
)

// finding is the result of a check.
type finding struct {
	proxy.Answer
	status, reason string
}

// store is the table of modules.
type store struct{ pool *pgxpool.Pool }

func (s *store) createTable(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, createTableSQL); err != nil {
		return fmt.Errorf("creating the table module: %w", err)
	}
	return nil
}

// saveFinding writes the result of a check, unless a newer check has already written.
func (s *store) saveFinding(ctx context.Context, r *delta.Resource[Module], f finding) error {
	var released *time.Time
	if at := f.Latest.Time; !at.IsZero() {
		released = &at
	}
	var count *int
	var lag *string
	if f.status == statusKnown {
		text := formatBehind(f.Answer)
		count, lag = &f.Newer, &text
	}
	args := fenceArgs(r)
	args["path"], args["version"], args["indirect"] = r.Object.Path, r.Object.Version, r.Object.Indirect
	args["replaced_by"] = r.Object.Replacement.String()
	args["latest"], args["released_at"], args["newer"], args["behind"] = f.Latest.Version, released, count, lag
	args["status"], args["reason"], args["proxy"] = f.status, f.reason, f.Proxy
	tag, err := s.pool.Exec(ctx, upsertSQL, args)
	if err != nil {
		return fmt.Errorf("writing to the table module: %w", err)
	}
	if tag.RowsAffected() == 0 {
		// Delta drops the outcome of an overtaken attempt, so this error is seen only if something is wrong.
		return fmt.Errorf("the table module has a newer check of %s than attempt %d of generation %d", r.Object.Path, r.Attempt, r.Generation)
	}
	return nil
}

// readStatus reads the result of the last check; "" if there was none.
func (s *store) readStatus(ctx context.Context, path string) (status string, err error) {
	err = s.pool.QueryRow(ctx, "SELECT status FROM module WHERE path = $1", path).Scan(&status)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("reading the table module: %w", err)
	}
	return status, nil
}

// removeModule removes a module from the table.
func (s *store) removeModule(ctx context.Context, r *delta.Resource[Module]) error {
	args := fenceArgs(r)
	args["path"] = r.Object.Path
	if _, err := s.pool.Exec(ctx, removeRow, args); err != nil {
		return fmt.Errorf("removing from the table module: %w", err)
	}
	return nil
}

// fenceArgs returns the arguments that identify the writing attempt.
func fenceArgs(r *delta.Resource[Module]) pgx.NamedArgs {
	return pgx.NamedArgs{"resource_id": r.ID, "generation": r.Generation, "attempt": r.Attempt}
}

// row is a module in Delta's table and in the application's.
type row struct {
	Module
	state                        deltatype.ResourceState
	attempt                      int
	due, attempted, synced       *time.Time
	failure                      string // of the latest attempt that failed
	latest                       string
	released                     *time.Time
	newer                        int
	behind, status, reasonStored string
	checked                      *time.Time
}

// readRows reads all modules, sorted by path.
func (s *store) readRows(ctx context.Context) ([]row, error) {
	found, err := s.pool.Query(ctx, selectRows, kind)
	if err != nil {
		return nil, fmt.Errorf("reading the modules: %w", err)
	}
	rows, err := pgx.CollectRows(found, func(from pgx.CollectableRow) (r row, err error) {
		var object []byte
		err = from.Scan(&object, &r.state, &r.attempt, &r.due, &r.attempted, &r.synced, &r.failure,
			&r.latest, &r.released, &r.newer, &r.behind, &r.status, &r.reasonStored, &r.checked)
		if err != nil {
			return r, err
		}
		return r, json.Unmarshal(object, &r.Module)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the modules: %w", err)
	}
	return rows, nil
}
