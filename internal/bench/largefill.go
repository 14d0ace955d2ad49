package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta"
)

// fillTable syncs new resources through the engine, slice by slice. If that would take more than its share of the time, all remaining slices but the last
// are loaded as rows that look synced. The last slice then shows how fast the engine is in a table of that size.
func (l *largeBench) fillTable(ctx context.Context, rows int) error {
	slice := max(rows/largeSlices, 1)
	until := time.Duration(fillShare * float64(l.b.largeTime))
	began := time.Now()
	for there := 0; there < rows; {
		count := min(slice, rows-there)
		if rest := rows - there; there > 0 && rest > count {
			last := l.report.Slices[len(l.report.Slices)-1]
			if time.Since(began)+time.Duration(float64(rest)/last.PerSecond*float64(time.Second)) > until {
				if err := l.loadRows(ctx, rest-count); err != nil {
					return fmt.Errorf("loading: %w", err)
				}
				there += rest - count
			}
		}
		took, err := l.s.syncPages(ctx, fmt.Sprintf("fill-%d", there), count)
		if err != nil {
			return err
		}
		there += count
		l.report.Slices = append(l.report.Slices, slicePart{Rows: count, There: there, PerSecond: float64(count) / took.Seconds()})
		fmt.Fprintf(os.Stderr, "  %d of %d: %.0f/s\n", there, rows, float64(count)/took.Seconds())
		if err := l.sampleMemory(ctx, there); err != nil {
			return err
		}
	}
	return l.measureWAL(ctx)
}

// measureWAL measures how much WAL the first sync has written, including loaded rows.
func (l *largeBench) measureWAL(ctx context.Context) error {
	return l.s.pool.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::pg_lsn)::bigint", l.from).Scan(&l.report.WAL)
}

const (
	// loadPage is the number of rows that a statement loads, and loadsAtOnce the number of statements that run at once.
	loadPage, loadsAtOnce = 50_000, 2
)

// loadedColumns has the columns in which a loaded row differs from the row that it copies. It is due within the last twentieth of the expiry, like synced
// rows. It names a batch that has no workflow, but no loaded row is due before the run ends.
var loadedColumns = map[string]string{
	"object_id":   "'loaded-' || i",
	"object":      "jsonb_set(t.object, '{key}', to_jsonb('loaded-' || i))",
	"hash":        "sha256(convert_to('loaded-' || i, 'UTF8'))",
	"due_at":      "d.due_at",
	"dispatch_at": "d.due_at + interval '1 minute'",
	"workflow_id": "left(t.workflow_id, -8) || lpad((i / 1000)::text, 8, '0')",
	"claim":       "gen_random_uuid()",
}

// loadRows writes rows that look like rows that the engine has synced.
func (l *largeBench) loadRows(ctx context.Context, rows int) error {
	fmt.Fprintf(os.Stderr, "  there is no time to sync all of them: %d rows are loaded\n", rows)
	insert, err := l.buildLoadStatement(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	var group errgroup.Group
	group.SetLimit(loadsAtOnce)
	for from := 0; from < rows; from += loadPage {
		group.Go(func() error {
			_, err := l.s.pool.Exec(ctx, insert, from, min(from+loadPage, rows)-1, expiry.Seconds())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	l.report.Loaded = rows
	l.report.LoadedPerSecond = float64(rows) / time.Since(began).Seconds()
	return nil
}

// buildLoadStatement returns the statement of loadRows. It copies one synced row, and names all columns of the table.
func (l *largeBench) buildLoadStatement(ctx context.Context) (string, error) {
	rows, err := l.s.pool.Query(ctx, `SELECT attname FROM pg_attribute WHERE attrelid = 'delta_resource'::regclass AND attnum > 0
		AND NOT attisdropped AND attidentity = '' AND attgenerated = '' ORDER BY attnum`)
	if err != nil {
		return "", err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", err
	}
	var values []string
	for _, name := range names {
		value, differs := loadedColumns[name]
		if !differs {
			value = "t." + pgx.Identifier{name}.Sanitize()
		}
		values = append(values, value)
	}
	for name := range loadedColumns {
		if !slices.Contains(names, name) {
			return "", fmt.Errorf("delta_resource has no column %s any more", name)
		}
	}
	return fmt.Sprintf(`INSERT INTO delta_resource (%s) SELECT %s
		FROM (SELECT * FROM delta_resource WHERE kind = '%s' AND state = 'synced' ORDER BY kind, object_id LIMIT 1) t
		CROSS JOIN generate_series($1::bigint, $2::bigint) i
		CROSS JOIN LATERAL (SELECT now() + make_interval(secs => $3::float8) * (1 - 0.05 * (i %% 1000) / 1000.0) AS due_at) d`,
		strings.Join(names, ", "), strings.Join(values, ", "), batchedKind), nil
}

// expiresAfter returns the expiry of the resources that expire during the run. All of them must be synced before the first one expires, even on a slow
// machine.
func expiresAfter(rows int) time.Duration {
	return 30*time.Second + time.Duration(rows)*time.Millisecond/2
}

// measureExpiry syncs resources that expire soon, and waits until the timers of their workflows have expired them and they are synced again.
func (l *largeBench) measureExpiry(ctx context.Context, rows int) error {
	began := time.Now()
	if err := l.s.informPages(ctx, "expiring", rows, &delta.InformOpts{Namespace: expiringNamespace}); err != nil {
		return err
	}
	if err := l.awaitSynced(ctx, rows, 1); err != nil {
		return err
	}
	firstSync := time.Since(began)
	l.report.Expiry = &expiryPart{Rows: rows, FirstSync: firstSync.Seconds()}
	if firstSync > expiresAfter(rows)*9/10 {
		l.report.Expiry.Missed = fmt.Sprintf("the first sync took %s, so that some of them had expired before its end", firstSync.Round(time.Second))
		return nil
	}
	var first, last, synced time.Time
	if err := l.queryExpiring(ctx, "min(due_at), max(due_at)", &first, &last); err != nil {
		return err
	}
	l.report.Expiry.DueWithin = last.Sub(first).Seconds()
	// They must expire only once: resources that are synced after this expire in a day.
	_, err := l.s.pool.Exec(ctx, "UPDATE delta_namespace SET resource_expiry = $1 WHERE name = $2", expiry, expiringNamespace)
	if err != nil {
		return err
	}
	if err := l.awaitSynced(ctx, rows, 2); err != nil {
		return err
	}
	if err := l.queryExpiring(ctx, "max(synced_at)", &synced); err != nil {
		return err
	}
	l.report.Expiry.SyncedWithin = synced.Sub(first).Seconds()
	l.report.Expiry.PerSecond = float64(rows) / synced.Sub(first).Seconds()
	return nil
}

// awaitSynced returns when each expiring resource has been synced so many times. It does not query before Work was called that often.
func (l *largeBench) awaitSynced(ctx context.Context, rows, times int) error {
	for {
		if int(l.s.worked.Load()) >= rows*times {
			var there int
			if err := l.queryExpiring(ctx, fmt.Sprintf("count(*) FILTER (WHERE sync_count >= %d AND state = 'synced')", times), &there); err != nil {
				return err
			}
			if there == rows {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("Work was called %d of %d times: %w", l.s.worked.Load(), rows*times, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// queryExpiring queries the expiring resources, which are a range of the index of ids.
func (l *largeBench) queryExpiring(ctx context.Context, what string, answers ...any) error {
	query := fmt.Sprintf("SELECT %s FROM delta_resource WHERE kind = $1 AND object_id >= 'batch-expiring-' AND object_id < 'batch-expiring.'", what)
	return l.s.pool.QueryRow(ctx, query, batchedKind).Scan(answers...)
}
