package cdc

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// TableLock is a lock that a [Snapshot] or a [Backfill] has on a table. Its mode is ACCESS SHARE, which blocks neither
// reads nor writes, but ALTER TABLE and TRUNCATE. Once one of these waits, all later statements on the table wait
// behind it.
type TableLock struct {
	// Schema and Table name the locked table.
	Schema, Table string
	// PID is the server process that has the lock, as in pg_locks; pg_terminate_backend ends it.
	PID uint32
	// Since is when the table was locked: for its first page, or for the current chunk.
	Since time.Time
}

// tableLocks records which tables the connections of a snapshot have locked, and which of them are still being read.
// The lock protects a table that is being read against a rewrite, which would hide its rows from the snapshot. Once the
// table was read to its end, the lock is useless.
type tableLocks struct {
	mu     sync.Mutex
	locked map[*connection]map[string]TableLock // by table.from
	// reading counts the running loops over the rows of a table, and paged holds the tables of which a page, but not
	// the last page, was read.
	reading map[string]int
	paged   map[string]bool
	// queried holds the connections that have run a user's query. The tables stay locked, because the query may be
	// repeated.
	queried map[*connection]bool
}

func newTableLocks() *tableLocks {
	return &tableLocks{locked: map[*connection]map[string]TableLock{}, reading: map[string]int{}, paged: map[string]bool{}, queried: map[*connection]bool{}}
}

// addLock records that a connection is about to read a table.
func (h *tableLocks) addLock(conn *connection, t *table) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.locked[conn] == nil {
		h.locked[conn] = map[string]TableLock{}
	}
	if _, locked := h.locked[conn][t.from]; !locked {
		h.locked[conn][t.from] = TableLock{Schema: t.relation.Schema, Table: t.relation.Table, PID: conn.PID(), Since: time.Now()}
	}
}

// removeLocks forgets the locks of a connection after its transaction has ended.
func (h *tableLocks) removeLocks(conn *connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.locked, conn)
	delete(h.queried, conn)
}

// noteQuery records the tables that a user's query has locked.
func (h *tableLocks) noteQuery(conn *connection, tables [][]Value, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queried[conn] = true
	if h.locked[conn] == nil {
		h.locked[conn] = map[string]TableLock{}
	}
	for _, row := range tables {
		one := TableLock{Schema: row[0].Text, Table: row[1].Text, PID: conn.PID(), Since: since}
		known := false
		for _, other := range h.locked[conn] {
			known = known || other.Schema == one.Schema && other.Table == one.Table
		}
		if !known {
			h.locked[conn]["query of "+pgx.Identifier{one.Schema, one.Table}.Sanitize()] = one
		}
	}
}

// ownLocksQuery lists the tables that the connection has locked.
const ownLocksQuery = `SELECT DISTINCT n.nspname, c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'pg_catalog'`

// countReading records that a loop over the rows of a table begins (1) or ends (-1).
func (h *tableLocks) countReading(table string, change int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reading[table] += change; h.reading[table] == 0 {
		delete(h.reading, table)
	}
}

// notePage records whether more pages of a table will be read.
func (h *tableLocks) notePage(table string, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.paged, table)
	if more {
		h.paged[table] = true
	}
}

// canRelease reports whether a connection has locks, none of them on a table that is still being read.
func (h *tableLocks) canRelease(conn *connection) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.queried[conn] {
		return false
	}
	for table := range h.locked[conn] {
		if h.paged[table] || h.reading[table] > 0 {
			return false
		}
	}
	return len(h.locked[conn]) > 0
}

// TableLocks lists the snapshot's locks on tables, by table. A table that was read to its end is no longer locked,
// unless the same connection has read another table that is not finished. Locks of a [Snapshot.Query] are listed once
// its loop has ended.
func (s *Snapshot) TableLocks() []TableLock {
	s.locks.mu.Lock()
	defer s.locks.mu.Unlock()
	all := []TableLock{}
	for _, tables := range s.locks.locked {
		all = slices.AppendSeq(all, maps.Values(tables))
	}
	sortTableLocks(all)
	return all
}

func sortTableLocks(all []TableLock) {
	slices.SortFunc(all, func(a, b TableLock) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Table, b.Table), cmp.Compare(a.PID, b.PID))
	})
}

// TableLocks lists the locks of running backfills, by table: one for each chunk that is being read. Between two chunks,
// and while a backfill waits for transactions that write to its table, nothing is locked. It does not query the server.
func (s *Stream) TableLocks() []TableLock {
	all := []TableLock{}
	for _, b := range s.backfills.listRunning() {
		b.mu.Lock()
		if b.tableLock != nil {
			all = append(all, *b.tableLock)
		}
		b.mu.Unlock()
	}
	sortTableLocks(all)
	return all
}

// TableLocks lists the locks of the consumers' backfills, as [Stream.TableLocks] does.
func (f *Fanout) TableLocks() []TableLock { return f.stream.TableLocks() }

// noteLocked records that a chunk has locked the table.
func (b *Backfill) noteLocked(conn *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tableLock = &TableLock{Schema: b.config.Schema, Table: b.config.Table, PID: conn.PID(), Since: time.Now()}
}

// noteUnlocked records that a chunk's transaction has ended or its connection was closed.
func (b *Backfill) noteUnlocked() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tableLock = nil
}

// PID is the server process that keeps the snapshot, which holds back vacuum.
func (s *Snapshot) PID() uint32 { return s.export.PID() }

// releaseLocks ends the transaction of a connection if all its locks are useless. It reports whether the connection can
// be used again.
func (s *Snapshot) releaseLocks(conn *connection) bool {
	if !s.locks.canRelease(conn) {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	_, err := conn.Exec(ctx, `ROLLBACK`).ReadAll()
	s.locks.removeLocks(conn)
	conn.isInSnapshot, conn.intactTables = false, nil
	return err == nil
}

// rollbackTimeout is how long the server may take to end a transaction before the connection is closed.
const rollbackTimeout = 5 * time.Second

// releaseIdleLocks releases the useless locks of idle connections. returnConnection does it for the others.
func (s *Snapshot) releaseIdleLocks() {
	for range s.config.Connections {
		select {
		case conn, open := <-s.idle:
			if !open {
				return
			}
			s.returnConnection(conn)
		default:
			return
		}
	}
}

// returnConnection returns a connection, nil if it has failed.
func (s *Snapshot) returnConnection(conn *connection) {
	if conn != nil && !s.releaseLocks(conn) {
		s.discardConnection(conn)
		conn = nil
	}
	s.idle <- conn
}

func (s *Snapshot) discardConnection(conn *connection) {
	conn.close()
	s.locks.removeLocks(conn)
}
