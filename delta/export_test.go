package delta

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// SetTiming shortens the waits of a client. Zero leaves a value unchanged.
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

// SetDispatchTimes shortens the timeout of a dispatcher's round, and the time after which it is stuck.
func (c *Client) SetDispatchTimes(timeout, stuck time.Duration) {
	c.timing.dispatch, c.timing.stuck = timeout, stuck
}

// LookForCrowds makes each lease look for namespaces with many due rows.
func (c *Client) LookForCrowds() { c.timing.slowLease = -time.Hour }

// SetMeasureInterval shortens the interval of measurements of client and database.
func (c *Client) SetMeasureInterval(every time.Duration) { c.timing.measure = every }

// SetFiguresInterval changes the interval at which figures are written.
func (c *Client) SetFiguresInterval(every time.Duration) { c.figures.every = every }

// Poll returns the interval at which the client's dispatchers poll for due rows.
func (c *Client) Poll() time.Duration { return c.timing.poll }

// ActivitiesOf returns the activities of a kind, as a worker calls them.
func (c *Client) ActivitiesOf(installation, kind string) *activities.Activities {
	return c.kindActivities(installation, c.stopping)[kind]
}

// ResourceWorkflowID returns the workflow id of a resource, by its object's id or, if ids are hashed, by its hash.
func (c *Client) ResourceWorkflowID(kind, id string) string {
	return c.temporalNames().resourceWorkflowID(kind, id)
}

// Awaiting returns how many callers of Sync are waiting.
func (c *Client) Awaiting() int {
	c.awaiter.mu.Lock()
	defer c.awaiter.mu.Unlock()
	return len(c.awaiter.calls)
}

// WatchListing returns a function that counts the unsettled resources of a listing, as a watch of its run does, in pages of a size.
func WatchListing(pool *pgxpool.Pool, kind, pass string, size int) (look func(context.Context) (listed, unsettled int, err error)) {
	u := &unsettledCount{kind: kind, pass: pass, size: size}
	return func(ctx context.Context) (int, int, error) { return u.refreshCount(ctx, pool) }
}

// CheckSettings returns the settings of a kind that declares s.
func CheckSettings(s ObjectSettings) (ObjectSettings, error) {
	return settingsOf(saying{s}).withDefaults()
}

type saying struct{ settings ObjectSettings }

func (saying) ID() string                 { return "" }
func (saying) Kind() string               { return "saying" }
func (s saying) Settings() ObjectSettings { return s.settings }

// DecodeJSON decodes a stored object.
func DecodeJSON(encoded []byte, to any) error { return decodeJSON(encoded, to) }

// BucketOf returns the bucket of a duration.
func BucketOf(took time.Duration) int { return bucketOf(took) }

// BoundOf returns the upper bound of a bucket.
func BoundOf(bucket int) time.Duration { return boundOf(bucket) }

// Quantile returns the duration that a share of the counted ones took at most.
func Quantile(durations []int64, share float64) time.Duration {
	return estimateQuantile(durations, share)
}

// CountAttempt counts an attempt that was synced.
func (c *Client) CountAttempt(kind string, took time.Duration) {
	c.figures.countAttempt(&activities.Observation{Outcome: activities.Outcome{Verdict: activities.VerdictSynced, Took: took}, Kind: kind, Attempt: 1})
}

// InformAround runs do within the spans, measurements and carriers of an inform.
func (c *Client) InformAround(
	ctx context.Context, params []deltatype.ObjectInformParams, do func(context.Context) ([]*deltatype.ObjectInformResult, error),
) error {
	_, err := c.informInSpan(ctx, OperationInform, params, do)
	return err
}

// WorkAround runs do within the spans, measurements and carriers of a call of Work.
func (c *Client) WorkAround(ctx context.Context, row *deltatype.ResourceRow, carrier string, do func(context.Context) error) error {
	return c.callInSpan(ctx, &Call{Operation: OperationWork, Kind: row.ObjectKind, Resources: []*deltatype.ResourceRow{row}, carriers: []string{carrier}}, do)
}

// Observe records an attempt.
func (c *Client) Observe(o activities.Observation) { c.observeAttempt(o) }

// SetMostHandedBytes bounds the total size of failures that wait for the ErrorHandler.
func (c *Client) SetMostHandedBytes(bytes int) { c.failures.mostBytes = bytes }

// SetFailureWindow sets the window in which failures of a kind are counted instead of logged.
func (c *Client) SetFailureWindow(window time.Duration) { c.failures.log.window = window }

// Handed returns the total size of failures that wait for the ErrorHandler.
func (c *Client) Handed() int {
	c.failures.mu.Lock()
	defer c.failures.mu.Unlock()
	return c.failures.bytes
}
