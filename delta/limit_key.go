package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
)

// LimitKeyStatus is the status of the limit key of a resource ([ObjectWithLimitKey]).
type LimitKeyStatus struct {
	Key string
	// Concurrency and Rate are the limits of the kind; 0 for none.
	Concurrency int
	Rate        float64
	// Running is how many resources have a slot of the key: claimed, or about to be. Waiting is how many wait for one, of
	// the first 10,000.
	Running, Waiting int64
	// WaitsSince is since when the resource itself waits; nil if it does not.
	WaitsSince *time.Time
}

// LimitKey returns the status of the limit key of a resource; nil if the resource has none, or does not exist.
func (c *Client) LimitKey(ctx context.Context, kind, objectID string) (*LimitKeyStatus, error) {
	row, err := db.New().KeyOf(ctx, c.pool, db.KeyOfParams{Kind: kind, ObjectID: objectID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("delta: limit key: %w", schemaError(err))
	}
	status := &LimitKeyStatus{
		Key: *row.LimitKey, Concurrency: int(row.Concurrency), Rate: row.Rate, Running: row.Running, Waiting: row.Waiting,
	}
	if row.Waits {
		status.WaitsSince = db.UTC(row.QueuedAt)
	}
	return status, nil
}
