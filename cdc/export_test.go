package cdc

import "time"

// Decoder decodes messages of the server without a stream.
type Decoder struct {
	*decoder
	streamed bool
}

// NewDecoder returns an empty decoder.
func NewDecoder() *Decoder { return &Decoder{decoder: newDecoder()} }

// Decode decodes a message. It skips those that frame transactions.
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

// Name returns the server's name of the snapshot.
func (s *Snapshot) Name() string { return s.exportedName }

// TryConnection probes whether the server of a stream accepts connections.
func TryConnection(s *Stream) error { return s.probeConnection() }

// IsTransient reports whether a stream retries after an error.
func IsTransient(err error) bool { return isTransient(err) }

// Heartbeats measure the delay.
type Heartbeats struct{ of heartbeats }

// NewHeartbeats returns an empty measurement.
func NewHeartbeats() *Heartbeats { return &Heartbeats{} }

// Write records that a heartbeat was written.
func (h *Heartbeats) Write(now time.Time) { h.of.noteWritten(now) }

// Arrive records that a heartbeat has arrived behind the transaction that ends at after.
func (h *Heartbeats) Arrive(written time.Time, after LSN) { h.of.noteArrived(written, after) }

// Deliver records that Next has returned everything up to end.
func (h *Heartbeats) Deliver(end LSN, now time.Time) { h.of.noteDelivered(end, now) }

// Current returns the delay.
func (h *Heartbeats) Current(now time.Time) time.Duration { return h.of.currentDelay(now) }
