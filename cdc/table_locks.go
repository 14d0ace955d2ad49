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

// Hold is a lock on a table, of a connection of a [Snapshot] or of a [Backfill]: ACCESS SHARE, which lets everybody read and write, and has
// ALTER TABLE and TRUNCATE wait. Everybody who uses the table later then waits behind these.
type TableLock struct {
	// Schema and Table are what is locked.
	Schema, Table string
	// PID is the server's process that has the lock: pg_locks has it, and pg_terminate_backend ends it.
	PID uint32
	// Since is when it locked the table: for its first page, or for the chunk that it reads.
	Since time.Time
}

// holds knows which tables the connections of a snapshot have locked, and which of them are still being read. A lock protects a table
// that is being read from being rewritten, which would lose its rows to the snapshot; once the table was read to its end it protects nothing.
type tableLocks struct {
	mu     sync.Mutex
	locked map[*connection]map[string]TableLock // by what is selected from
	// reading counts the loops over rows of a table, and paged has the tables of which a page was read and not yet the last.
	reading map[string]int
	paged   map[string]bool
	// queried are the connections that have run a statement of somebody's own: what it has read may be asked for again, and stays locked.
	queried map[*connection]bool
}

func newTableLocks() *tableLocks {
	return &tableLocks{locked: map[*connection]map[string]TableLock{}, reading: map[string]int{}, paged: map[string]bool{}, queried: map[*connection]bool{}}
}

// addLock notes that a connection is about to read a table.
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

// removeLocks forgets what a connection had, whose transaction has ended.
func (h *tableLocks) removeLocks(conn *connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.locked, conn)
	delete(h.queried, conn)
}

// noteQuery notes what a statement of somebody's own has locked.
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

// ownLocks are the tables that a connection has locked.
const ownLocksQuery = `SELECT DISTINCT n.nspname, c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'pg_catalog'`

// countReading notes that a loop over the rows of a table begins (1) or ends (-1).
func (h *tableLocks) countReading(table string, change int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reading[table] += change; h.reading[table] == 0 {
		delete(h.reading, table)
	}
}

// notePage notes whether more pages of a table will be asked for.
func (h *tableLocks) notePage(table string, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.paged, table)
	if more {
		h.paged[table] = true
	}
}

// canRelease reports whether a connection has locks, and none of a table that is still being read.
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

// TableLocks are the locks of the snapshot on tables, by table. A table that was read to its end is locked no longer, unless the same connection
// has also read a table that is still being read. What a statement of [Snapshot.Query] has locked is there once its loop has ended.
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

// TableLocks are the locks on tables of the backfills that are running, by table: one for each chunk that is being read at this moment. Between two
// chunks, and while a backfill waits for those who write into its table, nothing is locked. It asks the server for nothing.
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

// TableLocks are those of the backfills that are running for consumers, as [Stream.TableLocks] has them.
func (f *Fanout) TableLocks() []TableLock { return f.stream.TableLocks() }

// noteLocked notes that a chunk has locked the table.
func (b *Backfill) noteLocked(conn *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tableLock = &TableLock{Schema: b.config.Schema, Table: b.config.Table, PID: conn.PID(), Since: time.Now()}
}

// noteUnlocked notes that the transaction of a chunk has ended, or its connection was closed.
func (b *Backfill) noteUnlocked() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tableLock = nil
}

// PID is the server's process that keeps the snapshot, which holds back vacuum.
func (s *Snapshot) PID() uint32 { return s.export.PID() }

// releaseLocks ends the transaction of a connection whose locks are of no use any more, and with it the locks. It reports whether the connection can
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

// leavePatience is how long the server may take to end a transaction before the connection is closed.
const rollbackTimeout = 5 * time.Second

// releaseIdleLocks has the connections that nobody uses leave their transactions, where these only lock tables that were read to their ends. One that is
// in use does when it is given back.
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

// returnConnection takes back a connection, nil where it has failed.
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
