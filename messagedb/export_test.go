package messagedb

import "time"

// Stopping reports whether Run is about to end, because Stop was called, or has ended.
func (c *Consumer) Stopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running == nil || c.running.reading.Err() != nil
}

// Kill ends Run as the death of its process would: nothing more is handled, and no position is saved.
func (c *Consumer) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.running; r != nil {
		r.dead.Store(true)
		r.cancel()
	}
}

// Explain converts an error of the server as a write does.
func (c *Client) Explain(err error) error {
	return c.explainError(err, call{doing: "writing to stream", stream: "a-1", writes: true})
}

// Cached is how many values the entity keeps.
func (e *Entity[T]) Cached() int { return e.cache.len() }

// Kill ends Run as the death of its process would.
func (p *Projector) Kill() { p.consumer.Kill() }

// SetClaim changes how long cursors of this client have a claim that they do not renew, and how long one must be silent before they take it over.
func (c *Client) SetClaim(lasts, takesAfter time.Duration) {
	c.claimLasts, c.takesAfter = lasts, takesAfter
}

// AgeClaim makes the claim of the cursor look as if it had been renewed earlier.
func (c *CategoryCursor) AgeClaim(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewed = c.renewed.Add(-by)
}
