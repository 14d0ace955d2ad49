package server

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// snapshotReaders is how many pages of one snapshot are read at once.
const snapshotReaders = 2

// heldSnapshot is the snapshot of a slot. It ends when it was not read for a while, soon after all of its tables were read, and when it is
// too old.
type heldSnapshot struct {
	*cdc.Snapshot
	owned          ownedPublication
	since          time.Time
	idleTimer      *time.Timer
	maxTimer       *time.Timer
	finishedTables map[string]bool // tables that were read to their ends; guarded by Server.mu
}

// reserveSnapshot reserves a name, and one of MaxSnapshots, while a slot is created.
func (s *Server) reserveSnapshot(name string, snapshot bool) (free func(), err error) {
	if !snapshot {
		return func() {}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.snapshots[name]; ok {
		return nil, cdc.ErrExists
	}
	if len(s.snapshots) >= s.config.MaxSnapshots {
		return nil, newProblem(http.StatusServiceUnavailable, "no_room", fmt.Sprintf("%d snapshots are held, which is the limit: end one with DELETE /v2/slots/{name}/snapshot", s.config.MaxSnapshots))
	}
	s.snapshots[name] = nil
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if h, ok := s.snapshots[name]; ok && h == nil {
			delete(s.snapshots, name)
		}
	}, nil
}

func (s *Server) holdSnapshot(name string, o ownedPublication, made *cdc.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &heldSnapshot{Snapshot: made, owned: o, since: time.Now(), finishedTables: map[string]bool{}}
	end := func(level slog.Level, why string) func() {
		return func() {
			if s.beginWork() {
				defer s.work.Done()
				if s.findSnapshot(name) != h { // it has ended, and the name has another snapshot
					return
				}
				s.config.Logger.Log(s.ctx, level, "cdc/server: a snapshot ends, "+why, "slot", name)
				s.endSnapshot(name)
			}
		}
	}
	h.idleTimer = time.AfterFunc(s.config.SnapshotIdle, end(slog.LevelInfo, "because it was not read for a while"))
	h.maxTimer = time.AfterFunc(s.config.SnapshotMax, end(slog.LevelWarn, "because it has reached SnapshotMax"))
	s.snapshots[name] = h
}

// findSnapshot returns the snapshot of a slot, nil if this server holds none.
func (s *Server) findSnapshot(name string) *heldSnapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshots[name]
}

// notePageRead notes that a page was read, and whether it was the last of its table. After all tables were read, the snapshot is kept for
// SnapshotGrace only.
func (s *Server) notePageRead(h *heldSnapshot, table string, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last {
		h.finishedTables[table] = true
	}
	idle := s.config.SnapshotIdle
	if isFinished := !slices.ContainsFunc(h.owned.Tables, func(t string) bool { return matchesTable(s.config.Tables, t) && !h.finishedTables[t] }); isFinished {
		idle = min(idle, s.config.SnapshotGrace)
	}
	h.idleTimer.Reset(idle)
}

// heldSnapshotJSON is a snapshot in an answer.
type heldSnapshotJSON struct {
	// Since is when the snapshot was created. PID is the process of Postgres that holds it, and with it holds back vacuum.
	Since time.Time `json:"since"`
	PID   uint32    `json:"pid"`
	// Tables are the tables that are locked because they are being read.
	Tables []lockJSON `json:"tables"`
}

type lockJSON struct {
	Table string    `json:"table"`
	PID   uint32    `json:"pid"`
	Since time.Time `json:"since"`
}

// describeSnapshot returns nil if this server holds no snapshot of the slot.
func (s *Server) describeSnapshot(name string) *heldSnapshotJSON {
	if h := s.findSnapshot(name); h != nil {
		return &heldSnapshotJSON{Since: h.since.UTC(), PID: h.PID(), Tables: toLockJSON(h.TableLocks())}
	} else if h := s.v1.HeldSnapshot(); h != nil && h.Slot == name {
		return &heldSnapshotJSON{Since: h.Since.UTC(), PID: h.PID, Tables: toLockJSON(h.Locks)}
	}
	return nil
}

func toLockJSON(holds []cdc.TableLock) []lockJSON {
	locks := make([]lockJSON, len(holds))
	for i, one := range holds {
		locks[i] = lockJSON{one.Schema + "." + one.Table, one.PID, one.Since.UTC()}
	}
	return locks
}

// endSnapshot ends the snapshot of a slot. It reports whether there was one.
func (s *Server) endSnapshot(name string) bool {
	s.mu.Lock()
	h := s.snapshots[name]
	if h != nil {
		delete(s.snapshots, name)
	}
	s.mu.Unlock()
	if h == nil {
		return false
	}
	h.idleTimer.Stop()
	h.maxTimer.Stop()
	h.Close()
	return true
}

func (s *Server) endSnapshots() {
	s.mu.Lock()
	var names []string
	for name := range s.snapshots {
		names = append(names, name)
	}
	s.mu.Unlock()
	for _, name := range names {
		s.endSnapshot(name)
	}
}

func (s *Server) serveCloseSnapshot(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if _, err := s.findOwnSlot(r.Context(), name); err != nil {
		s.replyError(w, r, err)
		return
	}
	if !s.endSnapshot(name) {
		s.replyError(w, r, errNoSnapshot)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

var errNoSnapshot = newProblem(http.StatusGone, "snapshot_gone", "this server holds no snapshot of the slot: drop the slot and create it again if you have not read the snapshot to its end")

// pageToken says where the next page starts.
type pageToken struct {
	Incarnation string   `json:"i"`
	Table       string   `json:"t"`
	Key         []string `json:"k"`
}

func (p pageToken) String() string {
	text, _ := json.Marshal(p) // strings cannot fail
	return base64.RawURLEncoding.EncodeToString(text)
}

func parsePageToken(text string) (p pageToken, err error) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil || len(p.Key) == 0 {
		return p, newProblem(http.StatusBadRequest, "bad_after", fmt.Sprintf("after %.100q: it is not a token of this server", text))
	}
	return p, nil
}

func (s *Server) serveSnapshotPage(w http.ResponseWriter, r *http.Request) {
	name, table := r.PathValue("name"), r.PathValue("table")
	page, h, err := s.readPage(r, name, table)
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	e := newEncoder(nil)
	e.writePage(page)
	e.writeText(`,"next":`)
	if page.Next == nil {
		e.writeText(`null`)
	} else {
		e.writeString(pageToken{h.owned.Incarnation, table, page.Next}.String())
	}
	e.writeText(`,"lsn":`)
	e.writeString(h.LSN.String())
	e.writeText("}\n")
	s.metrics.snapshotRows.Add(len(page.Rows))
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = e.toFrame().writeTo(&deadlineWriter{r.Context(), w, http.NewResponseController(w), s.config.WriteTimeout})
}

func (s *Server) readPage(r *http.Request, name, table string) (*cdc.Page, *heldSnapshot, error) {
	query := r.URL.Query()
	limit := min(1000, s.config.MaxRows)
	if text := query.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > s.config.MaxRows {
			return nil, nil, newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("limit %.40q: it must be 1 to %d", text, s.config.MaxRows))
		}
	}
	o, err := s.findOwnSlot(r.Context(), name)
	if err != nil {
		return nil, nil, err
	}
	schema, relation, err := s.splitTableName(r, name, table)
	if err != nil {
		return nil, nil, err
	}
	if schema != "" {
		table = schema + "." + relation
	}
	if !slices.Contains(o.Tables, table) {
		return nil, nil, newProblem(http.StatusNotFound, "unknown_table", fmt.Sprintf("the slot has no table %.200q: it has those of GET /v2/slots/%s", table, name))
	}
	if !matchesTable(s.config.Tables, table) {
		return nil, nil, newProblem(http.StatusForbidden, "table_not_allowed", fmt.Sprintf("the table %.200q may not be read", table))
	}
	h := s.findSnapshot(name)
	if h == nil || h.owned.Incarnation != o.Incarnation {
		return nil, nil, errNoSnapshot
	}
	var after []string
	if text := query.Get("after"); text != "" {
		p, err := parsePageToken(text)
		switch {
		case err != nil:
			return nil, nil, err
		case p.Incarnation != o.Incarnation:
			return nil, nil, newProblem(http.StatusGone, "snapshot_gone", "after is of an earlier slot of this name: begin with the first page")
		case p.Table != table:
			return nil, nil, newProblem(http.StatusBadRequest, "bad_after", "after is of another table")
		}
		after = p.Key
	}
	h.idleTimer.Reset(s.config.SnapshotIdle)
	page, err := h.Page(r.Context(), schema, relation, after, limit, s.config.MaxPage)
	if err != nil && s.isSnapshotLost(r, h, schema, relation) {
		s.endSnapshot(name)
		err = errNoSnapshot
	}
	if err == nil {
		s.notePageRead(h, table, page.Next == nil)
	}
	return page, h, err
}

// isSnapshotLost reports whether the connection that holds the snapshot is lost, as after a restart of Postgres, or only the client's key
// was invalid: it reads a first page, which needs no key.
func (s *Server) isSnapshotLost(r *http.Request, h *heldSnapshot, schema, relation string) bool {
	_, err := h.Page(r.Context(), schema, relation, nil, 1, 1)
	return errors.Is(err, cdc.ErrSnapshotGone) || errors.Is(err, cdc.ErrClosed)
}

// splitTableName finds the schema and the table of a name, which is both with a dot between, plain or quoted as in SQL. It returns empty
// names if the slot has no such table. Either name may contain a dot: if plain names could be two tables, the name must be quoted.
func (s *Server) splitTableName(r *http.Request, slot, name string) (schema, table string, err error) {
	rows, err := s.pool.Query(r.Context(), `
		SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_publication_rel r ON r.prrelid = c.oid JOIN pg_publication p ON p.oid = r.prpubid
		WHERE p.pubname = $2 AND (n.nspname || '.' || c.relname = $1
			OR '"' || replace(n.nspname, '"', '""') || '"."' || replace(c.relname, '"', '""') || '"' = $1)`, name, slot)
	if err != nil {
		return "", "", err
	}
	found := 0
	_, err = pgx.ForEachRow(rows, []any{&schema, &table}, func() error { found++; return nil })
	if err == nil && found > 1 {
		err = newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf(`the table %.200q could be several: quote both names, as in "a.b"."c"`, name))
	}
	return schema, table, err
}
