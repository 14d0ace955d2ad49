package delta

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	defaultPage = 100
	maxPage     = 1000
	// maxErrorFilter bounds the text of Filter.Error, in bytes.
	maxErrorFilter = 1000
)

// Page is a part of a listing.
type Page struct {
	// After is the [deltatype.ResourceRow] ID after which the page begins; 0 begins with the first.
	After int64
	// Limit is how many resources the page has at most.
	//
	// Defaults to 100; at most 1000.
	Limit int
}

// Get reads one resource. It returns [ErrNotFound] if there is none.
func (c *Client) Get(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: get: %w", err)
	}
	got, err := db.New().GetResource(ctx, c.pool, db.GetResourceParams{Kind: kind, ObjectID: objectID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("delta: get %s/%s: %w", kind, objectID, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("delta: get %s/%s: %w", kind, objectID, schemaError(err))
	}
	return c.rowOf(ctx, &got.Resource)
}

// List reads a page of matching resources, in the order of their row ids. The next page begins after the ID of the last
// one; a page with fewer than Limit is the last.
func (c *Client) List(ctx context.Context, filter Filter, page Page) ([]*deltatype.ResourceRow, error) {
	if err := setLimit("Limit", &page.Limit, defaultPage, maxPage); err != nil {
		return nil, fmt.Errorf("delta: list: %w", err)
	}
	if err := filter.validate(); err != nil {
		return nil, fmt.Errorf("delta: list: %w", err)
	}
	if filter.choosesNothing() {
		return nil, nil
	}
	placed, err := c.listPositioned(ctx, filter, SortCreated, false, page.Limit, &sortPosition{id: page.After})
	if err != nil {
		return nil, fmt.Errorf("delta: list: %w", err)
	}
	all := make([]*deltatype.ResourceRow, len(placed))
	for i, p := range placed {
		all[i] = p.row
	}
	return all, nil
}

// Count is the number of resources of a kind in a state.
type Count struct {
	Kind  string
	State deltatype.ResourceState
	Count int64
}

// Count counts resources by kind and state, in all kinds and namespaces or those of the filter; its other fields must be
// empty. It reads the whole table.
func (c *Client) Count(ctx context.Context, filter Filter) ([]Count, error) {
	for _, field := range []struct {
		name  string
		value any
		empty bool
	}{
		{"ObjectIDs", filter.ObjectIDs, len(filter.ObjectIDs) == 0},
		{"Shards", filter.Shards, len(filter.Shards) == 0},
		{"States", filter.States, len(filter.States) == 0},
		{"Tags", filter.Tags, len(filter.Tags) == 0},
		{"Labels", filter.Labels, len(filter.Labels) == 0},
		{"Error", filter.Error, filter.Error == ""},
		{"Late", filter.Late, !filter.Late},
	} {
		if !field.empty {
			return nil, fmt.Errorf("delta: count: %w", inputError(field.name, field.value, "must be empty: resources are counted by Kinds and Namespaces"))
		}
	}
	if err := filter.validate(); err != nil {
		return nil, fmt.Errorf("delta: count: %w", err)
	}
	if filter.choosesNothing() {
		return nil, nil
	}
	rows, err := c.countResources(ctx, filter)
	if err != nil {
		return nil, err
	}
	counts := make([]Count, len(rows))
	for i, row := range rows {
		counts[i] = Count{Kind: row.Kind, State: row.State, Count: row.Count}
	}
	return counts, nil
}

func (c *Client) countResources(ctx context.Context, filter Filter) ([]db.CountResourcesRow, error) {
	rows, err := db.New().CountResources(ctx, c.pool, db.CountResourcesParams{
		Kinds: orEmpty(filter.Kinds), Namespaces: orEmpty(filter.Namespaces),
	})
	if err != nil {
		return nil, fmt.Errorf("delta: count: %w", schemaError(err))
	}
	return rows, nil
}

func toStrings[T ~string](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

func orEmpty(values []string) []string {
	if values == nil {
		return []string{}
	}
	return values
}

func orZero[T any](value *T) (v T) {
	if value != nil {
		v = *value
	}
	return v
}

// Namespaces returns the namespaces that a client has configured, or whose Work has snoozed them, by name. Others have the
// defaults of the client that works their resources.
func (c *Client) Namespaces(ctx context.Context) ([]deltatype.Namespace, error) {
	rows, err := db.New().ListNamespaces(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: namespaces: %w", schemaError(err))
	}
	all := make([]deltatype.Namespace, len(rows))
	for i, n := range rows {
		all[i] = deltatype.Namespace{
			Name:                            n.Name,
			ResourceExpiry:                  orZero(n.ResourceExpiry),
			SyncedResourceRetentionPeriod:   orZero(n.SyncedRetention),
			DegradedResourceRetentionPeriod: orZero(n.DegradedRetention),
			DeletedResourceRetentionPeriod:  orZero(n.DeletedRetention),
			MaxWorkers:                      int(orZero(n.MaxWorkers)),
			RateLimit:                       orZero(n.RateLimit),
			Overridden:                      n.Overridden,
			Metadata:                        n.Metadata,
			CreatedAt:                       n.CreatedAt.UTC(),
			UpdatedAt:                       n.UpdatedAt.UTC(),
		}
	}
	return all, nil
}
