package delta

import (
	"fmt"
	"sync"
	"time"
)

const (
	// dispatchTimeout bounds one round of a dispatcher: otherwise a dead connection would block it for as long as TCP
	// waits.
	dispatchTimeout = 2 * time.Minute
	// dispatchStuck is the duration after which a round counts as hung. It is far more than dispatchTimeout, because while
	// Postgres or Temporal is away rounds fail, and do not hang.
	dispatchStuck = 3 * dispatchTimeout
	// nextTimeout bounds the query for when the next row is due.
	nextTimeout = 10 * time.Second
)

// dispatchHealth records how the rounds of a dispatcher end.
type dispatchHealth struct {
	mu sync.Mutex
	// began is when the current round began; zero between rounds.
	began time.Time
	// succeeded is when the latest successful round ended, or the dispatcher started.
	succeeded time.Time
	// failure is the error of the latest round.
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

// checkFailed returns why due rows are not dispatched; nil if the latest round succeeded.
func (h *dispatchHealth) checkFailed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failure == nil {
		return nil
	}
	return fmt.Errorf("nothing was dispatched since %s: %w", h.succeeded.UTC().Format(time.RFC3339), h.failure)
}

// checkStuck returns an error if a round takes longer than most.
func (h *dispatchHealth) checkStuck(most time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.began.IsZero() || time.Since(h.began) <= most {
		return nil
	}
	return fmt.Errorf("it is stuck since %s", h.began.UTC().Format(time.RFC3339))
}
