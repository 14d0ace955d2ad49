package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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

// Filter chooses resources. Within a field any value matches, except for Tags and Labels, which must all match. A field
// that is nil matches everything. A field that is empty and not nil matches nothing, so that a computed list that came out
// empty chooses nothing.
type Filter struct {
	// Kinds, ObjectIDs, Namespaces, Shards ([ObjectWithShard]) and States: the resource has one of the values. No shard
	// matches a resource without one.
	Kinds      []string
	ObjectIDs  []string
	Namespaces []string
	Shards     []string
	States     []deltatype.ResourceState
	// Tags must all be among its tags.
	Tags []string
	// Labels must all be members of its Metadata, by name and value.
	Labels map[string]string
	// Error is a text, 1000 bytes at most, that the latest error of a resource must contain literally. Only failing
	// resources match: degraded ones, those that wait for a retry or are being retried, and deleted ones whose Finalize has
	// failed. Empty matches everything, failing or not.
	Error string
	// Late chooses resources whose next step is more than a minute overdue, or whose worker was lost that long ago, as
	// [KindStatus].Late counts them.
	Late bool
	// All confirms that a filter with no other field, or only with States, is meant to choose everything.
	// [Client.DeleteAll] requires it.
	All bool
}

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
	return got.Resource.Row()
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
	placed, err := c.listPositioned(ctx, filter, SortMade, false, page.Limit, &sortPosition{id: page.After})
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

func (f Filter) validate() error {
	if f.All && f.isNarrowed() {
		return inputError("All", f.All, "must not be set together with fields that choose, other than States")
	}
	for _, state := range f.States {
		if !slices.Contains(deltatype.ResourceStates(), state) {
			var all []string
			for _, s := range deltatype.ResourceStates() {
				all = append(all, string(s))
			}
			return inputError("States", string(state), "must be one of %s", strings.Join(all, ", "))
		}
	}
	for _, shard := range f.Shards {
		if err := checkShard("Shards", shard); err != nil {
			return err
		}
	}
	if len(f.Error) > maxErrorFilter {
		return inputError("Error", fmt.Sprintf("%d bytes", len(f.Error)), "must have at most %d bytes", maxErrorFilter)
	}
	labels := slices.Concat(slices.Collect(maps.Keys(f.Labels)), slices.Collect(maps.Values(f.Labels)))
	for field, values := range map[string][]string{
		"Kinds": f.Kinds, "ObjectIDs": f.ObjectIDs, "Namespaces": f.Namespaces, "Tags": f.Tags, "Labels": labels, "Error": {f.Error},
	} {
		for _, value := range values {
			if err := checkText(field, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f Filter) encodeLabels() ([]byte, error) {
	if f.Labels == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(f.Labels)
}

// isOfFew reports whether only failing or late resources match: an index finds these, so they can be sorted in any order.
func (f Filter) isOfFew() bool {
	return f.Late || f.Error != "" || len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s deltatype.ResourceState) bool {
		return s != deltatype.ResourceStateDegraded && s != deltatype.ResourceStateFailed
	})
}

// choosesNothing reports whether a field matches nothing.
func (f Filter) choosesNothing() bool {
	return isEmptyList(f.Kinds) || isEmptyList(f.ObjectIDs) || isEmptyList(f.Namespaces) || isEmptyList(f.Shards) || isEmptyList(f.States) || isEmptyList(f.Tags) ||
		(f.Labels != nil && len(f.Labels) == 0)
}

func isEmptyList[T any](list []T) bool { return list != nil && len(list) == 0 }

// choosesAll reports whether a filter chooses everything in some states.
func (f Filter) choosesAll(states []deltatype.ResourceState) bool {
	if f.isNarrowed() {
		return false
	}
	return f.States == nil || !slices.ContainsFunc(states, func(s deltatype.ResourceState) bool { return !slices.Contains(f.States, s) })
}

// isNarrowed reports whether a field other than States is set.
func (f Filter) isNarrowed() bool {
	return f.Kinds != nil || f.ObjectIDs != nil || f.Namespaces != nil || f.Shards != nil || f.Tags != nil || f.Labels != nil || f.Error != "" || f.Late
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
