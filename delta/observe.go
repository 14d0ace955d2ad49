package delta

import (
	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// observe hands on what became of an attempt, to those that want it. As a rule nothing does, and the row is not even made.
func (c *Client) observe(attempted activities.Attempted) {
	category := categoryOf(attempted.Verdict)
	hasFailed := category == EventCategoryObjectFailed
	if !hasFailed && !c.events.wants(category) {
		return
	}
	row, err := attempted.Row()
	if err != nil {
		c.config.Logger.Error("the row of an attempt cannot be read; no event is sent", "error", err)
		return
	}
	event := Event{Resource: row, EventCategory: category, Duration: attempted.Took, Wait: attempted.Waited}
	if hasFailed {
		failure := failureOf(&attempted, row)
		event.Err = failure.Err
		c.failures.add(failure)
	}
	c.events.publish(event)
}

// observeUnlisted hands on a resource that a listing has marked deleted.
func (c *Client) observeUnlisted(read func() (*deltatype.ResourceRow, error)) {
	if !c.events.wants(EventCategoryObjectDeleted) {
		return
	}
	row, err := read()
	if err != nil {
		c.config.Logger.Error("the row of a deleted resource cannot be read; no event is sent", "error", err)
		return
	}
	c.events.send(EventCategoryObjectDeleted, row)
}

// observeInform hands on an inform that has changed nothing.
func (c *Client) observeInform(r *deltatype.ObjectInformResult) {
	switch {
	case r.Stale:
		c.events.send(EventCategoryObjectStale, r.Resource)
	case !r.Scheduled && r.Refused == nil:
		c.events.send(EventCategoryObjectSkipped, r.Resource)
	}
}
