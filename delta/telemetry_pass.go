package delta

import (
	"context"

	"github.com/chariot-giving/delta/activities"
)

// startPassSpan begins the span of a step of a run of an informer, and returns the function that ends it.
func (c *Client) startPassSpan(ctx context.Context, step activities.PassStep, in activities.InformInput) (context.Context, func(activities.PassObservation)) {
	if c.telemetry == nil {
		return ctx, func(activities.PassObservation) {}
	}
	span := Span{Operation: OperationPass, Kind: in.Kind, Shard: in.Options.Shard}
	if step == activities.PassNamesShards {
		span.Operation = OperationShards
	}
	ctx, started := c.telemetry.startSpan(ctx, span)
	return ctx, func(o activities.PassObservation) {
		ended := SpanEnd{Duration: o.Took, Err: o.Err}
		if step == activities.PassLists {
			measured := passMeasurement(&o)
			ended.Pass = &measured
		}
		started.endSpan(ended)
	}
}

// recordPass records a pass that has ended.
func (c *Client) recordPass(o *activities.PassObservation) {
	if c.telemetry != nil {
		c.telemetry.record(context.Background(), passMeasurement(o))
	}
}

func passMeasurement(o *activities.PassObservation) PassMeasurement {
	p := o.Progress
	return PassMeasurement{
		Kind: o.Kind, Duration: o.Took, Err: o.Err,
		Listed: int64(p.Listed), New: int64(o.New), Changed: int64(p.Scheduled - o.New), Unchanged: int64(o.Unchanged),
		Stale: int64(p.Stale), Refused: int64(p.Refused), Deleted: int64(p.Deleted), Withheld: p.Withheld,
	}
}
