package activities

// LoseClaims has all open claims lost, as if Postgres had not been reached in time.
func LoseClaims(c *Claims) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.open {
		k.mu.Lock()
		k.lost = true
		k.mu.Unlock()
	}
}
