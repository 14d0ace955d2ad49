package cdc

import (
	"context"
	"strings"
)

// mostOwnProcesses bounds what a stream remembers of its connections: of several attempts, only one can have the slot.
const mostOwnProcesses = 16

// takeOver ends the process of the server that still reads the slot for a connection that this stream has given up. The server does not
// notice at once when a connection is lost in the network: the process keeps the slot until wal_sender_timeout, or for ever where that is 0.
// The slot is free a little later.
//
// A process is known by its number and the time when it began. Rejected: to know it by its application_name, which anybody can have, and which
// two instances of a program share: each would end the stream of the other.
func (s *Stream) takeOver(ctx context.Context, conn *connection) error {
	if len(s.own) > 0 {
		var lost []string
		for _, process := range s.own {
			lost = append(lost, literal(process))
		}
		ended, err := conn.value(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = `+literal(s.config.Slot)+`)
				AND usename = current_user AND `+holder+` IN (`+strings.Join(lost, ", ")+`)`)
		if err != nil {
			return err
		}
		if ended == "t" {
			s.config.Logger.Warn("cdc: a lost connection of this stream still read the slot, and was terminated", "slot", s.config.Slot)
		}
	}
	process, err := conn.value(ctx, `SELECT `+holder+` FROM pg_stat_activity WHERE pid = pg_backend_pid()`)
	if err != nil {
		return err
	}
	if s.own = append(s.own, process); len(s.own) > mostOwnProcesses {
		s.own = s.own[1:]
	}
	return nil
}
