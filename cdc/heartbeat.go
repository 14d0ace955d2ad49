package cdc

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

// writeHeartbeats writes a message now and then until the stream ends. Heartbeats that fail are no reason to end it.
func (s *Stream) writeHeartbeats() {
	var conn *connection
	defer func() {
		if conn != nil {
			conn.close()
		}
	}()
	for backoff.Pause(s.alive, s.config.Heartbeat) == nil {
		ctx, cancel := context.WithTimeout(s.alive, s.config.Timeout)
		var err error
		if conn == nil {
			conn, err = s.connectWriter(ctx, s.config.Conn)
		}
		if err == nil {
			now := time.Now()
			s.heartbeats.noteWritten(now)
			err = conn.emitMessage(ctx, prefixHeartbeat, heartbeat{s.config.Slot, now}.String())
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

// heartbeat is the content of one: the slot for which it was written, and when, by the clock of the process that wrote it. That
// process is the usual reader too, so that what it measures does not depend on how the clocks of two machines differ.
type heartbeat struct {
	slot    string
	written time.Time
}

func (h heartbeat) String() string { return h.slot + " " + strconv.FormatInt(h.written.UnixNano(), 10) }

// parseHeartbeat reads what String makes. Anybody can write messages, so anything else is only no heartbeat.
func parseHeartbeat(text string) (h heartbeat, ok bool) {
	slot, written, found := strings.Cut(text, " ")
	nanoseconds, err := strconv.ParseInt(written, 10, 64)
	return heartbeat{slot, time.Unix(0, nanoseconds)}, found && err == nil
}

// mostOutstanding bounds how many written heartbeats are remembered: a server that sends nothing must not fill the memory.
const maxOutstanding = 1024

// heartbeats measures how long a heartbeat takes from the database to the caller of Next.
type heartbeats struct {
	mu sync.Mutex
	// outstanding are the times of those that were written and have not come back, the oldest first.
	outstanding []time.Time
	// arrived are those that came while transactions before them still waited for Next, in order.
	arrived []arrivedHeartbeat
	// delay is that of the last one whose predecessors were all delivered.
	delay time.Duration
	// latest is when the newest that came was written. After a lost connection the server sends heartbeats again.
	latest time.Time
}

type arrivedHeartbeat struct {
	after   LSN // the end of the last transaction before it
	written time.Time
}

func (h *heartbeats) noteWritten(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.outstanding) < maxOutstanding {
		h.outstanding = append(h.outstanding, now)
	}
}

// noteArrived notes one that came behind the transaction that ends at after.
func (h *heartbeats) noteArrived(written time.Time, after LSN) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !written.After(h.latest) {
		return
	}
	h.latest = written
	for len(h.outstanding) > 0 && h.outstanding[0].UnixNano() <= written.UnixNano() {
		h.outstanding = h.outstanding[1:]
	}
	// Of several behind the same transaction, the oldest has waited longest. Keeping only that bounds the list.
	if n := len(h.arrived); n == 0 || h.arrived[n-1].after != after {
		h.arrived = append(h.arrived, arrivedHeartbeat{after, written})
	}
}

// noteDelivered notes that Next has returned everything up to end.
func (h *heartbeats) noteDelivered(end LSN, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.arrived) > 0 && h.arrived[0].after <= end {
		h.delay = max(1, now.Sub(h.arrived[0].written)) // a clock that was set back must not look like no heartbeat
		h.arrived = h.arrived[1:]
	}
}

// currentDelay is the delay as it is now: one that is still on its way counts as soon as it is later than the last.
func (h *heartbeats) currentDelay(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	delay := h.delay
	if len(h.arrived) > 0 {
		delay = max(delay, now.Sub(h.arrived[0].written))
	}
	if len(h.outstanding) > 0 {
		delay = max(delay, now.Sub(h.outstanding[0]))
	}
	return delay
}

// receiveHeartbeat is called by the reader.
func (s *Stream) receiveHeartbeat(h heartbeat) {
	if h.slot != s.config.Slot {
		return
	}
	s.heartbeats.noteArrived(h.written, s.positions.undeliveredEnd())
	s.heartbeats.noteDelivered(s.positions.deliveredEnd(), time.Now()) // also if Next has returned it since
}
