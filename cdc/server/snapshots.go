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

// snapshotReaders is how many pages of one snapshot are read at the same time.
const snapshotReaders = 2

// held is the snapshot of a slot. It ends when nobody has read it for a while, soon after all of its tables were read, and when it is too old.
type held struct {
	*cdc.Snapshot
	owned owned
	since time.Time
	idle  *time.Timer
	old   *time.Timer
	ended map[string]bool // tables that were read to their ends. Of [Server.mu]
}

// reserve keeps a name, and room for a snapshot, while a slot is made.
func (s *Server) reserve(name string, snapshot bool) (free func(), err error) {
	if !snapshot {
		return func() {}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.snapshots[name]; ok {
		return nil, cdc.ErrExists
	}
	if len(s.snapshots) >= s.config.MaxSnapshots {
		return nil, refusal(http.StatusServiceUnavailable, "no_room", fmt.Sprintf("%d snapshots are held, and no more may be: end one with DELETE /v2/slots/{name}/snapshot", s.config.MaxSnapshots))
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

func (s *Server) hold(name string, o owned, made *cdc.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &held{Snapshot: made, owned: o, since: time.Now(), ended: map[string]bool{}}
	end := func(level slog.Level, why string) func() {
		return func() {
			if s.begin() {
				defer s.work.Done()
				if s.held(name) != h { // it has ended, and another has its name
					return
				}
				s.config.Logger.Log(s.ctx, level, "cdc/server: a snapshot ends, "+why, "slot", name)
				s.endSnapshot(name)
			}
		}
	}
	h.idle = time.AfterFunc(s.config.SnapshotIdle, end(slog.LevelInfo, "which nobody has read for a while"))
	h.old = time.AfterFunc(s.config.SnapshotMax, end(slog.LevelWarn, "which was held for as long as one may be: SnapshotMax"))
	s.snapshots[name] = h
}

// held is the snapshot of a slot, nil where this server holds none.
func (s *Server) held(name string) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshots[name]
}

// noteRead notes that a page was read, and whether it was the last of its table. What was read whole is kept for a little while only.
func (s *Server) noteRead(h *held, table string, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last {
		h.ended[table] = true
	}
	idle := s.config.SnapshotIdle
	if whole := !slices.ContainsFunc(h.owned.Tables, func(t string) bool { return matchesTable(s.config.Tables, t) && !h.ended[t] }); whole {
		idle = min(idle, s.config.SnapshotGrace)
	}
	h.idle.Reset(idle)
}

// heldJSON is a snapshot that is held, as it is answered.
type heldJSON struct {
	// Since is when it was made. PID is the process of Postgres that keeps it, and holds back vacuum.
	Since time.Time `json:"since"`
	PID   uint32    `json:"pid"`
	// Tables are those that are locked because they are being read.
	Tables []lockJSON `json:"tables"`
}

type lockJSON struct {
	Table string    `json:"table"`
	PID   uint32    `json:"pid"`
	Since time.Time `json:"since"`
}

// describeHeld is nil where this server holds no snapshot of the slot.
func (s *Server) describeHeld(name string) *heldJSON {
	if h := s.held(name); h != nil {
		return &heldJSON{Since: h.since.UTC(), PID: h.PID(), Tables: locksOf(h.TableLocks())}
	} else if h := s.v1.Held(); h != nil && h.Slot == name {
		return &heldJSON{Since: h.Since.UTC(), PID: h.PID, Tables: locksOf(h.Locks)}
	}
	return nil
}

func locksOf(holds []cdc.TableLock) []lockJSON {
	locks := make([]lockJSON, len(holds))
	for i, one := range holds {
		locks[i] = lockJSON{one.Schema + "." + one.Table, one.PID, one.Since.UTC()}
	}
	return locks
}

// endSnapshot tells whether there was one.
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
	h.idle.Stop()
	h.old.Stop()
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

func (s *Server) closeSnapshot(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if _, err := s.mine(r.Context(), name); err != nil {
		s.refuse(w, r, err)
		return
	}
	if !s.endSnapshot(name) {
		s.refuse(w, r, errNoSnapshot)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

var errNoSnapshot = refusal(http.StatusGone, "snapshot_gone", "this server holds no snapshot of the slot: drop the slot and make it anew if you have not read it to its end")

// place is where the next page begins.
type place struct {
	Incarnation string   `json:"i"`
	Table       string   `json:"t"`
	Key         []string `json:"k"`
}

func (p place) String() string {
	text, _ := json.Marshal(p) // of strings
	return base64.RawURLEncoding.EncodeToString(text)
}

func parsePlace(text string) (p place, err error) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil || len(p.Key) == 0 {
		return p, refusal(http.StatusBadRequest, "bad_after", fmt.Sprintf("after %.100q: it is none of the tokens that this server gives", text))
	}
	return p, nil
}

func (s *Server) readSnapshot(w http.ResponseWriter, r *http.Request) {
	name, table := r.PathValue("name"), r.PathValue("table")
	page, h, err := s.snapshotPage(r, name, table)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	e := newEncoder(nil)
	e.page(page)
	e.text(`,"next":`)
	if page.Next == nil {
		e.text(`null`)
	} else {
		e.string(place{h.owned.Incarnation, table, page.Next}.String())
	}
	e.text(`,"lsn":`)
	e.string(h.LSN.String())
	e.text("}\n")
	s.metrics.snapshotRows.Add(len(page.Rows))
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = e.frame().writeTo(&punctual{r.Context(), w, http.NewResponseController(w), s.config.WriteTimeout})
}

func (s *Server) snapshotPage(r *http.Request, name, table string) (*cdc.Page, *held, error) {
	query := r.URL.Query()
	limit := min(1000, s.config.MaxRows)
	if text := query.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > s.config.MaxRows {
			return nil, nil, refusal(http.StatusBadRequest, "invalid", fmt.Sprintf("limit %.40q: it must be 1 to %d", text, s.config.MaxRows))
		}
	}
	o, err := s.mine(r.Context(), name)
	if err != nil {
		return nil, nil, err
	}
	schema, relation, err := s.split(r, name, table)
	if err != nil {
		return nil, nil, err
	}
	if schema != "" {
		table = schema + "." + relation
	}
	if !slices.Contains(o.Tables, table) {
		return nil, nil, refusal(http.StatusNotFound, "unknown_table", fmt.Sprintf("the slot has no table %.200q: it has those of GET /v2/slots/%s", table, name))
	}
	if !matchesTable(s.config.Tables, table) {
		return nil, nil, refusal(http.StatusForbidden, "table_not_allowed", fmt.Sprintf("the table %.200q may not be read", table))
	}
	h := s.held(name)
	if h == nil || h.owned.Incarnation != o.Incarnation {
		return nil, nil, errNoSnapshot
	}
	var after []string
	if text := query.Get("after"); text != "" {
		p, err := parsePlace(text)
		switch {
		case err != nil:
			return nil, nil, err
		case p.Incarnation != o.Incarnation:
			return nil, nil, refusal(http.StatusGone, "snapshot_gone", "after is of an earlier slot of this name: begin with the first page")
		case p.Table != table:
			return nil, nil, refusal(http.StatusBadRequest, "bad_after", "after is of another table")
		}
		after = p.Key
	}
	h.idle.Reset(s.config.SnapshotIdle)
	page, err := h.Page(r.Context(), schema, relation, after, limit, s.config.MaxPage)
	if err != nil && s.lost(r, h, schema, relation) {
		s.endSnapshot(name)
		err = errNoSnapshot
	}
	if err == nil {
		s.noteRead(h, table, page.Next == nil)
	}
	return page, h, err
}

// lost tells of a snapshot that has gone with the connection which held it, as after a restart of Postgres, from a key that
// is none: the first page needs none.
func (s *Server) lost(r *http.Request, h *held, schema, relation string) bool {
	_, err := h.Page(r.Context(), schema, relation, nil, 1, 1)
	return errors.Is(err, cdc.ErrSnapshotGone) || errors.Is(err, cdc.ErrClosed)
}

// split finds the schema and the table of a name, which is both with a dot between them, plain or quoted as in SQL. It returns empty
// names where the slot has no such table. A dot may belong to either: where plain names could be two tables, quotes have to tell.
func (s *Server) split(r *http.Request, slot, name string) (schema, table string, err error) {
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
		err = refusal(http.StatusBadRequest, "invalid", fmt.Sprintf(`the table %.200q could be several: quote both names, as in "a.b"."c"`, name))
	}
	return schema, table, err
}
