package v1

import (
	"context"
	"sync"
	"time"

	"github.com/chariot-giving/delta/cdc"
)

// session is the result of an init.
type session struct {
	slot      string
	snapshot  *cdc.Snapshot
	idleTimer *time.Timer // nil if snapshots do not expire
	maxTimer  *time.Timer
	since     time.Time
	ctx       context.Context //nolint:containedctx // it ends with the session
	cancel    context.CancelFunc

	mu      sync.Mutex
	readers int
	isGone  bool  // the snapshot is
	goneErr error // it is gone
}

// useSnapshot keeps the snapshot open until done is called. It reports false if the snapshot is gone.
func (s *session) useSnapshot(idle time.Duration) (done func(), ok bool) {
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

// expireIdle closes the snapshot unless it is being read.
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

// close closes the snapshot, even while it is read.
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

// goneReason says why the snapshot is gone.
func (s *session) goneReason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.goneErr == nil {
		return "the snapshot is gone"
	}
	return s.goneErr.Error()
}

// beginSession makes a session the current one.
func (h *Handler) beginSession(slot string, snapshot *cdc.Snapshot) {
	s := &session{slot: slot, snapshot: snapshot, since: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if h.config.SnapshotIdle > 0 {
		s.idleTimer = time.AfterFunc(h.config.SnapshotIdle, func() {
			s.expireIdle(func() { h.config.Logger.Info("v1: the snapshot is closed", "slot", s.slot, "reason", errIdle) })
		})
	}
	s.mu.Lock() // the function waits for it, so that it sees maxTimer
	s.maxTimer = time.AfterFunc(h.config.SnapshotMax, func() {
		h.config.Logger.Warn("v1: the snapshot is closed", "slot", s.slot, "reason", errOld)
		s.close(errOld)
	})
	s.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session = s
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

// HeldSnapshot describes an open snapshot: since when it is open, by which process of Postgres, and which tables it has locked.
type HeldSnapshot struct {
	Slot  string
	Since time.Time
	PID   uint32
	Locks []cdc.TableLock
}

// HeldSnapshot returns the snapshot of the session, nil if there is none.
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
	return &HeldSnapshot{Slot: s.slot, Since: s.since, PID: s.snapshot.PID(), Locks: s.snapshot.TableLocks()}
}
