package delta

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// mostCountCost is the highest cost of counting, in the planner's units, at which an estimate counts: about a tenth of a
// second.
const mostCountCost = 10_000

// Estimate is the number of resources that match a filter, counted or estimated.
type Estimate struct {
	Count int64
	// IsExact reports whether the resources were counted.
	IsExact bool
	// IsLowerBound reports whether there may be more than Count.
	IsLowerBound bool
}

// EstimateCount returns the number of resources that match a filter, at a cost that does not grow with the table. If
// counting is cheap, it counts them, up to 10,000. Otherwise it asks Postgres' planner, which uses the latest statistics of
// the table, and may be wrong by a factor of several for a filter with more than one field. Late resources are always
// counted, up to 10,000, which reads all late ones: use a context with a deadline.
func (c *Client) EstimateCount(ctx context.Context, filter Filter) (Estimate, error) {
	estimate, err := c.estimateCount(ctx, filter)
	if err != nil {
		return Estimate{}, fmt.Errorf("delta: estimate count: %w", schemaError(err))
	}
	return estimate, nil
}

func (c *Client) estimateCount(ctx context.Context, filter Filter) (Estimate, error) {
	if err := filter.validate(); err != nil {
		return Estimate{}, err
	}
	if filter.choosesNothing() {
		return Estimate{IsExact: true}, nil
	}
	p, err := filter.queryParams()
	if err != nil {
		return Estimate{}, err
	}
	estimated := 0.0
	if !filter.Late {
		rows, cost, err := db.EstimateMatching(ctx, c.pool, db.CountMatchingResourcesParams{
			Kinds: p.Kinds, ObjectIds: p.ObjectIds, Namespaces: p.Namespaces, Shards: p.Shards, States: p.States, Tags: p.Tags, Labels: p.Labels, Error: p.Error,
			Most: MaxCounted,
		})
		if err != nil {
			return Estimate{}, err
		}
		estimated = rows
		if cost > mostCountCost {
			return Estimate{Count: int64(estimated)}, nil
		}
	}
	counted, err := c.countMatching(ctx, p, filter.Late, MaxCounted)
	switch {
	case err != nil:
		return Estimate{}, err
	case counted < MaxCounted:
		return Estimate{Count: int64(counted), IsExact: true}, nil
	case estimated > MaxCounted:
		return Estimate{Count: int64(estimated)}, nil
	}
	return Estimate{Count: MaxCounted, IsLowerBound: true}, nil
}
