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

// sizes reads what the table and each of its indexes take.
func (l *large) sizes(ctx context.Context) error {
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
	return l.vacuumed(ctx, "after the first sync")
}

// vacuumed reads what updates have left in the table, and what autovacuum has done. Counters reach their view a second after a statement.
func (l *large) vacuumed(ctx context.Context, when string) error {
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

// vacuum does what autovacuum has not got to yet, so that what is measured after it does not depend on when it came.
func (l *large) vacuum(ctx context.Context) error {
	began := time.Now()
	if _, err := l.s.pool.Exec(ctx, "VACUUM ANALYZE delta_resource"); err != nil {
		return err
	}
	l.report.VacuumTook = time.Since(began).Seconds()
	return l.vacuumed(ctx, "after VACUUM ANALYZE")
}

// sample says what the client and Temporal hold. The heap is what is left after a collection.
func (l *large) sample(_ context.Context, there int) error {
	debug.FreeOSMemory() // a collection comes with it
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
		There: there, Heap: int64(m.HeapAlloc), Resident: resident(os.Getpid()), Goroutines: runtime.NumGoroutine(),
		TemporalResident: resident(server), TemporalStore: store,
	})
	return nil
}

// temporalProcess is the process of the server, as its stack has noted it.
func (l *large) temporalProcess() (int, error) {
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

// temporalStore is how many bytes the files of Temporal's store have.
func (l *large) temporalStore() (bytes int64, err error) {
	files, err := filepath.Glob(filepath.Join(l.b.stack.Dir, "temporal-*.db*"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no store of Temporal in %s", l.b.stack.Dir)
	}
	for _, file := range files {
		info, statErr := os.Stat(file)
		if errors.Is(statErr, os.ErrNotExist) {
			continue // SQLite removes its log when it likes
		}
		if statErr != nil {
			return 0, statErr
		}
		bytes += info.Size()
	}
	return bytes, err
}

// resident is how much memory a process holds, 0 where the system does not say it as Linux does.
func resident(pid int) int64 {
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
	// leasedAtOnce is how many rows are due where something is.
	leasedAtOnce = 1000
	// costRuns is how often each statement is timed.
	costRuns = 5
	// rolledBack is how many dead rows that leaves: each row was made due, and leased.
	rolledBack = 2 * leasedAtOnce * costRuns
)

// costs times what a dispatcher and `delta doctor` ask. The statements are Delta's own, each in a transaction that is rolled back, so that the
// client which runs meanwhile sees nothing of it.
func (l *large) costs(ctx context.Context, when string) error {
	q := db.New()
	lease := func(ctx context.Context, conn db.DBTX) error {
		_, err := q.LeaseDue(ctx, db.Planned(conn, leasedAtOnce), db.LeaseDueParams{
			Kind: batchedKind, Lease: activities.DispatchLease, Longest: activities.LongestLease, Grace: activities.DueGrace,
			BatchID: "cost", BatchPrefix: "cost", Largest: 1 << 20, MostLost: activities.MaxLostInBatch, Priorities: []int16{1, 2, 3, 4, 5},
			Batch: leasedAtOnce, FullNamespaces: []string{}, LimitedNamespaces: []string{}, Rooms: []int32{},
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
			plan, err := l.explain(ctx, cost.due, cost.ask)
			if err != nil {
				return fmt.Errorf("%s: %w", cost.name, err)
			}
			times, buffers = append(times, plan.Planning+plan.Execution), append(buffers, plan.Plan.Hit+plan.Plan.Read)
		}
		part.Milliseconds, part.Buffers = quantile(times, 0.5), quantile(buffers, 0.5)
		l.report.Costs = append(l.report.Costs, part)
	}
	return nil
}

// plan is what EXPLAIN says of a statement. Buffers are pages of 8 kB that it looked at, the same one each time once more.
type plan struct {
	Planning  float64 `json:"Planning Time"`
	Execution float64 `json:"Execution Time"`
	Plan      struct {
		Hit  float64 `json:"Shared Hit Blocks"`
		Read float64 `json:"Shared Read Blocks"`
	} `json:"Plan"`
}

// explain runs a statement in a transaction in which some rows are due, and takes all of it back.
func (l *large) explain(ctx context.Context, due int, ask func(context.Context, db.DBTX) error) (p plan, err error) {
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
	e := &explaining{tx: tx}
	if err := ask(ctx, e); !errors.Is(err, errExplained) {
		return p, fmt.Errorf("the statement was not explained: %w", err)
	}
	return e.plan, e.err
}

// makeDue has rows from all over the table expire. A part of its pages is drawn, as many as have enough rows for certain.
const makeDue = `
UPDATE delta_resource SET due_at = now(), dispatch_at = now()
WHERE id = ANY (ARRAY(SELECT id FROM delta_resource TABLESAMPLE SYSTEM ($3) WHERE kind = $1 AND state = 'synced' AND claimed_until IS NULL LIMIT $2))`

// errExplained is the answer to a statement that was explained instead.
var errExplained = errors.New("explained")

// explaining explains each statement instead of answering it. So what is explained is the statement of the query, whatever it is.
type explaining struct {
	tx   pgx.Tx
	plan plan
	err  error
}

func (e *explaining) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
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

func (e *explaining) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	_, err := e.Query(ctx, sql, args...)
	return failedRow{err}
}

func (e *explaining) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	_, err := e.Query(ctx, sql, args...)
	return pgconn.CommandTag{}, err
}

// failedRow is the row of a statement that was not answered.
type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }
