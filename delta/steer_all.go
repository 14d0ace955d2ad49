package delta

import (
	"context"
	"fmt"
	"slices"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// RetryAll has the degraded resources that match a filter tried again, and says how many they were; with
// [deltatype.ResourceStateFailed] among the filter's states, also failed ones that wait. Other states in it match none. It
// goes on in pages: if it fails, those before have been taken care of.
func (c *Client) RetryAll(ctx context.Context, filter Filter) (int, error) {
	if len(filter.States) == 0 {
		filter.States = []deltatype.ResourceState{deltatype.ResourceStateDegraded}
	}
	return c.actAll(ctx, activities.ActionRetry, filter, func(ctx context.Context, ids []int64, states []string) ([]string, error) {
		return db.New().RetryResources(ctx, c.pool, db.RetryResourcesParams{Ids: ids, States: states})
	}, deltatype.ResourceStateDegraded, deltatype.ResourceStateFailed)
}

// InvalidateAll has the synced resources that match a filter synced again at once, and says how many they were. Other states in
// it match none. It goes on in pages, as [Client.RetryAll] does.
func (c *Client) InvalidateAll(ctx context.Context, filter Filter) (int, error) {
	return c.actAll(ctx, activities.ActionInvalidate, filter, func(ctx context.Context, ids []int64, _ []string) ([]string, error) {
		return db.New().InvalidateResources(ctx, c.pool, ids)
	}, deltatype.ResourceStateSynced)
}

// DeleteAll marks the resources that match a filter deleted, as [Client.Delete] does, and says how many they were. Those that are
// deleted already match not. It goes on in pages, as [Client.RetryAll] does. A filter that is empty is refused: to delete
// everything, name all kinds.
func (c *Client) DeleteAll(ctx context.Context, filter Filter) (int, error) {
	if filter.isEmpty() {
		return 0, fmt.Errorf("delta: delete: %w", inputError("filter", "{}", "must have a field: it would choose everything"))
	}
	return c.actAll(ctx, activities.ActionDelete, filter, func(ctx context.Context, ids []int64, states []string) (kinds []string, err error) {
		rows, err := db.New().DeleteResources(ctx, c.pool, db.DeleteResourcesParams{
			Ids: ids, States: states, DefaultRetention: interval(c.config.DeletedResourceRetentionPeriod),
		})
		for _, raw := range rows {
			row, err := raw.Row()
			if err != nil {
				return kinds, err
			}
			c.events.send(EventCategoryObjectDeleted, row)
			kinds = append(kinds, row.Kind)
		}
		return kinds, err
	}, slices.DeleteFunc(deltatype.ResourceStates(), func(s deltatype.ResourceState) bool { return s == deltatype.ResourceStateDeleted })...)
}

// actPage is how many resources one statement of actAll changes.
const actPage = 200

// actAll does something to all resources that match a filter and are in one of some states, page by page, and wakes who
// dispatches them: what is done gives back the kind of each. A resource is met at most once, whatever it becomes meanwhile.
func (c *Client) actAll(ctx context.Context, action activities.Action, filter Filter,
	do func(ctx context.Context, ids []int64, states []string) (kinds []string, err error), allowed ...deltatype.ResourceState,
) (int, error) {
	if err := filter.check(); err != nil {
		return 0, fmt.Errorf("delta: %s: %w", action, err)
	}
	labels, err := filter.labels()
	if err != nil {
		return 0, fmt.Errorf("delta: %s: %w", action, err)
	}
	states := slices.DeleteFunc(allowed, func(s deltatype.ResourceState) bool {
		return len(filter.States) > 0 && !slices.Contains(filter.States, s)
	})
	done, after := 0, int64(0)
	for {
		ids, err := db.New().MatchingResources(ctx, c.pool, db.MatchingResourcesParams{
			AfterID: after, States: texts(states), Kinds: orEmpty(filter.Kinds), ObjectIds: orEmpty(filter.ObjectIDs),
			Namespaces: orEmpty(filter.Namespaces), Tags: orEmpty(filter.Tags), Labels: labels, Batch: actPage,
		})
		if err != nil {
			return done, fmt.Errorf("delta: %s: %w", action, schemaError(err))
		}
		if len(ids) == 0 {
			return done, nil
		}
		after = ids[len(ids)-1]
		kinds, err := do(ctx, ids, texts(states))
		if err != nil {
			return done, fmt.Errorf("delta: %s: %w", action, schemaError(err))
		}
		done += len(kinds)
		slices.Sort(kinds)
		for _, kind := range slices.Compact(kinds) {
			c.wakeKind(kind)
		}
	}
}
