package delta

import (
	"context"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// observeAttempt passes the outcome of an attempt to figures, telemetry, events and failures. Mostly none needs the row, so
// it is not decoded.
func (c *Client) observeAttempt(o activities.Observation) {
	if o.IsUnwritten {
		c.observeSuperseded(&o)
		return
	}
	c.figures.countAttempt(&o)
	c.recordAttempt(&o)
	category := categoryOf(o.Verdict)
	hasFailed := category == EventCategoryObjectFailed
	if !hasFailed && !c.events.wantsCategory(category) {
		return
	}
	row, err := c.observedRow(&o)
	if err != nil {
		c.logUndecodable(&o, err)
		return
	}
	event := Event{Resource: row, EventCategory: category, Duration: o.Took, Wait: o.Waited}
	if hasFailed {
		failure := failureOf(&o, row)
		event.Err = failure.Err
		c.failures.add(failure)
	}
	c.events.publish(event)
}

// observeSuperseded passes on a failure that was not written to the row. It is no event, and metrics count only written
// outcomes.
func (c *Client) observeSuperseded(o *activities.Observation) {
	row, err := c.observedRow(o)
	if err != nil {
		c.logUndecodable(o, err)
		return
	}
	c.failures.add(failureOf(o, row))
}

// observedRow returns the row of an outcome, with its object decoded. The client may be stopping, which must not leave an
// event with the stored form.
func (c *Client) observedRow(o *activities.Observation) (*deltatype.ResourceRow, error) {
	row, err := o.Row()
	if err == nil {
		c.decodeRow(context.WithoutCancel(c.stopping), row)
	}
	return row, err
}

// logUndecodable logs that the row of an outcome cannot be read.
func (c *Client) logUndecodable(o *activities.Observation, err error) {
	c.config.Logger.Error("a row cannot be read: no event is sent, and no failure is given to the ErrorHandler",
		"kind", o.Kind, "namespace", o.Namespace, "generation", o.Generation, "attempt", o.Attempt, "attempt_error", o.Error, "error", err)
}

// observeInform sends the event of an inform that has changed nothing.
func (c *Client) observeInform(r *deltatype.ObjectInformResult) {
	switch {
	case r.Stale:
		c.events.publishRow(EventCategoryObjectStale, r.Resource)
	case !r.Scheduled && r.Refused == nil:
		c.events.publishRow(EventCategoryObjectSkipped, r.Resource)
	}
}

// observePass passes on the end of a pass of an informer.
func (c *Client) observePass(p activities.PassObservation) {
	if p.Err != nil {
		c.failures.add(failureOfPass(&p))
	}
	c.recordPass(&p)
}
