package v1

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/internal/settings"
)

// slotWords are the words in names of slots.
var slotWords = []string{
	"acorn", "amber", "apple", "badge", "basil", "beach", "birch", "bread", "brook", "cabin", "cedar", "chalk", "cliff", "cloud", "coral",
	"crane", "daisy", "delta", "ember", "fable", "face", "fern", "field", "flint", "forest", "frost", "garden", "grape", "harbor", "hazel",
	"honey", "island", "ivory", "jade", "kettle", "lake", "lemon", "lilac", "maple", "meadow", "mint", "moss", "oak", "olive", "opal",
	"orchid", "pearl", "pebble", "pine", "plum", "poppy", "quartz", "reed", "river", "robin", "sage", "shell", "spruce", "stone", "tulip",
}

// randomSlotName returns one of sixty million names.
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

// dropTimeout is how long the previous slot may take to be dropped.
const dropTimeout = 20 * time.Second

var (
	errClosing  = errors.New("the server is shutting down")
	errReplaced = errors.New("a new init has replaced this session")
	errIdle     = errors.New("the snapshot was not read for a while")
	errOld      = errors.New("the snapshot has reached SnapshotMax")
)

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

// initSession ends the current session, and creates another one. The name of the slot is written down before the slot is created, so that
// the slot is found again if the process dies in between.
func (h *Handler) initSession(ctx context.Context) (string, error) {
	config, err := settings.PrepareConfig(ctx, h.config.Conn, h.config.BeforeConnect)
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
		_ = conn.Close(ctx) // which releases the lock
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
	if errors.Is(err, cdc.ErrExists) { // another program has created the slot in between, so it is not ours
		err = errors.Join(err, h.markers.writeMarker(ctx, conn, h.markers.changes))
	}
	if err != nil {
		return "", err
	}
	h.beginSession(slot, snapshot)
	return slot, nil
}

// prepareSlot creates the publications, and writes down the name of the slot to create.
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
	// Several transactions, because each locks its tables until it ends, and the number of locks is limited.
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

// findFreeName returns a name that no slot of the server has.
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

// dropSlots drops the slots that this installation has created.
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
			h.config.Logger.Warn("v1: a slot of this name was created by another program, and is kept", "slot", name)
		case err != nil && !errors.Is(err, cdc.ErrNotFound):
			return err
		}
	}
	return h.markers.writeMarker(ctx, conn, h.markers.changes)
}

// dropSlot drops a slot, and disconnects its reader. A reader connects again at once, so the drop is retried every millisecond.
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
			return fmt.Errorf("disconnecting the reader of slot %q: %w", name, err)
		}
	}
}

// hasMade reports whether this installation has created a slot.
func (h *Handler) hasMade(ctx context.Context, slot string) (bool, error) {
	slots, err := h.markers.readSlots(ctx, h.pool)
	return slices.Contains(slots, slot), err
}
