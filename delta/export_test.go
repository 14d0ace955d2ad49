package delta

import "time"

// SetTiming shortens what a client waits for. Zero leaves a value as it is.
func (c *Client) SetTiming(lease, poll, abandonAfter time.Duration) {
	if lease != 0 {
		c.timing.lease = lease
	}
	if poll != 0 {
		c.timing.poll = poll
	}
	if abandonAfter != 0 {
		c.timing.abandonAfter = abandonAfter
	}
}
