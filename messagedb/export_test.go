package messagedb

// Kill ends Run as the death of its process would: nothing more is handled, and no position is saved.
func (c *Consumer) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.running; r != nil {
		r.dead.Store(true)
		r.cancel()
	}
}
