package delta

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Sort is an order of resources.
type Sort string

// The orders. All but SortCreated are for few resources: the filter must have Late or Error, or only degraded and failed
// States, because an index of all resources in such an order would be written by each sync, twice. A page reads all
// matching resources, so use a context with a deadline.
const (
	// SortCreated is the order in which the rows were created, for any filter. All its pages cost the same.
	SortCreated Sort = "created"
	// SortChanged is by the latest of: a new generation, which an inform or a command makes, the beginning of a call of
	// Work, and a sync.
	SortChanged Sort = "changed"
	// SortDue is by when the next step is due, or until when the claim lasts. Resources without a next step are last.
	SortDue Sort = "due"
	// SortError is by the first 200 characters of the latest error: equal texts are together.
	SortError Sort = "error"
)

// Sorts returns all orders.
func Sorts() []Sort { return []Sort{SortCreated, SortChanged, SortDue, SortError} }

// SortedPage is a part of a sorted listing.
type SortedPage struct {
	// Sort is the order. Descending reverses it, for example to the newest first.
	//
	// Sort defaults to SortCreated.
	Sort       Sort
	Descending bool
	// Cursor is the Next or Previous of another page of the same filter and order; empty for the first page.
	Cursor string
	// Limit is how many resources the page has at most.
	//
	// Defaults to 100; at most 1000.
	Limit int
}

// SortedRows is a page of resources, and the cursors of the pages after and before it: empty if there is none.
type SortedRows struct {
	Rows           []*deltatype.ResourceRow
	Next, Previous string
}

// ListSorted reads a page of matching resources, in an order. A page continues from the position of a row in the order, not
// from a number of rows: a row that changes meanwhile may appear twice, or not at all, but no other.
func (c *Client) ListSorted(ctx context.Context, filter Filter, page SortedPage) (*SortedRows, error) {
	listed, err := c.listSorted(ctx, filter, page)
	if err != nil {
		return nil, fmt.Errorf("delta: list sorted: %w", err)
	}
	return listed, nil
}

func (c *Client) listSorted(ctx context.Context, filter Filter, page SortedPage) (*SortedRows, error) {
	setDefault(&page.Sort, SortCreated)
	if err := setLimit("Limit", &page.Limit, defaultPage, maxPage); err != nil {
		return nil, err
	}
	if !slices.Contains(Sorts(), page.Sort) {
		return nil, inputError("Sort", string(page.Sort), "must be made, changed, due or error")
	}
	if err := filter.validate(); err != nil {
		return nil, err
	}
	if page.Sort != SortCreated && !filter.isOfFew() {
		return nil, inputError("Sort", string(page.Sort), "needs a filter with Late, with Error, or with States of which each is degraded or failed: no index has all resources in this order")
	}
	cursor, err := decodeCursor(page.Cursor, page.Sort)
	if err != nil {
		return nil, err
	}
	if filter.choosesNothing() {
		return &SortedRows{}, nil
	}
	var after *sortPosition
	isBackwards := false
	if cursor != nil {
		after, isBackwards = &sortPosition{text: cursor.Text, at: cursor.At, id: cursor.ID}, cursor.IsBackwards
	}
	rows, err := c.listPositioned(ctx, filter, page.Sort, page.Descending != isBackwards, page.Limit+1, after)
	if err != nil {
		return nil, err
	}
	goesOn := len(rows) > page.Limit
	rows = rows[:min(len(rows), page.Limit)]
	if isBackwards {
		slices.Reverse(rows)
	}
	listed := &SortedRows{}
	for _, r := range rows {
		listed.Rows = append(listed.Rows, r.row)
	}
	if n := len(rows); n > 0 {
		if isBackwards || goesOn {
			listed.Next = encodeCursor(page.Sort, rows[n-1].sortPosition, false)
		}
		if !isBackwards && cursor != nil || isBackwards && goesOn {
			listed.Previous = encodeCursor(page.Sort, rows[0].sortPosition, true)
		}
	}
	return listed, nil
}

// sortPosition is the position of a row in an order: a text, a time and its id. Fields that an order does not need are
// empty.
type sortPosition struct {
	text string
	at   time.Time
	id   int64
}

type positionedRow struct {
	sortPosition
	row *deltatype.ResourceRow
}

// listPositioned reads resources in an order, after a position; from the beginning if that is nil. The filter was
// validated, and matches something.
func (c *Client) listPositioned(ctx context.Context, filter Filter, sort Sort, isDescending bool, limit int, after *sortPosition) ([]positionedRow, error) {
	p, err := filter.queryParams()
	if err != nil {
		return nil, err
	}
	conn := db.Planned(c.pool, maxPage)
	first := after == nil
	if first {
		after = &sortPosition{}
	}
	var rows []db.Resource
	switch batch := int32(limit); { //nolint:gosec // it is at most maxPage
	case sort != SortCreated || filter.Late:
		few, err := db.New().ListFew(ctx, conn, db.ListFewParams{
			Sort: string(sort), Descending: isDescending, Late: filter.Late, Grace: lateGrace, Longest: activities.LongestLease,
			First: first, AfterText: after.text, AfterAt: after.postgresTime(), AfterID: after.id, Batch: batch,
			Kinds: p.Kinds, ObjectIds: p.ObjectIds, Namespaces: p.Namespaces, Shards: p.Shards, States: p.States, Tags: p.Tags, Labels: p.Labels, Error: p.Error,
		})
		if err != nil {
			return nil, schemaError(err)
		}
		placed := make([]positionedRow, len(few))
		for i, f := range few {
			placed[i].sortPosition = sortPosition{text: f.KeyText, at: f.KeyAt.UTC(), id: f.Resource.ID}
			if placed[i].row, err = c.rowOf(ctx, &f.Resource); err != nil {
				return nil, err
			}
		}
		return placed, nil
	case isDescending:
		before := after.id
		if first {
			before = math.MaxInt64
		}
		rows, err = db.New().ListResourcesDescending(ctx, conn, db.ListResourcesDescendingParams{
			BeforeID: before, Batch: batch,
			Kinds: p.Kinds, ObjectIds: p.ObjectIds, Namespaces: p.Namespaces, Shards: p.Shards, States: p.States, Tags: p.Tags, Labels: p.Labels, Error: p.Error,
		})
	default:
		rows, err = db.New().ListResources(ctx, conn, db.ListResourcesParams{
			AfterID: after.id, Batch: batch,
			Kinds: p.Kinds, ObjectIds: p.ObjectIds, Namespaces: p.Namespaces, Shards: p.Shards, States: p.States, Tags: p.Tags, Labels: p.Labels, Error: p.Error,
		})
	}
	if err != nil {
		return nil, schemaError(err)
	}
	placed := make([]positionedRow, len(rows))
	for i, row := range rows {
		placed[i].id = row.ID
		if placed[i].row, err = c.rowOf(ctx, &row); err != nil {
			return nil, err
		}
	}
	return placed, nil
}

// postgresTime returns the time of the position; the epoch if the order has none, as in the statement.
func (p *sortPosition) postgresTime() time.Time {
	if p.at.IsZero() {
		return time.Unix(0, 0)
	}
	return p.at
}

// cursor is an encoded position, with its order, that callers keep.
type cursor struct {
	Sort        Sort      `json:"s"`
	IsBackwards bool      `json:"b,omitempty"`
	Text        string    `json:"t,omitempty"`
	At          time.Time `json:"a,omitzero"`
	ID          int64     `json:"i"`
}

func encodeCursor(sort Sort, p sortPosition, isBackwards bool) string {
	text, err := json.Marshal(cursor{Sort: sort, IsBackwards: isBackwards, Text: p.text, At: p.at, ID: p.id})
	if err != nil {
		panic(err) // a text, a time of Postgres and a number have JSON
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// decodeCursor returns nil for an empty cursor.
func decodeCursor(encoded string, sort Sort) (*cursor, error) {
	if encoded == "" {
		return nil, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	decoded := &cursor{}
	if err == nil {
		err = json.Unmarshal(text, decoded)
	}
	if err != nil || decoded.Sort != sort || checkText("Cursor", decoded.Text) != nil {
		return nil, inputError("Cursor", encoded, "must be one of a page of the same order")
	}
	return decoded, nil
}
