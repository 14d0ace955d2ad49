package delta

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

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

// SetDispatchTimes shortens how long a round of a dispatcher may take, and after how long it is stuck.
func (c *Client) SetDispatchTimes(timeout, stuck time.Duration) {
	c.timing.dispatch, c.timing.stuck = timeout, stuck
}

// SetMeasureInterval shortens how often client and database are measured.
func (c *Client) SetMeasureInterval(every time.Duration) { c.timing.measure = every }

// SetFiguresInterval shortens how often figures are written.
func (c *Client) SetFiguresInterval(every time.Duration) { c.figures.every = every }

// Poll is how often the client's dispatchers ask for due rows.
func (c *Client) Poll() time.Duration { return c.timing.poll }

// ActivitiesOf are those of a kind, as a worker calls them.
func (c *Client) ActivitiesOf(installation, kind string) *activities.Activities {
	return c.kindActivities(installation, c.stopping)[kind]
}

// ResourceWorkflowID is the id of the workflow of a resource, by its object's id or, where these are kept from Temporal, its hash.
func (c *Client) ResourceWorkflowID(kind, id string) string {
	return c.temporalNames().resourceWorkflowID(kind, id)
}

// Awaiting is how many callers of Sync wait for their resource to settle.
func (c *Client) Awaiting() int {
	c.awaiter.mu.Lock()
	defer c.awaiter.mu.Unlock()
	return len(c.awaiter.calls)
}

// WatchListing looks at a listing as a watch of its run does, in pages of a size.
func WatchListing(pool *pgxpool.Pool, kind, pass string, size int) (look func(context.Context) (listed, unsettled int, err error)) {
	u := &unsettledCount{kind: kind, pass: pass, size: size}
	return func(ctx context.Context) (int, int, error) { return u.refreshCount(ctx, pool) }
}

// CheckSettings gives back settings as a kind has them that says these.
func CheckSettings(s ObjectSettings) (ObjectSettings, error) {
	return settingsOf(saying{s}).withDefaults()
}

type saying struct{ settings ObjectSettings }

func (saying) ID() string                 { return "" }
func (saying) Kind() string               { return "saying" }
func (s saying) Settings() ObjectSettings { return s.settings }

// DecodeJSON decodes a stored object.
func DecodeJSON(encoded []byte, to any) error { return decodeJSON(encoded, to) }

// BucketOf is the bucket of a duration, BoundOf the upper bound of one, and Quantile the duration that a share of those counted took at most.
func BucketOf(took time.Duration) int { return bucketOf(took) }

// BoundOf is described there.
func BoundOf(bucket int) time.Duration { return boundOf(bucket) }

// Quantile is described there.
func Quantile(durations []int64, share float64) time.Duration {
	return estimateQuantile(durations, share)
}

// CountAttempt counts an attempt that was synced.
func (c *Client) CountAttempt(kind string, took time.Duration) {
	c.figures.countAttempt(&activities.Observation{Outcome: activities.Outcome{Verdict: activities.VerdictSynced, Took: took}, Kind: kind, Attempt: 1})
}

// InformAround calls what an inform of objects is within: spans, measurements, what the objects carry.
func (c *Client) InformAround(
	ctx context.Context, params []deltatype.ObjectInformParams, do func(context.Context) ([]*deltatype.ObjectInformResult, error),
) error {
	_, err := c.informInSpan(ctx, OperationInform, params, do)
	return err
}

// WorkAround calls what a call of Work is within.
func (c *Client) WorkAround(ctx context.Context, row *deltatype.ResourceRow, carrier string, do func(context.Context) error) error {
	return c.callInSpan(ctx, &Call{Operation: OperationWork, Kind: row.ObjectKind, Resources: []*deltatype.ResourceRow{row}, carriers: []string{carrier}}, do)
}

// Observe takes in an attempt.
func (c *Client) Observe(o activities.Observation) { c.observeAttempt(o) }

// SetMostHandedBytes bounds how large the failures are together that wait for the ErrorHandler.
func (c *Client) SetMostHandedBytes(bytes int) { c.failures.mostBytes = bytes }

// SetFailureWindow sets the time within which failures of a kind are in masses.
func (c *Client) SetFailureWindow(window time.Duration) { c.failures.log.window = window }

// Handed is how large the failures are together that wait for the ErrorHandler.
func (c *Client) Handed() int {
	c.failures.mu.Lock()
	defer c.failures.mu.Unlock()
	return c.failures.bytes
}
