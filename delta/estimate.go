package delta

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// mostCountCost is what counting may cost, in the planner's units, for an estimate to count: about a tenth of a second.
const mostCountCost = 10_000

// Estimate says how many resources match a filter.
type Estimate struct {
	Count int64
	// IsExact reports that the resources were counted.
	IsExact bool
	// IsLeast reports that there are Count or more.
	IsLeast bool
}

// EstimateCount says how many resources match a filter, at a cost that does not grow with the table: where it is cheap to count them, up to 10,000, they are counted. Otherwise the
// planner of Postgres is asked, which goes by the latest statistics of the table, and may be wrong by several times for a filter of more than one field. Late ones are always counted, up
// to 10,000, which reads all late ones: give it a context with a deadline.
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
	return Estimate{Count: MaxCounted, IsLeast: true}, nil
}
