package cdc

import (
	"sync/atomic"
	"time"
)

// Stats describes a stream at one moment, for metrics of any kind. Counters start at zero with the stream and never
// fall. Positions and sizes are in bytes.
type Stats struct {
	// Connected reports whether the stream is connected.
	Connected bool
	// Sent is the position up to which the server has read its log for this stream, and Received the end of the last
	// transaction that has arrived.
	Sent, Received LSN
	// Delivered is the end of the last transaction that Next has returned, and Acknowledged that of the last
	// acknowledged one.
	Delivered, Acknowledged LSN
	// Confirmed is the position before which the server may remove WAL.
	Confirmed LSN
	// LagBytes is the log from Confirmed to Sent. [Slot.LagBytes] includes the log that the server has not read yet.
	LagBytes int64
	// Lag is the time since the commit of the oldest unacknowledged transaction, by the clocks of server and client. It
	// is zero if all are acknowledged.
	Lag time.Duration
	// Waiting is the number of transactions that have arrived and are not acknowledged.
	Waiting int
	// Transactions and Bytes count what Next has returned; Bytes is the size as the server sent it.
	Transactions, Bytes int64
	// SpilledBytes is the current size of the temporary files. SpilledTransactions counts the transactions that Next
	// has returned from files.
	SpilledBytes, SpilledTransactions int64
	// Undecodable counts the rows that were left out because they cannot be decoded. A whole transaction counts as one.
	Undecodable int64
	// Heartbeats counts the heartbeats written, Reconnects the lost connections that were replaced.
	Heartbeats, Reconnects int64
	// HeartbeatDelay is the time of the last heartbeat from just before its commit until Next had returned all
	// transactions before it. If a later heartbeat has been on its way for longer, it is that time, so the delay grows
	// while a stream is stuck. It is zero before the first heartbeat, and without Config.Heartbeat. It is measured by
	// one clock, except for heartbeats that an earlier process has left in the log.
	HeartbeatDelay time.Duration
}

type counters struct {
	transactions, bytes, spilled, heartbeats, reconnects, undecodable atomic.Int64
}

// Stats returns the current figures, without a round trip. It may be called by any goroutine, also after Close.
func (s *Stream) Stats() Stats {
	stats := s.positions.stats(time.Now())
	stats.Connected = s.conn.Load() != nil
	stats.Transactions, stats.Bytes = s.counters.transactions.Load(), s.counters.bytes.Load()
	stats.Undecodable = s.counters.undecodable.Load()
	stats.Heartbeats, stats.Reconnects = s.counters.heartbeats.Load(), s.counters.reconnects.Load()
	stats.SpilledBytes, stats.SpilledTransactions = s.spilled.Load(), s.counters.spilled.Load()
	stats.HeartbeatDelay = s.heartbeats.currentDelay(time.Now())
	return stats
}

func (p *positions) stats(now time.Time) Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := Stats{
		Sent: max(p.server, p.confirmed), Received: p.received, Delivered: p.lastDelivered, Acknowledged: p.acknowledged, Confirmed: p.confirmed,
		Waiting: len(p.unacknowledged),
	}
	stats.LagBytes = int64(stats.Sent - stats.Confirmed) //nolint:gosec // Sent is not behind it, and logs are shorter
	for _, c := range p.unacknowledged {
		if !c.time.IsZero() { // messages outside of transactions have no time
			stats.Lag = max(0, now.Sub(c.time))
			break
		}
	}
	return stats
}
