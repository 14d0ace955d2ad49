package cdc

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

// writeHeartbeats writes a heartbeat periodically until the stream ends. A failure to do so does not end the stream.
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
			s.config.Logger.Warn("cdc: a heartbeat could not be written", "slot", s.config.Slot, "error", err)
		}
	}
}

// heartbeat is the content of a heartbeat message: its slot, and when it was written by the clock of the writing
// process. Usually the same process reads it, so the difference between the clocks of two machines does not matter.
type heartbeat struct {
	slot    string
	written time.Time
}

func (h heartbeat) String() string { return h.slot + " " + strconv.FormatInt(h.written.UnixNano(), 10) }

// parseHeartbeat parses the result of String. Any user of the database can write messages, so other content is ignored.
func parseHeartbeat(text string) (h heartbeat, ok bool) {
	slot, written, found := strings.Cut(text, " ")
	nanoseconds, err := strconv.ParseInt(written, 10, 64)
	return heartbeat{slot, time.Unix(0, nanoseconds)}, found && err == nil
}

// maxOutstanding bounds the number of written heartbeats to remember, so that a silent server cannot exhaust the
// memory.
const maxOutstanding = 1024

// heartbeats measures the time of a heartbeat from the database to the caller of Next.
type heartbeats struct {
	mu sync.Mutex
	// outstanding are the times of the heartbeats that were written and have not arrived, the oldest first.
	outstanding []time.Time
	// arrived are the heartbeats that have arrived while transactions before them wait for Next, in order.
	arrived []arrivedHeartbeat
	// delay is that of the last heartbeat for which Next has returned all transactions before it.
	delay time.Duration
	// latest is when the newest heartbeat that arrived was written. After a lost connection the server sends heartbeats
	// again.
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

// noteArrived records a heartbeat that has arrived behind the transaction that ends at after.
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
	// Of several heartbeats behind one transaction, the oldest has waited longest. Keeping only that one bounds the list.
	if n := len(h.arrived); n == 0 || h.arrived[n-1].after != after {
		h.arrived = append(h.arrived, arrivedHeartbeat{after, written})
	}
}

// noteDelivered records that Next has returned all transactions up to end.
func (h *heartbeats) noteDelivered(end LSN, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.arrived) > 0 && h.arrived[0].after <= end {
		h.delay = max(1, now.Sub(h.arrived[0].written)) // zero would mean no heartbeat, even if the clock was set back
		h.arrived = h.arrived[1:]
	}
}

// currentDelay returns the delay of the last heartbeat, or the time that a later one has been on its way if that is
// more.
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

// receiveHeartbeat is called by the reader for each heartbeat.
func (s *Stream) receiveHeartbeat(h heartbeat) {
	if h.slot != s.config.Slot {
		return
	}
	s.heartbeats.noteArrived(h.written, s.positions.undeliveredEnd())
	s.heartbeats.noteDelivered(s.positions.deliveredEnd(), time.Now()) // Next may have returned the transaction in the meantime
}
