package server

import (
	"context"
	"errors"
	"time"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/backoff"
)

// createReplicationSlot creates the slot itself, with or without a snapshot, and returns its position.
func (s *Server) createReplicationSlot(ctx context.Context, wanted newSlot, o ownedPublication, snapshot bool) (cdc.LSN, error) {
	if !snapshot {
		return cdc.CreateSlot(ctx, s.pool, wanted.Name, cdc.SlotOptions{Failover: wanted.Failover})
	}
	made, err := cdc.CreateSnapshot(ctx, cdc.SnapshotConfig{
		Conn: s.config.Conn, BeforeConnect: s.config.BeforeConnect, Slot: wanted.Name, Publications: []string{wanted.Name}, Failover: wanted.Failover, Connections: snapshotReaders,
		SkipUndecodable: s.skipUndecodable, Logger: s.config.Logger,
	})
	if err != nil {
		return 0, err
	}
	s.holdSnapshot(wanted.Name, o, made)
	return made.LSN, nil
}

const (
	// undoTimeout is how long each step of undoing a creation may take: a busy Postgres needs a while.
	undoTimeout = 30 * time.Second
	// undoPause is between two looks at what is to end.
	undoPause = 10 * time.Millisecond
)

// undoSlot removes what was created before the creation of a slot failed. The slot may exist although the answer was lost.
func (s *Server) undoSlot(ctx context.Context, name, incarnation string, why error) {
	if !errors.Is(why, cdc.ErrExists) {
		if err := s.dropBusySlot(ctx, name); err != nil && !errors.Is(err, cdc.ErrNotFound) {
			s.config.Logger.Error("cdc/server: a slot could not be dropped: drop it", "slot", name, "error", err)
			return // keep its publication, which says that the slot was created here
		}
	}
	s.undoPublication(ctx, name, incarnation)
}

// dropBusySlot drops a slot. The process that has created it may release it only after it has ended for others.
func (s *Server) dropBusySlot(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	isBusy := func(err error) bool { return errors.Is(err, cdc.ErrSlotBusy) }
	return backoff.Retry(ctx, backoff.New(undoPause, undoPause), isBusy, func() error { return cdc.DropSlot(ctx, s.pool, name) })
}

// undoPublication removes the publication of a creation that has failed, if it was created.
func (s *Server) undoPublication(ctx context.Context, name, incarnation string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := s.dropSlotPublication(ctx, name, incarnation); err != nil {
		s.config.Logger.Error("cdc/server: the creation of a slot has failed, and its publication could not be dropped: drop it if it is there", "publication", name, "error", err)
	}
}
