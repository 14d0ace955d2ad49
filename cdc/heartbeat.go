package cdc

import "context"

// beat writes a message now and then until the stream ends. A heart that stops is no reason to end it.
func (s *Stream) beat() {
	var conn *connection
	defer func() {
		if conn != nil {
			conn.close()
		}
	}()
	for pause(s.alive, s.config.Heartbeat) == nil {
		ctx, cancel := context.WithTimeout(s.alive, s.config.Timeout)
		var err error
		if conn == nil {
			conn, err = connectWriter(ctx, s.config.Conn)
		}
		if err == nil {
			err = conn.emit(ctx, prefixHeartbeat, s.config.Slot)
		}
		cancel()
		if err == nil {
			s.counters.heartbeats.Add(1)
			continue
		}
		if conn != nil {
			conn.close()
			conn = nil
		}
		if s.alive.Err() == nil {
			s.config.Logger.Warn("cdc: no heartbeat", "slot", s.config.Slot, "error", err)
		}
	}
}
