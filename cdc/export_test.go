package cdc

import "time"

// Decoder is for tests of what the server sends, without a stream.
type Decoder struct {
	*decoder
	streamed bool
}

// NewDecoder makes one.
func NewDecoder() *Decoder { return &Decoder{decoder: newDecoder()} }

// Decode decodes one message; it passes over the frames of transactions.
func (d *Decoder) Decode(data []byte) ([]*Change, error) {
	if len(data) > 0 {
		switch data[0] {
		case messageStreamStart:
			d.streamed = true
			return nil, nil
		case messageStreamStop:
			d.streamed = false
			return nil, nil
		case messageBegin, messageCommit, messageOrigin, messageStreamCommit, messageStreamAbort:
			return nil, nil
		}
	}
	return d.decode(nil, data, 0, 0, d.streamed)
}

// Name is what the server calls a snapshot.
func (s *Snapshot) Name() string { return s.exportedName }

// TryConnection looks whether the server of a stream takes connections.
func TryConnection(s *Stream) error { return s.probeConnection() }

// IsPassing reports whether a stream tries again after an error.
func IsPassing(err error) bool { return isTransient(err) }

// Heartbeats measure the delay.
type Heartbeats struct{ of heartbeats }

// NewHeartbeats has seen none.
func NewHeartbeats() *Heartbeats { return &Heartbeats{} }

// Write notes one that is on its way.
func (h *Heartbeats) Write(now time.Time) { h.of.noteWritten(now) }

// Arrive notes one that came back.
func (h *Heartbeats) Arrive(written time.Time, after LSN) { h.of.noteArrived(written, after) }

// Deliver notes what Next has returned.
func (h *Heartbeats) Deliver(end LSN, now time.Time) { h.of.noteDelivered(end, now) }

// Current is the delay.
func (h *Heartbeats) Current(now time.Time) time.Duration { return h.of.currentDelay(now) }
