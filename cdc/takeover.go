package cdc

import (
	"context"
	"strings"
)

// mostOwnProcesses bounds what a stream remembers of its connections: of several attempts, only one can have the slot.
const maxOwnProcesses = 16

// terminateLostConnection ends the process of the server that still reads the slot for a connection that this stream has given up. The server does not
// notice at once when a connection is lost in the network: the process keeps the slot until wal_sender_timeout, or for ever where that is 0.
// The slot is free a little later.
//
// A process is known by its number and the time when it began. Rejected: to know it by its application_name, which anybody can have, and which
// two instances of a program share: each would end the stream of the other.
func (s *Stream) terminateLostConnection(ctx context.Context, conn *connection) error {
	if len(s.ownProcesses) > 0 {
		var lost []string
		for _, process := range s.ownProcesses {
			lost = append(lost, quoteLiteral(process))
		}
		ended, err := conn.queryValue(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = `+quoteLiteral(s.config.Slot)+`)
				AND usename = current_user AND `+backendIdentity+` IN (`+strings.Join(lost, ", ")+`)`)
		if err != nil {
			return err
		}
		if ended == "t" {
			s.config.Logger.Warn("cdc: a lost connection of this stream still read the slot, and was terminated", "slot", s.config.Slot)
		}
	}
	process, err := conn.queryValue(ctx, `SELECT `+backendIdentity+` FROM pg_stat_activity WHERE pid = pg_backend_pid()`)
	if err != nil {
		return err
	}
	if s.ownProcesses = append(s.ownProcesses, process); len(s.ownProcesses) > maxOwnProcesses {
		s.ownProcesses = s.ownProcesses[1:]
	}
	return nil
}
