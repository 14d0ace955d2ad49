package v1

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/internal/settings"
)

// words are those that the names of slots are made of.
var slotWords = []string{
	"acorn", "amber", "apple", "badge", "basil", "beach", "birch", "bread", "brook", "cabin", "cedar", "chalk", "cliff", "cloud", "coral",
	"crane", "daisy", "delta", "ember", "fable", "face", "fern", "field", "flint", "forest", "frost", "garden", "grape", "harbor", "hazel",
	"honey", "island", "ivory", "jade", "kettle", "lake", "lemon", "lilac", "maple", "meadow", "mint", "moss", "oak", "olive", "opal",
	"orchid", "pearl", "pebble", "pine", "plum", "poppy", "quartz", "reed", "river", "robin", "sage", "shell", "spruce", "stone", "tulip",
}

// randomSlotName is one of sixty million.
func randomSlotName() (string, error) {
	word, err := rand.Int(rand.Reader, big.NewInt(int64(len(slotWords))))
	if err != nil {
		return "", err
	}
	number, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("delta_%s%d", slotWords[word.Int64()], number), nil
}

// dropping is how long the former slot may take to be dropped.
const dropTimeout = 20 * time.Second

var (
	errClosing  = errors.New("the server is shutting down")
	errReplaced = errors.New("a new init has replaced this session")
	errIdle     = errors.New("nobody has read the snapshot for a while")
	errOld      = errors.New("the snapshot was held for as long as one may be: SnapshotMax")
)

// session is what an init has made.
type session struct {
	slot      string
	snapshot  *cdc.Snapshot
	idleTimer *time.Timer // nil where the snapshot stays
	maxTimer  *time.Timer
	since     time.Time
	ctx       context.Context //nolint:containedctx // it ends with the session
	cancel    context.CancelFunc

	mu      sync.Mutex
	readers int
	isGone  bool  // the snapshot is
	goneErr error // it is gone
}

// useSnapshot keeps the snapshot until done is called. It is false when it is gone.
func (s *session) useSnapshot(idle time.Duration) (done func(), there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isGone {
		return nil, false
	}
	s.readers++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.readers--
		if s.idleTimer != nil && !s.isGone {
			s.idleTimer.Reset(idle)
		}
	}, true
}

// expireIdle closes a snapshot that nobody reads.
func (s *session) expireIdle(log func()) {
	s.mu.Lock()
	end := s.readers == 0 && !s.isGone
	if end {
		s.isGone, s.goneErr = true, errIdle
	}
	s.mu.Unlock()
	if end {
		log()
		s.snapshot.Close()
	}
}

// close closes the snapshot, also for those that are reading it.
func (s *session) close(why error) {
	s.mu.Lock()
	if s.goneErr == nil {
		s.goneErr = why
	}
	s.isGone = true
	if s.idleTimer != nil {
		s.idleTimer.Stop()
	}
	s.maxTimer.Stop()
	s.mu.Unlock()
	s.cancel()
	s.snapshot.Close()
}

func (h *Handler) serveInit(w http.ResponseWriter, r *http.Request) {
	const text = "unable to init session"
	select {
	case <-h.initializing:
	case <-r.Context().Done():
		replyError(w, http.StatusServiceUnavailable, text, context.Cause(r.Context()).Error())
		return
	}
	defer func() { h.initializing <- struct{}{} }()
	slot, err := h.initSession(r.Context())
	if err != nil {
		h.config.Logger.Error("v1: init has failed", "error", err)
		replyError(w, http.StatusInternalServerError, text, explainError(err))
		return
	}
	replyJSON(w, http.StatusOK, struct {
		SlotName string `json:"slotName"`
	}{slot})
}

// initSession ends the session there is, and makes another. What it is about to make is written down before, so that it is
// found again whatever happens in between.
func (h *Handler) initSession(ctx context.Context) (string, error) {
	config, err := settings.Connecting(ctx, h.config.Conn, h.config.BeforeConnect)
	if err != nil {
		return "", fmt.Errorf("connecting: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return "", fmt.Errorf("connecting: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // and with it the lock
	}()
	var level string
	if err := conn.QueryRow(ctx, `SELECT current_setting('wal_level') FROM pg_advisory_lock(hashtextextended($1, 0))`, h.markers.changes).Scan(&level); err != nil {
		return "", fmt.Errorf("waiting for another init: %w", err)
	}
	if level != "logical" {
		return "", invalidField(cdc.FieldWALLevel, level, "logical: ALTER SYSTEM SET wal_level = 'logical', then restart the server")
	}
	h.endSession()
	if err := h.dropSlots(ctx, conn); err != nil {
		return "", err
	}
	slot, err := h.prepareSlot(ctx, conn)
	if err != nil {
		return "", err
	}
	snapshot, err := cdc.CreateSnapshot(ctx, cdc.SnapshotConfig{
		Conn: h.config.Conn, BeforeConnect: h.config.BeforeConnect, Slot: slot, SkipUndecodable: h.config.Stream.SkipUndecodable, Logger: h.config.Logger,
	})
	if errors.Is(err, cdc.ErrExists) { // somebody was faster, and the slot is theirs
		err = errors.Join(err, h.markers.writeMarker(ctx, conn, h.markers.changes))
	}
	if err != nil {
		return "", err
	}
	h.beginSession(slot, snapshot)
	return slot, nil
}

// prepareSlot makes the publications, and writes down the name of a slot that is to be made.
func (h *Handler) prepareSlot(ctx context.Context, conn *pgx.Conn) (slot string, err error) {
	if _, err := conn.Exec(ctx, `SET lock_timeout = '10s'`); err != nil {
		return "", err
	}
	if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return h.ensurePublications(ctx, tx) }); err != nil {
		return "", err
	}
	statements, err := h.planChanges(ctx, conn)
	if err != nil {
		return "", err
	}
	// Not all at once, because each table is locked until its transaction ends, and the room for locks is limited.
	for part := range slices.Chunk(statements, 500) {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return execAll(ctx, tx, part) })
		if err != nil {
			return "", err
		}
	}
	if slot, err = findFreeName(ctx, conn); err != nil {
		return "", err
	}
	return slot, h.markers.writeMarker(ctx, conn, h.markers.changes, slot)
}

// findFreeName is a name that no slot of the server has.
func findFreeName(ctx context.Context, db cdc.DB) (string, error) {
	for {
		name, err := randomSlotName()
		if err != nil {
			return "", err
		}
		rows, err := db.Query(ctx, `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, name)
		if err != nil {
			return "", err
		}
		taken, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
		if err != nil || !taken {
			return name, err
		}
	}
}

// dropSlots drops those that this installation has made.
func (h *Handler) dropSlots(ctx context.Context, conn *pgx.Conn) error {
	slots, err := h.markers.readSlots(ctx, conn)
	if err != nil || len(slots) == 0 {
		return err
	}
	for _, name := range slots {
		err := h.dropSlot(ctx, conn, name)
		var invalid *cdc.InvalidError
		switch {
		case errors.As(err, &invalid):
			h.config.Logger.Warn("v1: a slot of this name is not ours, and stays", "slot", name)
		case err != nil && !errors.Is(err, cdc.ErrNotFound):
			return err
		}
	}
	return h.markers.writeMarker(ctx, conn, h.markers.changes)
}

// dropSlot drops a slot, and disconnects who reads it. They connect again at once, so that it has to be quick.
func (h *Handler) dropSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	end := time.Now().Add(dropTimeout)
	for attempt := 0; ; attempt++ {
		err := cdc.DropSlot(ctx, conn, name)
		if !errors.Is(err, cdc.ErrSlotBusy) || time.Now().After(end) {
			return err
		}
		if attempt%100 > 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
			WHERE slot_name = $1 AND database = current_database() AND plugin = 'pgoutput' AND active`, name)
		if err != nil {
			return fmt.Errorf("disconnecting who reads slot %q: %w", name, err)
		}
	}
}

// beginSession makes a session the one there is.
func (h *Handler) beginSession(slot string, snapshot *cdc.Snapshot) {
	s := &session{slot: slot, snapshot: snapshot, since: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if h.config.SnapshotIdle > 0 {
		s.idleTimer = time.AfterFunc(h.config.SnapshotIdle, func() {
			s.expireIdle(func() { h.config.Logger.Info("v1: the snapshot is closed", "slot", s.slot, "reason", errIdle) })
		})
	}
	s.mu.Lock() // which the function waits for
	s.maxTimer = time.AfterFunc(h.config.SnapshotMax, func() {
		h.config.Logger.Warn("v1: the snapshot is closed", "slot", s.slot, "reason", errOld)
		s.close(errOld)
	})
	s.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session = s
}

// Held is a snapshot that is held: since when, by which process of Postgres, and what it has locked.
type HeldSnapshot struct {
	Slot  string
	Since time.Time
	PID   uint32
	Locks []cdc.Hold
}

// HeldSnapshot returns the snapshot of the session, nil where there is none.
func (h *Handler) HeldSnapshot() *HeldSnapshot {
	h.mu.Lock()
	s := h.session
	h.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isGone {
		return nil
	}
	return &HeldSnapshot{Slot: s.slot, Since: s.since, PID: s.snapshot.PID(), Locks: s.snapshot.Holds()}
}

// goneReason says why the snapshot is gone.
func (s *session) goneReason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.goneErr == nil {
		return "the snapshot is gone"
	}
	return s.goneErr.Error()
}

// endSession ends the streams, and closes the snapshot.
func (h *Handler) endSession() {
	h.mu.Lock()
	s := h.session
	h.session = nil
	var streams []*streamClient
	for stream := range h.streams {
		streams = append(streams, stream)
	}
	h.mu.Unlock()
	for _, stream := range streams {
		stream.stop(errReplaced)
		<-stream.released
	}
	if s != nil {
		s.close(errReplaced)
	}
}

// hasMade tells whether this installation has made a slot.
func (h *Handler) hasMade(ctx context.Context, slot string) (bool, error) {
	slots, err := h.markers.readSlots(ctx, h.pool)
	return slices.Contains(slots, slot), err
}
