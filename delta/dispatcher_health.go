package delta

import (
	"fmt"
	"sync"
	"time"
)

const (
	// dispatchTimeout bounds one round of a dispatcher: a connection that swallows everything would hold it for as long as TCP is patient.
	dispatchTimeout = 2 * time.Minute
	// dispatchStuck is how long a round takes of which nothing is to be hoped any more. It is far more than dispatchTimeout: while Postgres or
	// Temporal are away rounds fail, and do not get stuck.
	dispatchStuck = 3 * dispatchTimeout
	// nextTimeout bounds the question when the next row is due.
	nextTimeout = 10 * time.Second
)

// dispatchHealth says how a dispatcher gets on.
type dispatchHealth struct {
	mu sync.Mutex
	// began is when the round began that is under way; zero between rounds.
	began time.Time
	// succeeded is when the latest round that succeeded ended, or the dispatcher started.
	succeeded time.Time
	// failure is that of the latest round.
	failure error
}

func (h *dispatchHealth) beginRound() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.began = time.Now()
	if h.succeeded.IsZero() {
		h.succeeded = h.began
	}
}

func (h *dispatchHealth) endRound(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.began, h.failure = time.Time{}, err
	if err == nil {
		h.succeeded = time.Now()
	}
}

// checkFailed returns why what is due is not dispatched.
func (h *dispatchHealth) checkFailed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failure == nil {
		return nil
	}
	return fmt.Errorf("nothing was dispatched since %s: %w", h.succeeded.UTC().Format(time.RFC3339), h.failure)
}

// checkStuck returns an error where a round takes longer than it may.
func (h *dispatchHealth) checkStuck(most time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.began.IsZero() || time.Since(h.began) <= most {
		return nil
	}
	return fmt.Errorf("it is stuck since %s", h.began.UTC().Format(time.RFC3339))
}
