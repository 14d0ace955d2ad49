package db

import (
	"context"
	"encoding/json"
	"fmt"
)

// plan is a part of EXPLAIN's answer.
type plan struct {
	NodeType  string  `json:"Node Type"`
	TotalCost float64 `json:"Total Cost"`
	PlanRows  float64 `json:"Plan Rows"`
	Plans     []plan
}

// EstimateMatching asks the planner how many resources CountMatchingResources would count without its bound, and the
// cost of counting them. It reads no resource, so the answer is as good as the statistics of the table.
func EstimateMatching(ctx context.Context, conn DBTX, p CountMatchingResourcesParams) (rows, cost float64, err error) {
	var explained []byte
	err = plannedEachTime{conn}.QueryRow(ctx, "EXPLAIN (FORMAT JSON) "+countMatchingResources,
		p.Kinds, p.ObjectIds, p.Namespaces, p.Shards, p.States, p.Tags, p.Labels, p.Error, p.Most).Scan(&explained)
	if err != nil {
		return 0, 0, err
	}
	var statements []struct{ Plan plan }
	if err := json.Unmarshal(explained, &statements); err != nil {
		return 0, 0, err
	}
	for _, s := range statements {
		if rows, ok := s.Plan.rowsOfLimit(); ok {
			return rows, s.Plan.TotalCost, nil
		}
	}
	return 0, 0, fmt.Errorf("the plan of a count has no limit: %s", explained)
}

// rowsOfLimit returns how many rows a limit takes from.
func (p plan) rowsOfLimit() (rows float64, ok bool) {
	for _, below := range p.Plans {
		if p.NodeType == "Limit" {
			return below.PlanRows, true
		}
		if rows, ok := below.rowsOfLimit(); ok {
			return rows, true
		}
	}
	return 0, false
}
