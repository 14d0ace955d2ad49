package cdc

import (
	"context"
	"strings"
)

// maxOwnProcesses bounds the backends that a stream remembers. Only one of several attempts can have the slot.
const maxOwnProcesses = 16

// terminateLostConnection terminates the backend that still reads the slot for a connection that this stream has given
// up. After a failure of the network, the server does not notice the lost connection at once: the backend keeps the
// slot until wal_sender_timeout, or for ever if that is 0. The slot is free shortly afterwards.
//
// A backend is identified by its PID and start time. Rejected: its application_name, which any client can use and which
// two instances of a program share, so that each would terminate the other's stream.
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
