package server

import (
	"sync"

	"github.com/chariot-giving/delta/cdc"
)

// streamRegistry has the open streams of both versions of the protocol.
type streamRegistry struct {
	mu   sync.Mutex
	open map[measuredStream]string // by stream, the slot; empty for tails: each has a slot with a new name, which would fill a metrics store
	// ended has the counts of streams that have ended, so that sums over all streams never fall.
	ended   cdc.Stats
	clients int // of all streams: a slot may have several consumers
}

// measuredStream is a stream, or a fan-out that several consumers share.
type measuredStream interface {
	Stats() cdc.Stats
	TableLocks() []cdc.TableLock
}

// addStream registers a stream and its client. Call leave when it has ended.
func (r *streamRegistry) addStream(slot string, stream *cdc.Stream) (leave func()) {
	uncount, unregister := r.countClient(), r.registerStream(slot, stream)
	return func() {
		uncount()
		unregister()
	}
}

// countClient counts a client until uncount is called.
func (r *streamRegistry) countClient() (uncount func()) {
	change := func(by int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.clients += by
	}
	change(1)
	return func() { change(-1) }
}

// registerStream registers a stream for the metrics. Call leave when it has ended.
func (r *streamRegistry) registerStream(slot string, stream measuredStream) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[stream] = slot
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, stream)
		addCounts(&r.ended, stream.Stats())
	}
}

func addCounts(sum *cdc.Stats, one cdc.Stats) {
	sum.Reconnects += one.Reconnects
	sum.Heartbeats += one.Heartbeats
	sum.SpilledTransactions += one.SpilledTransactions
}

// collectStats returns the stats of each named slot that is streamed, the sums over all streams, and the number of clients.
func (r *streamRegistry) collectStats() (bySlot map[string]cdc.Stats, sums cdc.Stats, clients int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bySlot, sums = map[string]cdc.Stats{}, r.ended
	for stream, slot := range r.open {
		stats := stream.Stats()
		addCounts(&sums, stats)
		sums.SpilledBytes += stats.SpilledBytes
		if slot != "" {
			bySlot[slot] = stats
		}
	}
	return bySlot, sums, r.clients
}

// tableLocks returns the tables that are locked at this moment for chunks of a named slot.
func (r *streamRegistry) tableLocks(slot string) (all []cdc.TableLock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for stream, of := range r.open {
		if of == slot {
			all = append(all, stream.TableLocks()...)
		}
	}
	return all
}
