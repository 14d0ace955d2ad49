package cdc

import (
	"sync/atomic"
	"time"
)

// Stats is a snapshot of how a stream does, for metrics of any kind: this package knows none. Counts begin with the stream and
// never fall. Log positions and sizes are in bytes.
type Stats struct {
	// Connected tells whether there is a connection at the moment.
	Connected bool
	// Sent is how far the server has read its log for this stream, Received the end of the last transaction that came.
	Sent, Received LSN
	// Delivered is the end of the last transaction that Next has returned, Acknowledged of the last one that was acknowledged.
	Delivered, Acknowledged LSN
	// Confirmed is what the server may forget.
	Confirmed LSN
	// LagBytes is the log from Confirmed to Sent. What the server has not yet read is told by [Slot.LagBytes].
	LagBytes int64
	// Lag is how long ago the oldest transaction was committed that came and is not acknowledged, by the clocks of server and
	// client. It is zero where nothing waits.
	Lag time.Duration
	// Waiting is how many came and are not acknowledged.
	Waiting int
	// Transactions and Bytes are what Next has returned, Bytes as the server sent them.
	Transactions, Bytes int64
	// SpilledBytes are in temporary files at the moment. SpilledTransactions counts those that Next has returned from files.
	SpilledBytes, SpilledTransactions int64
	// Undecodable is how many rows were left out because they cannot be decoded; of a whole transaction that was left out, one.
	Undecodable int64
	// Heartbeats is how many were written, Reconnects how often a lost connection was replaced.
	Heartbeats, Reconnects int64
	// HeartbeatDelay is how long the last heartbeat took from just before it was committed until Next had returned all
	// transactions before it; or for how long one has been on its way, if that is longer, so that a stream that stands still
	// has a growing delay. It is zero before the first heartbeat, and without Config.Heartbeat. It depends on one clock
	// only, except for heartbeats that an earlier process has left in the log.
	HeartbeatDelay time.Duration
}

type counters struct {
	transactions, bytes, spilled, heartbeats, reconnects, undecodable atomic.Int64
}

// Stats returns the figures of this moment, without a round trip. It can be called by any goroutine, also after Close.
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
