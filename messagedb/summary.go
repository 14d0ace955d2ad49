package messagedb

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// View is one of the store's summary views. Each counts all messages of the store: none is for every day.
type View string

// The views, by what they group messages by.
const (
	StreamSummary       View = "stream_summary"
	TypeSummary         View = "type_summary"
	StreamTypeSummary   View = "stream_type_summary"
	TypeStreamSummary   View = "type_stream_summary"
	CategoryTypeSummary View = "category_type_summary"
	TypeCategorySummary View = "type_category_summary"
)

// columns are the view's, in the order of the fields of SummaryRow; empty for a view that does not exist.
var viewColumns = map[View]string{
	StreamSummary:       "stream_name, '', ''",
	TypeSummary:         "'', '', type",
	StreamTypeSummary:   "stream_name, '', type",
	TypeStreamSummary:   "stream_name, '', type",
	CategoryTypeSummary: "'', category, type",
	TypeCategorySummary: "'', category, type",
}

// SummaryRow is one row of a view. What the view does not group by is empty.
type SummaryRow struct {
	Stream   StreamName
	Category string
	Type     string
	// Messages is how many there are.
	Messages int64
	// Percent is their share of all messages, rounded to two digits by the server.
	Percent float64
}

// Summary reads a view, in its own order. It returns an [*InvalidError] if there is no such view.
func (c *Client) Summary(ctx context.Context, view View) ([]SummaryRow, error) {
	if err := c.checkUsable(); err != nil {
		return nil, err
	}
	columns, ok := viewColumns[view]
	if !ok {
		return nil, newInvalidError(FieldView, view, fmt.Sprintf("must be one of %v", Views()))
	}
	about := call{doing: "reading " + string(view)}
	if err := c.refuseFiltered(ctx, about); err != nil {
		return nil, err
	}
	rows, err := c.db.Query(ctx, "SELECT "+columns+", message_count, percent::float8 FROM "+pgx.Identifier{c.config.Schema, string(view)}.Sanitize())
	if err != nil {
		return nil, c.explainError(err, about)
	}
	summary, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r SummaryRow, err error) {
		return r, row.Scan((*string)(&r.Stream), &r.Category, &r.Type, &r.Messages, &r.Percent)
	})
	return summary, c.explainError(err, about)
}

// Views are the names of all views.
func Views() []View {
	var all []View
	for v := range viewColumns {
		all = append(all, v)
	}
	slices.Sort(all)
	return all
}
