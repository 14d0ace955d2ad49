package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

const (
	// MaxErrorsGrouped is how many resources [Client.ErrorGroups] reads.
	MaxErrorsGrouped = 10_000
	// maxErrorGroups is how many groups it returns.
	maxErrorGroups = 50
)

// ErrorGroup is a group of resources of a kind whose latest errors have the same words.
type ErrorGroup struct {
	// Pattern is the first line of their errors without the parts that differ between resources: "…" stands for a quoted
	// text, # for a number or an id.
	Pattern string
	// Count is the number of resources, Degraded the number of degraded ones. The others are tried again.
	Count, Degraded int64
	// FirstAt and LastAt are when the earliest and the latest of the errors were written. An earlier error of the same
	// resource does not count.
	FirstAt, LastAt time.Time
	// ObjectIDs are up to three of the resources, the latest first. Text is the error of the first of them, up to 1000
	// characters.
	ObjectIDs []string
	Text      string
}

// ErrorGroups groups the resources of a kind that are degraded, or wait to be tried again, by the text of their latest
// errors, the largest group first. It returns the 50 largest groups among the first [MaxErrorsGrouped] resources that it
// finds; read is the number of these.
func (c *Client) ErrorGroups(ctx context.Context, kind string) (groups []ErrorGroup, read int64, err error) {
	if err := checkName("kind", kind); err != nil {
		return nil, 0, fmt.Errorf("delta: error groups: %w", err)
	}
	rows, err := db.New().GroupErrors(ctx, c.pool, db.GroupErrorsParams{Kind: kind, Most: MaxErrorsGrouped, Groups: maxErrorGroups})
	if err != nil {
		return nil, 0, fmt.Errorf("delta: error groups of kind %s: %w", kind, schemaError(err))
	}
	groups = make([]ErrorGroup, len(rows))
	for i, r := range rows {
		groups[i] = ErrorGroup{
			Pattern: r.Pattern, Count: r.Count, Degraded: r.Degraded, FirstAt: r.FirstAt.UTC(), LastAt: r.LastAt.UTC(), ObjectIDs: r.ObjectIds, Text: r.Text,
		}
		read = r.Read
	}
	return groups, read, nil
}
