package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// measureSizes reads the sizes of the table and its indexes.
func (l *largeBench) measureSizes(ctx context.Context) error {
	rows, err := l.s.pool.Query(ctx, `
		SELECT 'delta_resource', pg_table_size('delta_resource')
		UNION ALL
		(SELECT c.relname::text, pg_relation_size(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE i.indrelid = 'delta_resource'::regclass ORDER BY pg_relation_size(c.oid) DESC)`)
	if err != nil {
		return err
	}
	l.report.Sizes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s sizePart, err error) {
		err = row.Scan(&s.Relation, &s.Bytes)
		return s, err
	})
	if err != nil {
		return err
	}
	return l.measureDeadRows(ctx, "after the first sync")
}

// measureDeadRows reads the counters of dead rows and of autovacuum. Counters reach their view a second after a statement.
func (l *largeBench) measureDeadRows(ctx context.Context, when string) error {
	time.Sleep(1100 * time.Millisecond)
	v := vacuumPart{When: when}
	err := l.s.pool.QueryRow(ctx, `
		SELECT s.n_live_tup, s.n_dead_tup, s.n_tup_upd, s.n_tup_hot_upd, s.autovacuum_count, s.autoanalyze_count,
			EXISTS (SELECT FROM pg_stat_progress_vacuum p WHERE p.relid = s.relid), pg_total_relation_size(s.relid)
		FROM pg_stat_user_tables s WHERE s.relid = 'delta_resource'::regclass`,
	).Scan(&v.Live, &v.Dead, &v.Updates, &v.HOT, &v.Autovacuums, &v.Autoanalyzes, &v.Running, &v.Bytes)
	l.report.Vacuum = append(l.report.Vacuum, v)
	return err
}

// runVacuum vacuums the table, so that later measurements do not depend on the time of autovacuum.
func (l *largeBench) runVacuum(ctx context.Context) error {
	began := time.Now()
	if _, err := l.s.pool.Exec(ctx, "VACUUM ANALYZE delta_resource"); err != nil {
		return err
	}
	l.report.VacuumTook = time.Since(began).Seconds()
	return l.measureDeadRows(ctx, "after VACUUM ANALYZE")
}

// sampleMemory measures the memory of the client and of Temporal. The heap is measured after a garbage collection.
func (l *largeBench) sampleMemory(_ context.Context, there int) error {
	debug.FreeOSMemory() // runs a garbage collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	server, err := l.temporalProcess()
	if err != nil {
		return err
	}
	store, err := l.temporalStore()
	if err != nil {
		return err
	}
	l.report.Memory = append(l.report.Memory, memoryPart{
		There: there, Heap: int64(m.HeapAlloc), Resident: residentMemory(os.Getpid()), Goroutines: runtime.NumGoroutine(),
		TemporalResident: residentMemory(server), TemporalStore: store,
	})
	return nil
}

// temporalProcess reads the pid of the server from the stack's pid file.
func (l *largeBench) temporalProcess() (int, error) {
	content, err := os.ReadFile(filepath.Join(l.b.stack.Dir, "temporal.pid"))
	if err != nil {
		return 0, err
	}
	var noted struct {
		PID int `json:"pid"`
	}
	err = json.Unmarshal(content, &noted)
	return noted.PID, err
}

// temporalStore returns the size of the files of Temporal's store.
func (l *largeBench) temporalStore() (bytes int64, err error) {
	files, err := filepath.Glob(filepath.Join(l.b.stack.Dir, "temporal-*.db*"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no store of Temporal in %s", l.b.stack.Dir)
	}
	for _, file := range files {
		info, statErr := os.Stat(file)
		if errors.Is(statErr, os.ErrNotExist) {
			continue // SQLite may remove its log at any time
		}
		if statErr != nil {
			return 0, statErr
		}
		bytes += info.Size()
	}
	return bytes, err
}

// residentMemory returns the resident memory of a process, or 0 on systems other than Linux.
func residentMemory(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kilobytes, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kilobytes * 1024
		}
	}
	return 0
}

const (
	// leasedAtOnce is the number of due rows in measurements with due rows.
	leasedAtOnce = 1000
	// costRuns is the number of times that each statement is timed.
	costRuns = 5
	// rolledBack is the number of dead rows that the timing leaves: each row is made due and leased.
	rolledBack = 2 * leasedAtOnce * costRuns
)

// measureCosts times the statements of a dispatcher and of `delta doctor`. Each runs in a transaction that is rolled back, so that the running client does
// not see it.
func (l *largeBench) measureCosts(ctx context.Context, when string) error {
	q := db.New()
	lease := func(ctx context.Context, conn db.DBTX) error {
		_, err := q.LeaseDue(ctx, db.Planned(conn, leasedAtOnce), db.LeaseDueParams{
			Kind: batchedKind, Lease: activities.DispatchLease, Longest: activities.LongestLease, Grace: activities.DueGrace,
			BatchID: "cost", BatchPrefix: "cost", Largest: 1 << 20, MostLost: activities.MaxLostInBatch, Priorities: []int16{1, 2, 3, 4, 5},
			Batch: leasedAtOnce, PassedBy: []string{}, LimitedNamespaces: []string{}, Rooms: []int32{},
		})
		return err
	}
	for _, cost := range []struct {
		name string
		due  int
		ask  func(context.Context, db.DBTX) error
	}{
		{"lease, nothing is due", 0, lease},
		{fmt.Sprintf("lease of %d due rows", leasedAtOnce), leasedAtOnce, lease},
		{"when the next is due", 0, func(ctx context.Context, conn db.DBTX) error {
			_, err := q.NextDispatch(ctx, conn, db.NextDispatchParams{Kind: batchedKind, Looked: time.Second})
			return err
		}},
		{"what is late", 0, func(ctx context.Context, conn db.DBTX) error {
			_, err := q.CountLate(ctx, conn, db.CountLateParams{Longest: activities.LongestLease, Grace: activities.DueGrace, Most: 10_000})
			return err
		}},
	} {
		part := costPart{Name: cost.name, When: when}
		var times, buffers []float64
		for range costRuns {
			plan, err := l.explainStatement(ctx, cost.due, cost.ask)
			if err != nil {
				return fmt.Errorf("%s: %w", cost.name, err)
			}
			times, buffers = append(times, plan.Planning+plan.Execution), append(buffers, plan.Plan.Hit+plan.Plan.Read)
		}
		part.Milliseconds, part.Buffers = computeQuantile(times, 0.5), computeQuantile(buffers, 0.5)
		l.report.Costs = append(l.report.Costs, part)
	}
	return nil
}

// plan is the output of EXPLAIN. Buffers are pages of 8 kB; a page that is read several times counts each time.
type plan struct {
	Planning  float64 `json:"Planning Time"`
	Execution float64 `json:"Execution Time"`
	Plan      struct {
		Hit  float64 `json:"Shared Hit Blocks"`
		Read float64 `json:"Shared Read Blocks"`
	} `json:"Plan"`
}

// explainStatement explains a statement in a transaction in which some rows are due, and rolls it back.
func (l *largeBench) explainStatement(ctx context.Context, due int, ask func(context.Context, db.DBTX) error) (p plan, err error) {
	tx, err := l.s.pool.Begin(ctx)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, tx.Rollback(ctx)) }()
	if due > 0 {
		tag, err := tx.Exec(ctx, makeDue, batchedKind, due, min(100, 100*20*float64(due)/float64(l.b.large)))
		if err != nil {
			return p, err
		}
		if got := int(tag.RowsAffected()); got != min(due, l.b.large) {
			return p, fmt.Errorf("%d rows were made due, not %d", got, due)
		}
	}
	e := &explainingDB{tx: tx}
	if err := ask(ctx, e); !errors.Is(err, errExplained) {
		return p, fmt.Errorf("the statement was not explained: %w", err)
	}
	return e.plan, e.err
}

// makeDue makes rows from all over the table due. It samples enough pages to have enough rows for certain.
const makeDue = `
UPDATE delta_resource SET due_at = now(), dispatch_at = now()
WHERE id = ANY (ARRAY(SELECT id FROM delta_resource TABLESAMPLE SYSTEM ($3) WHERE kind = $1 AND state = 'synced' AND claimed_until IS NULL LIMIT $2))`

// errExplained is the error of a statement that was explained instead of run.
var errExplained = errors.New("explained")

// explainingDB explains each statement instead of running it, so that the explained statement is always the one of the query.
type explainingDB struct {
	tx   pgx.Tx
	plan plan
	err  error
}

func (e *explainingDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	var answer []byte
	e.err = e.tx.QueryRow(ctx, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&answer)
	if e.err == nil {
		plans := []plan{}
		e.err = json.Unmarshal(answer, &plans)
		if e.err == nil {
			e.plan = plans[0]
		}
	}
	return nil, errExplained
}

func (e *explainingDB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	_, err := e.Query(ctx, sql, args...)
	return failedRow{err}
}

func (e *explainingDB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	_, err := e.Query(ctx, sql, args...)
	return pgconn.CommandTag{}, err
}

// failedRow is the row of a statement that was not run.
type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }
