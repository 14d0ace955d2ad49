package v1

import "time"

// SetWriting sets how long a client may take to read a piece of a snapshot.
func (h *Handler) SetWriting(d time.Duration) { h.writing = d }
