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

// fill syncs new resources through the engine, a slice after the other. If they would take more than their share of the time, all but the last
// slice of the rest are loaded as rows that look as if they had been synced: the last slice then says how fast the engine is in a table of that
// size.
func (l *large) fill(ctx context.Context, rows int) error {
	slice := max(rows/largeSlices, 1)
	until := time.Duration(fillShare * float64(l.b.largeTime))
	began := time.Now()
	for there := 0; there < rows; {
		count := min(slice, rows-there)
		if rest := rows - there; there > 0 && rest > count {
			last := l.report.Slices[len(l.report.Slices)-1]
			if time.Since(began)+time.Duration(float64(rest)/last.PerSecond*float64(time.Second)) > until {
				if err := l.load(ctx, rest-count); err != nil {
					return fmt.Errorf("loading: %w", err)
				}
				there += rest - count
			}
		}
		took, err := l.s.sync(ctx, fmt.Sprintf("fill-%d", there), count)
		if err != nil {
			return err
		}
		there += count
		l.report.Slices = append(l.report.Slices, slicePart{Rows: count, There: there, PerSecond: float64(count) / took.Seconds()})
		fmt.Fprintf(os.Stderr, "  %d of %d: %.0f/s\n", there, rows, float64(count)/took.Seconds())
		if err := l.sample(ctx, there); err != nil {
			return err
		}
	}
	return l.log(ctx)
}

// log says how much the first sync wrote to the log. Rows that were loaded are in it, too.
func (l *large) log(ctx context.Context) error {
	return l.s.pool.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::pg_lsn)::bigint", l.from).Scan(&l.report.WAL)
}

const (
	// loadPage is how many rows a statement loads, and loadsAtOnce how many statements run at once.
	loadPage, loadsAtOnce = 50_000, 2
)

// loadedColumns are those in which a loaded row differs from the one that it is a copy of. It is due within the last twentieth of the
// expiry, as those that were synced are, and names a batch that no workflow is: none of them is due before the run is over.
var loadedColumns = map[string]string{
	"object_id":   "'loaded-' || i",
	"object":      "jsonb_set(t.object, '{key}', to_jsonb('loaded-' || i))",
	"hash":        "sha256(convert_to('loaded-' || i, 'UTF8'))",
	"due_at":      "d.due_at",
	"dispatch_at": "d.due_at + interval '1 minute'",
	"workflow_id": "left(t.workflow_id, -8) || lpad((i / 1000)::text, 8, '0')",
	"claim":       "gen_random_uuid()",
}

// load writes rows as the engine leaves those that it has synced.
func (l *large) load(ctx context.Context, rows int) error {
	fmt.Fprintf(os.Stderr, "  there is no time to sync all of them: %d rows are loaded\n", rows)
	insert, err := l.loading(ctx)
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

// loading is the statement for it. It copies one synced row, and names all columns that the table has.
func (l *large) loading(ctx context.Context) (string, error) {
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

// expiresAfter is the expiry of those that are synced once more: all of them must be synced before the first of them expires, also on a slow
// machine.
func expiresAfter(rows int) time.Duration {
	return 30*time.Second + time.Duration(rows)*time.Millisecond/2
}

// expire syncs resources that expire soon, and waits until they have expired by the timers of their workflows and are synced again.
func (l *large) expire(ctx context.Context, rows int) error {
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
	if err := l.expiring(ctx, "min(due_at), max(due_at)", &first, &last); err != nil {
		return err
	}
	l.report.Expiry.DueWithin = last.Sub(first).Seconds()
	// They are to expire once only: what is synced after this rests for a day.
	_, err := l.s.pool.Exec(ctx, "UPDATE delta_namespace SET resource_expiry = $1 WHERE name = $2", expiry, expiringNamespace)
	if err != nil {
		return err
	}
	if err := l.awaitSynced(ctx, rows, 2); err != nil {
		return err
	}
	if err := l.expiring(ctx, "max(synced_at)", &synced); err != nil {
		return err
	}
	l.report.Expiry.SyncedWithin = synced.Sub(first).Seconds()
	l.report.Expiry.PerSecond = float64(rows) / synced.Sub(first).Seconds()
	return nil
}

// awaitSynced returns when each of those that expire has been synced so many times. It does not look before Work was called as often.
func (l *large) awaitSynced(ctx context.Context, rows, times int) error {
	for {
		if int(l.s.worked.Load()) >= rows*times {
			var there int
			if err := l.expiring(ctx, fmt.Sprintf("count(*) FILTER (WHERE sync_count >= %d AND state = 'synced')", times), &there); err != nil {
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

// expiring asks for something about those that expire. They are a range of the index of ids.
func (l *large) expiring(ctx context.Context, what string, answers ...any) error {
	query := fmt.Sprintf("SELECT %s FROM delta_resource WHERE kind = $1 AND object_id >= 'batch-expiring-' AND object_id < 'batch-expiring.'", what)
	return l.s.pool.QueryRow(ctx, query, batchedKind).Scan(answers...)
}
