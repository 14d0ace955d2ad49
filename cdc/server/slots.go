package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/chariot-giving/delta/cdc"
	v1 "github.com/chariot-giving/delta/cdc/server/v1"
)

// statusMissing is the status of a slot that was created here and is gone.
const statusMissing = "missing"

// statusUnpublished is the status of a slot that was created here and has lost its publication.
const statusUnpublished = "unpublished"

// slotJSON is a slot in an answer.
type slotJSON struct {
	Name string `json:"name"`
	// Own reports whether this server can stream and drop the slot.
	Own bool `json:"own"`
	// V1 is the installation of /v1 that has created the slot; /v2 does not touch it.
	V1            string   `json:"v1,omitempty"`
	Tables        []string `json:"tables,omitempty"`
	Active        bool     `json:"active"`
	Status        string   `json:"status"`
	Confirmed     cdc.LSN  `json:"confirmed"`
	LagBytes      int64    `json:"lag_bytes"`
	RetainedBytes int64    `json:"retained_bytes"`
	// LagSeconds is null if it is unknown, such as while nothing reads the slot; InactiveSeconds is null while something does; SafeWALBytes
	// is null if nothing limits the WAL that is kept.
	LagSeconds      *float64 `json:"lag_seconds"`
	InactiveSeconds *float64 `json:"inactive_seconds"`
	SafeWALBytes    *int64   `json:"safe_wal_bytes"`
	Temporary       bool     `json:"temporary"`
	Failover        bool     `json:"failover"`
	// Snapshot reports whether this server holds the snapshot of the slot, and Held what the snapshot locks.
	Snapshot bool              `json:"snapshot"`
	Held     *heldSnapshotJSON `json:"held,omitempty"`
	// Reading are tables that are locked at this moment for a chunk of a consumer's resync.
	Reading []lockJSON `json:"reading,omitempty"`
	// Consumers are the consumers that share the slot.
	Consumers []consumerJSON `json:"consumers,omitempty"`
	// PID is the process of Postgres that streams the slot.
	PID int `json:"pid,omitempty"`
}

// describeSlots returns the slots of the database, and those that were created here and are gone, with the status missing.
func (s *Server) describeSlots(ctx context.Context) ([]slotJSON, error) {
	mine, err := s.findOwned(ctx, "")
	if err != nil {
		return nil, err
	}
	sessions, err := v1.Slots(ctx, s.pool)
	if err != nil {
		return nil, err
	}
	found, err := cdc.Slots(ctx, s.pool)
	if err != nil {
		return nil, err
	}
	noted, err := s.readLedgers(ctx)
	if err != nil {
		return nil, err
	}
	idle := s.idleTimes(found)
	all := []slotJSON{}
	for _, f := range found {
		o, own := mine[f.Name]
		delete(mine, f.Name)
		if incarnation, ours := noted[f.Name]; ours && !own && checkLedgerSlot(f, incarnation) == nil {
			own, f.Status = true, statusUnpublished
		}
		delete(noted, f.Name)
		held := s.describeSnapshot(f.Name)
		all = append(all, slotJSON{
			Name: f.Name, Own: own && f.Plugin == "pgoutput", V1: sessions[f.Name], Tables: o.Tables, Active: f.Active, Status: f.Status, Confirmed: f.Confirmed,
			LagBytes: f.LagBytes, RetainedBytes: f.RetainedBytes, LagSeconds: toSeconds(f.LagTime), InactiveSeconds: toSeconds(idle[f.Name]),
			SafeWALBytes: f.SafeWALBytes, Temporary: f.Temporary, Failover: f.Failover, Snapshot: held != nil, Held: held, PID: f.PID,
			Reading: toLockJSON(s.streams.tableLocks(f.Name)), Consumers: s.describeConsumers(f.Name, o.Consumers),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		if mine[name].Tail == nil {
			all = append(all, slotJSON{Name: name, Own: true, Tables: mine[name].Tables, Status: statusMissing})
		}
		delete(noted, name)
	}
	gone := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(noted)) { // both the slot and its publication are gone
		all = append(all, slotJSON{Name: name, Own: true, Status: statusMissing})
		if noted[name] != "" {
			gone[name] = noted[name]
		}
	}
	s.noteMissing(ctx, gone)
	return all, nil
}

// idleTimes returns how long each slot has not been read. Postgres records that since version 17; before, it is the time since this server
// first saw the slot without a reader.
func (s *Server) idleTimes(found []cdc.Slot) map[string]*time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, idle := map[string]time.Time{}, map[string]*time.Duration{}
	for _, f := range found {
		switch {
		case f.Active:
		case f.InactiveTime != nil:
			idle[f.Name] = f.InactiveTime
		default:
			first, seen := s.unreadSince[f.Name]
			if !seen {
				first = time.Now()
			}
			since[f.Name] = first
			passed := time.Since(first)
			idle[f.Name] = &passed
		}
	}
	s.unreadSince = since // without dropped slots
	return idle
}

func toSeconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	n := d.Seconds()
	return &n
}

func (s *Server) serveSlotList(w http.ResponseWriter, r *http.Request) {
	all, err := s.describeSlots(r.Context())
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	replyJSON(w, http.StatusOK, map[string]any{"slots": all})
}

func (s *Server) serveSlot(w http.ResponseWriter, r *http.Request) {
	all, err := s.describeSlots(r.Context())
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	for _, one := range all {
		if one.Name == r.PathValue("name") {
			replyJSON(w, http.StatusOK, one)
			return
		}
	}
	s.replyError(w, r, cdc.ErrNotFound)
}

// newSlot is the body of a request to create a slot.
type newSlot struct {
	Name string `json:"name"`
	// Tables are patterns of schema.table.
	Tables   []string `json:"tables"`
	Snapshot *bool    `json:"snapshot"`
	// Consumers are the names of the consumers that share the slot.
	Consumers []string `json:"consumers"`
	Failover  bool     `json:"failover"`
}

func (s *Server) serveCreateSlot(w http.ResponseWriter, r *http.Request) {
	var wanted newSlot
	if err := s.decodeBody(w, r, &wanted); err != nil {
		s.replyError(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.config.CreateTimeout)
	defer cancel()
	made, err := s.createSlot(ctx, wanted)
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	s.config.Logger.Info("cdc/server: a slot was created", "slot", wanted.Name)
	w.Header().Set("Location", "/v2/slots/"+wanted.Name)
	replyJSON(w, http.StatusCreated, made)
}

func (s *Server) createSlot(ctx context.Context, wanted newSlot) (any, error) {
	snapshot := wanted.Snapshot == nil || *wanted.Snapshot
	if len(wanted.Tables) == 0 {
		return nil, newProblem(http.StatusBadRequest, "invalid", `tables: at least one pattern of schema.table is needed, such as "public.*"`)
	}
	if err := checkConsumers(wanted.Consumers); err != nil {
		return nil, err
	}
	if wanted.Name == s.config.Publication {
		return nil, invalidField(cdc.FieldSlot, wanted.Name, "another name: this is the publication of the tails")
	}
	if _, err := cdc.LookupSlot(ctx, s.pool, wanted.Name); err == nil {
		return nil, cdc.ErrExists
	} else if !errors.Is(err, cdc.ErrNotFound) {
		return nil, err
	}
	tables, err := s.findUsableTables(ctx, wanted.Tables, snapshot)
	if err != nil {
		return nil, err
	}
	free, err := s.reserveSnapshot(wanted.Name, snapshot)
	if err != nil {
		return nil, err
	}
	defer free()
	select {
	case s.creations <- struct{}{}:
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, newProblem(http.StatusServiceUnavailable, "timeout", fmt.Sprintf("%d other slots are being created, which is the limit, and none was within %s: try again", maxCreations, s.config.CreateTimeout))
		}
		return nil, ctx.Err()
	}
	defer func() { <-s.creations }()
	// Another server of this database may be creating the same slot.
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	var locked bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtextextended('delta stream ' || $1, 0))`, wanted.Name).Scan(&locked); err != nil {
		return nil, err
	}
	if !locked {
		return nil, newProblem(http.StatusConflict, "exists", "a slot of this name is being created")
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.Exec(ctx, `SELECT pg_advisory_unlock(hashtextextended('delta stream ' || $1, 0))`, wanted.Name); err != nil {
			_ = conn.Conn().Close(ctx) // closing unlocks
		}
	}()
	// A process that died before it created the slot leaves a publication.
	if left, err := s.findOwned(ctx, wanted.Name); err != nil {
		return nil, err
	} else if o, ok := left[wanted.Name]; ok && o.Tail == nil {
		if err := cdc.DropPublication(ctx, s.pool, wanted.Name); err != nil && !errors.Is(err, cdc.ErrNotFound) {
			return nil, err
		}
	}
	o, err := s.createPublication(ctx, wanted.Name, tables, nil, wanted.Consumers)
	if err != nil {
		// The answer to the COMMIT may be lost, such as by the end of ctx.
		s.undoPublication(ctx, wanted.Name, o.Incarnation)
		return nil, err
	}
	at, err := s.createReplicationSlot(ctx, wanted, o, snapshot)
	if err != nil {
		s.undoSlot(ctx, wanted.Name, o.Incarnation, err)
		return nil, explainSlotTimeout(err, fmt.Sprintf("the slot %q", wanted.Name), s.config.CreateTimeout)
	}
	made := map[string]any{"name": wanted.Name, "lsn": at, "resume": o.resumeToken(at), "tables": o.Tables, "snapshot": snapshot}
	if len(o.Consumers) > 0 {
		made["consumers"] = o.Consumers
	}
	return made, nil
}

// findUsableTables returns the tables of patterns, and refuses those without a key, because updates of such a table would fail once it is
// published.
func (s *Server) findUsableTables(ctx context.Context, patterns []string, snapshot bool) ([]cdc.PublishedTable, error) {
	tables, can, err := s.findAllowedTables(ctx, patterns)
	if err != nil {
		return nil, err
	}
	var without []string
	for _, t := range tables {
		if k := can.usesOf(t); !k.canStream || snapshot && !k.canPage {
			without = append(without, t.Schema+"."+t.Table)
		}
	}
	if len(without) > 0 {
		return nil, newProblem(http.StatusUnprocessableEntity, "no_primary_key", fmt.Sprintf(
			"these tables have no replica identity by which updates and deletes name their rows (in Postgres 18, one with generated columns is "+
				"none), or no primary key to read a snapshot in the order of (not needed with \"snapshot\":false): %s", strings.Join(without, ", ")))
	}
	return tables, nil
}

func (s *Server) serveDropSlot(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if _, err := s.findOwnSlot(r.Context(), name); err != nil && !errors.Is(err, errUnpublished) {
		s.replyError(w, r, err)
		return
	}
	if err := cdc.DropSlot(r.Context(), s.pool, name); err != nil && !errors.Is(err, cdc.ErrNotFound) {
		s.replyError(w, r, err)
		return
	}
	s.endSnapshot(name)
	if err := s.dropSlotPublication(r.Context(), name, ""); err != nil && !errors.Is(err, cdc.ErrNotFound) {
		s.replyError(w, r, err)
		return
	}
	s.forgetAcks(name)
	s.config.Logger.Info("cdc/server: a slot was dropped", "slot", name)
	w.WriteHeader(http.StatusNoContent)
}
