package delta

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// BulkCommand names a command for many resources: see [Client.CommandAll].
type BulkCommand string

// The commands for many resources. Each also has a method of [Client].
const (
	BulkRetry      BulkCommand = "retry"      // [Client.RetryAll]
	BulkInvalidate BulkCommand = "invalidate" // [Client.InvalidateAll]
	BulkTouch      BulkCommand = "touch"      // [Client.TouchAll]
	BulkDelete     BulkCommand = "delete"     // [Client.DeleteAll]
	BulkRevive     BulkCommand = "revive"     // [Client.ReviveAll]
)

// RetryAll retries the degraded resources that match a filter, and returns their number. With
// [deltatype.ResourceStateFailed] among the filter's states it also retries failed resources that wait. Other states match
// none. It works page by page: if it fails, the earlier pages are done.
func (c *Client) RetryAll(ctx context.Context, filter Filter) (int, error) {
	return c.CommandAll(ctx, BulkRetry, filter, nil)
}

// InvalidateAll syncs the synced resources that match a filter again at once, and returns their number. Other states match
// none. It works page by page, as [Client.RetryAll] does.
func (c *Client) InvalidateAll(ctx context.Context, filter Filter) (int, error) {
	return c.CommandAll(ctx, BulkInvalidate, filter, nil)
}

// ReviveAll syncs the deleted resources that match a filter again, as [Client.Revive] does, and returns their number. Other
// states match none. It works page by page, as [Client.RetryAll] does.
func (c *Client) ReviveAll(ctx context.Context, filter Filter) (int, error) {
	return c.CommandAll(ctx, BulkRevive, filter, nil)
}

// TouchAll touches the resources that match a filter, as [Client.Touch] does, and returns their number. Deleted ones do not
// match. It works page by page, as [Client.RetryAll] does. A filter that chooses everything is refused, as by
// [Client.DeleteAll].
func (c *Client) TouchAll(ctx context.Context, filter Filter) (int, error) {
	return c.CommandAll(ctx, BulkTouch, filter, nil)
}

// DeleteAll marks the resources that match a filter deleted, as [Client.Delete] does, and returns their number. Deleted
// ones do not match. It works page by page, as [Client.RetryAll] does. A filter that chooses everything, because no field
// is set, or only States, and those to all that exist, is refused unless All is set.
func (c *Client) DeleteAll(ctx context.Context, filter Filter) (int, error) {
	return c.CommandAll(ctx, BulkDelete, filter, nil)
}

// bulkPlan is how a command changes many resources.
type bulkPlan struct {
	// states are the states to which the command applies. defaultStates replace them if the filter names no states; nil
	// means all of states.
	states, defaultStates []deltatype.ResourceState
	// asksForAll is set if a filter that chooses everything must have All.
	asksForAll bool
	// apply changes rows that are in one of the states, and returns the changed ones.
	apply func(ctx context.Context, ids []int64, states []string) ([]db.Resource, error)
}

func (c *Client) planBulk(command BulkCommand) (bulkPlan, error) {
	switch command {
	case BulkRetry:
		return bulkPlan{
			states:        []deltatype.ResourceState{deltatype.ResourceStateDegraded, deltatype.ResourceStateFailed},
			defaultStates: []deltatype.ResourceState{deltatype.ResourceStateDegraded},
			apply: func(ctx context.Context, ids []int64, states []string) ([]db.Resource, error) {
				return db.New().RetryResources(ctx, db.Planned(c.pool, len(ids)), db.RetryResourcesParams{Ids: ids, States: states})
			},
		}, nil
	case BulkInvalidate:
		return bulkPlan{
			states: []deltatype.ResourceState{deltatype.ResourceStateSynced},
			apply: func(ctx context.Context, ids []int64, _ []string) ([]db.Resource, error) {
				return db.New().InvalidateResources(ctx, db.Planned(c.pool, len(ids)), ids)
			},
		}, nil
	case BulkRevive:
		return bulkPlan{
			states: []deltatype.ResourceState{deltatype.ResourceStateDeleted},
			apply: func(ctx context.Context, ids []int64, _ []string) ([]db.Resource, error) {
				return db.ResourcesOf(db.New().ReviveResources(ctx, db.Planned(c.pool, len(ids)), ids))
			},
		}, nil
	case BulkTouch:
		return bulkPlan{
			states: undeletedStates(), asksForAll: true,
			apply: func(ctx context.Context, ids []int64, states []string) ([]db.Resource, error) {
				return db.New().TouchResources(ctx, db.Planned(c.pool, len(ids)), db.TouchResourcesParams{Ids: ids, States: states})
			},
		}, nil
	case BulkDelete:
		return bulkPlan{states: undeletedStates(), asksForAll: true, apply: c.deleteResources}, nil
	}
	return bulkPlan{}, inputError("command", string(command), "must be retry, invalidate, touch, delete or revive")
}

func (c *Client) deleteResources(ctx context.Context, ids []int64, states []string) ([]db.Resource, error) {
	rows, err := db.ResourcesOf(db.New().DeleteResources(ctx, db.Planned(c.pool, len(ids)), db.DeleteResourcesParams{
		Ids: ids, States: states, DefaultRetention: postgresInterval(c.config.DeletedResourceRetentionPeriod),
	}))
	for _, raw := range rows {
		row, err := c.rowOf(ctx, &raw)
		if err != nil {
			return rows, err
		}
		c.events.publishRow(EventCategoryObjectDeleted, row)
	}
	return rows, err
}

// undeletedStates returns all states but deleted.
func undeletedStates() []deltatype.ResourceState {
	return slices.DeleteFunc(deltatype.ResourceStates(), func(s deltatype.ResourceState) bool { return s == deltatype.ResourceStateDeleted })
}

// checkAll refuses a filter that chooses everything in some states without All.
func (f Filter) checkAll(states []deltatype.ResourceState) error {
	if f.choosesAll(states) && !f.All {
		return inputError("filter", "{}", "would choose everything: set a field, or All if that is meant")
	}
	return nil
}

// commandPage is how many resources one statement of CommandAll changes.
const commandPage = 200

// CommandAll runs a command ([Client.RetryAll] and so on) for all resources that match a filter, page by page, and returns
// their number. It meets a resource at most once, even if that changes meanwhile.
//
// each, which may be nil, is called after each page with the changed rows, as they are after the command: at most 200,
// perhaps none. It is called by this goroutine. Its error ends the command before the next page, and is wrapped in the
// returned one: the number is exact then. If ctx ends instead, a page may have been committed that is not counted.
func (c *Client) CommandAll(ctx context.Context, command BulkCommand, filter Filter, each func(page []*deltatype.ResourceRow) error) (int, error) {
	done, err := c.commandAll(ctx, command, filter, each)
	if err != nil {
		return done, fmt.Errorf("delta: %s: %w", command, schemaError(err))
	}
	return done, nil
}

// CountForAll counts the resources that [Client.CommandAll] would change now, up to most: a lower number is exact.
func (c *Client) CountForAll(ctx context.Context, command BulkCommand, filter Filter, most int) (int, error) {
	if most < 1 || most > math.MaxInt32 {
		return 0, wrapCount(command, inputError("most", most, "must be between 1 and %d", math.MaxInt32))
	}
	b, err := c.planBulk(command)
	if err != nil {
		return 0, wrapCount(command, err)
	}
	chosen, err := b.matchingParams(filter)
	if err != nil || len(chosen.States) == 0 {
		return 0, wrapCount(command, err)
	}
	n, err := c.countMatching(ctx, chosen, filter.Late, most)
	return n, wrapCount(command, err)
}

func wrapCount(command BulkCommand, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("delta: count for %s: %w", command, schemaError(err))
}

// matchingParams returns the parameters of a page of the command's resources. It has no states if nothing can match.
func (b bulkPlan) matchingParams(filter Filter) (db.MatchingResourcesParams, error) {
	if b.asksForAll {
		if err := filter.checkAll(b.states); err != nil {
			return db.MatchingResourcesParams{}, err
		}
	}
	if filter.States == nil {
		filter.States = b.defaultStates
	}
	if err := filter.validate(); err != nil || filter.choosesNothing() {
		return db.MatchingResourcesParams{}, err
	}
	states := slices.DeleteFunc(slices.Clone(b.states), func(s deltatype.ResourceState) bool {
		return filter.States != nil && !slices.Contains(filter.States, s)
	})
	filter.States = states
	return filter.queryParams()
}

// commandAll is CommandAll. It wakes the dispatchers of the kinds that a page has made due.
func (c *Client) commandAll(ctx context.Context, command BulkCommand, filter Filter, each func(page []*deltatype.ResourceRow) error) (done int, err error) {
	b, err := c.planBulk(command)
	if err != nil {
		return 0, err
	}
	chosen, err := b.matchingParams(filter)
	if err != nil || len(chosen.States) == 0 {
		return 0, err
	}
	matching := matchingPages{client: c, params: chosen, isLate: filter.Late}
	for {
		ids, err := matching.next(ctx)
		if err != nil || len(ids) == 0 {
			return done, err
		}
		rows, err := b.apply(ctx, ids, chosen.States)
		if err != nil {
			return done, err
		}
		done += len(rows)
		due := map[string]int{}
		for _, row := range rows {
			due[row.Kind]++
		}
		for kind, n := range due {
			c.wakeKind(kind, n)
		}
		if each == nil {
			continue
		}
		page := make([]*deltatype.ResourceRow, len(rows))
		for i, row := range rows {
			if page[i], err = c.rowOf(ctx, &row); err != nil {
				return done, err
			}
		}
		if err := each(page); err != nil {
			return done, err
		}
	}
}
