package cdc

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Hold is a lock on a table, of a connection of a [Snapshot]: ACCESS SHARE, which lets everybody read and write, and has ALTER TABLE and
// TRUNCATE wait. Everybody who uses the table later then waits behind these.
type Hold struct {
	// Schema and Table are what is locked.
	Schema, Table string
	// PID is the server's process that has the lock: pg_locks has it, and pg_terminate_backend ends it.
	PID uint32
	// Since is when the first page of the table was read by it.
	Since time.Time
}

// holds knows which tables the connections of a snapshot have locked, and which of them are still being read. A lock protects a table
// that is being read from being rewritten, which would lose its rows to the snapshot; once the table was read to its end it protects nothing.
type holds struct {
	mu     sync.Mutex
	locked map[*connection]map[string]Hold // by what is selected from
	// reading counts the loops over rows of a table, and paged has the tables of which a page was read and not yet the last.
	reading map[string]int
	paged   map[string]bool
}

func newHolds() *holds {
	return &holds{locked: map[*connection]map[string]Hold{}, reading: map[string]int{}, paged: map[string]bool{}}
}

// lock notes that a connection is about to read a table.
func (h *holds) lock(conn *connection, t *table) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.locked[conn] == nil {
		h.locked[conn] = map[string]Hold{}
	}
	if _, locked := h.locked[conn][t.from]; !locked {
		h.locked[conn][t.from] = Hold{Schema: t.relation.Schema, Table: t.relation.Table, PID: conn.PID(), Since: time.Now()}
	}
}

// unlock forgets what a connection had, whose transaction has ended.
func (h *holds) unlock(conn *connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.locked, conn)
}

// read notes that a loop over the rows of a table begins (1) or ends (-1).
func (h *holds) read(table string, change int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reading[table] += change; h.reading[table] == 0 {
		delete(h.reading, table)
	}
}

// page notes whether more pages of a table will be asked for.
func (h *holds) page(table string, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.paged, table)
	if more {
		h.paged[table] = true
	}
}

// useless reports whether a connection has locks, and none of a table that is still being read.
func (h *holds) useless(conn *connection) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for table := range h.locked[conn] {
		if h.paged[table] || h.reading[table] > 0 {
			return false
		}
	}
	return len(h.locked[conn]) > 0
}

// Holds are the locks of the snapshot on tables, by table. A table that was read to its end is locked no longer, unless the same connection
// has also read a table that is still being read.
func (s *Snapshot) Holds() []Hold {
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	all := []Hold{}
	for _, tables := range s.holds.locked {
		all = slices.AppendSeq(all, maps.Values(tables))
	}
	slices.SortFunc(all, func(a, b Hold) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Table, b.Table), cmp.Compare(a.PID, b.PID))
	})
	return all
}

// PID is the server's process that keeps the snapshot, which holds back vacuum.
func (s *Snapshot) PID() uint32 { return s.export.PID() }

// leave ends the transaction of a connection whose locks are of no use any more, and with it the locks. It reports whether the connection can
// be used again.
func (s *Snapshot) leave(conn *connection) bool {
	if !s.holds.useless(conn) {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	_, err := conn.Exec(ctx, `ROLLBACK`).ReadAll()
	s.holds.unlock(conn)
	conn.inside, conn.intact = false, nil
	return err == nil
}

// leavePatience is how long the server may take to end a transaction before the connection is closed.
const leavePatience = 5 * time.Second

// free has the connections that nobody uses leave their transactions, where these only lock tables that were read to their ends. One that is
// in use does when it is given back.
func (s *Snapshot) free() {
	for range s.config.Connections {
		select {
		case conn, open := <-s.idle:
			if !open {
				return
			}
			s.giveBack(conn)
		default:
			return
		}
	}
}

// giveBack takes back a connection, nil where it has failed.
func (s *Snapshot) giveBack(conn *connection) {
	if conn != nil && !s.leave(conn) {
		s.discard(conn)
		conn = nil
	}
	s.idle <- conn
}

func (s *Snapshot) discard(conn *connection) {
	conn.close()
	s.holds.unlock(conn)
}
