package v1

import "time"

// SetWriteTimeout sets how long a client may take to read a piece of a snapshot.
func (h *Handler) SetWriteTimeout(d time.Duration) { h.writeTimeout = d }
