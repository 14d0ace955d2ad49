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
	if filter.States == nil {
		filter.States = []deltatype.ResourceState{deltatype.ResourceStateDegraded}
	}
	return c.commandAll(ctx, activities.CommandRetry, filter, func(ctx context.Context, ids []int64, states []string) ([]db.Resource, error) {
		return db.New().RetryResources(ctx, db.Planned(c.pool, len(ids)), db.RetryResourcesParams{Ids: ids, States: states})
	}, deltatype.ResourceStateDegraded, deltatype.ResourceStateFailed)
}

// InvalidateAll has the synced resources that match a filter synced again at once, and says how many they were. Other states in
// it match none. It goes on in pages, as [Client.RetryAll] does.
func (c *Client) InvalidateAll(ctx context.Context, filter Filter) (int, error) {
	return c.commandAll(ctx, activities.CommandInvalidate, filter, func(ctx context.Context, ids []int64, _ []string) ([]db.Resource, error) {
		return db.New().InvalidateResources(ctx, db.Planned(c.pool, len(ids)), ids)
	}, deltatype.ResourceStateSynced)
}

// ReviveAll has the deleted resources that match a filter synced again, as [Client.Revive] does, and says how many they were. Other states
// in it match none. It goes on in pages, as [Client.RetryAll] does.
func (c *Client) ReviveAll(ctx context.Context, filter Filter) (int, error) {
	return c.commandAll(ctx, activities.CommandRevive, filter, func(ctx context.Context, ids []int64, _ []string) ([]db.Resource, error) {
		return db.ResourcesOf(db.New().ReviveResources(ctx, db.Planned(c.pool, len(ids)), ids))
	}, deltatype.ResourceStateDeleted)
}

// TouchAll touches the resources that match a filter, as [Client.Touch] does, and says how many they were. Those that are deleted match
// not. It goes on in pages, as [Client.RetryAll] does. A filter that chooses everything is refused, as by [Client.DeleteAll].
func (c *Client) TouchAll(ctx context.Context, filter Filter) (int, error) {
	states := undeleted()
	if err := filter.checkAll(states); err != nil {
		return 0, fmt.Errorf("delta: touch: %w", err)
	}
	return c.commandAll(ctx, activities.CommandTouch, filter, func(ctx context.Context, ids []int64, states []string) ([]db.Resource, error) {
		return db.New().TouchResources(ctx, db.Planned(c.pool, len(ids)), db.TouchResourcesParams{Ids: ids, States: states})
	}, states...)
}

// DeleteAll marks the resources that match a filter deleted, as [Client.Delete] does, and says how many they were. Those that are
// deleted already match not. It goes on in pages, as [Client.RetryAll] does. A filter that chooses everything, because no field is set, or only
// States, and those to all that there are, is refused unless it says so with All.
func (c *Client) DeleteAll(ctx context.Context, filter Filter) (int, error) {
	states := undeleted()
	if err := filter.checkAll(states); err != nil {
		return 0, fmt.Errorf("delta: delete: %w", err)
	}
	return c.commandAll(ctx, activities.CommandDelete, filter, func(ctx context.Context, ids []int64, states []string) ([]db.Resource, error) {
		rows, err := db.ResourcesOf(db.New().DeleteResources(ctx, db.Planned(c.pool, len(ids)), db.DeleteResourcesParams{
			Ids: ids, States: states, DefaultRetention: interval(c.config.DeletedResourceRetentionPeriod),
		}))
		for _, raw := range rows {
			row, err := raw.Row()
			if err != nil {
				return rows, err
			}
			c.events.send(EventCategoryObjectDeleted, row)
		}
		return rows, err
	}, states...)
}

// undeleted are all states but deleted.
func undeleted() []deltatype.ResourceState {
	return slices.DeleteFunc(deltatype.ResourceStates(), func(s deltatype.ResourceState) bool { return s == deltatype.ResourceStateDeleted })
}

// checkAll refuses a filter that chooses everything in some states, and does not say so with All.
func (f Filter) checkAll(states []deltatype.ResourceState) error {
	if f.choosesAll(states) && !f.All {
		return inputError("filter", "{}", "would choose everything: set a field, or All if that is meant")
	}
	return nil
}

// commandPage is how many resources one statement of commandAll changes.
const commandPage = 200

// commandAll does something to all resources that match a filter and are in one of some states, page by page, and wakes who
// dispatches them: what is done gives back the rows. A resource is met at most once, whatever it becomes meanwhile.
func (c *Client) commandAll(ctx context.Context, command activities.Command, filter Filter,
	do func(ctx context.Context, ids []int64, states []string) ([]db.Resource, error), allowed ...deltatype.ResourceState,
) (int, error) {
	if err := filter.check(); err != nil {
		return 0, fmt.Errorf("delta: %s: %w", command, err)
	}
	if filter.choosesNothing() {
		return 0, nil
	}
	labels, err := filter.labels()
	if err != nil {
		return 0, fmt.Errorf("delta: %s: %w", command, err)
	}
	states := slices.DeleteFunc(allowed, func(s deltatype.ResourceState) bool {
		return filter.States != nil && !slices.Contains(filter.States, s)
	})
	done, after := 0, int64(0)
	for {
		ids, err := db.New().MatchingResources(ctx, c.pool, db.MatchingResourcesParams{
			AfterID: after, States: texts(states), Kinds: orEmpty(filter.Kinds), ObjectIds: orEmpty(filter.ObjectIDs),
			Namespaces: orEmpty(filter.Namespaces), Shards: orEmpty(filter.Shards), Tags: orEmpty(filter.Tags), Labels: labels, Batch: commandPage,
		})
		if err != nil {
			return done, fmt.Errorf("delta: %s: %w", command, schemaError(err))
		}
		if len(ids) == 0 {
			return done, nil
		}
		after = ids[len(ids)-1]
		rows, err := do(ctx, ids, texts(states))
		if err != nil {
			return done, fmt.Errorf("delta: %s: %w", command, schemaError(err))
		}
		done += len(rows)
		due := map[string]int{}
		for _, row := range rows {
			due[row.Kind]++
		}
		for kind, n := range due {
			c.wakeKind(kind, n)
		}
	}
}
