package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// deliveriesSwept is how many expired deliveries one statement removes.
const deliveriesSwept = 10_000

// Pool returns the pool that the client was made with, for transactions that [Client.InformTx] takes part in.
func (c *Client) Pool() *pgxpool.Pool { return c.pool }

// ReceiveTx records in the caller's transaction that a delivery was received at an endpoint, and reports whether it is the
// first time. A repeated delivery must have no effect: senders repeat deliveries that got no answer. The record is kept for
// the duration keep, and vanishes if the transaction rolls back. If another transaction is receiving the same delivery,
// ReceiveTx waits until that has ended.
//
// Endpoint and id are 1 to 255 bytes of UTF-8 without control characters.
func (c *Client) ReceiveTx(ctx context.Context, tx pgx.Tx, endpoint, id string, keep time.Duration) (isFirst bool, err error) {
	for _, name := range []struct{ field, value string }{{"endpoint", endpoint}, {"id", id}} {
		if name.value == "" {
			return false, fmt.Errorf("delta: receive: %w", inputError(name.field, name.value, "must not be empty"))
		}
		if err := checkKey(name.field, name.value); err != nil {
			return false, fmt.Errorf("delta: receive: %w", err)
		}
	}
	switch {
	case tx == nil:
		return false, errors.New("delta: receive: tx is nil")
	case keep <= 0:
		return false, fmt.Errorf("delta: receive: %w", inputError("keep", keep, "must be positive"))
	}
	received, err := db.New().ReceiveDelivery(ctx, tx, db.ReceiveDeliveryParams{Endpoint: endpoint, ID: id, Keep: postgresInterval(keep)})
	if err != nil {
		return false, fmt.Errorf("delta: receive: %w", schemaError(err))
	}
	return received == 1, nil
}

// TouchTx is [Client.Touch] in the caller's transaction: Work is called after the transaction commits.
func (c *Client) TouchTx(ctx context.Context, tx pgx.Tx, kind, objectID string) (*deltatype.ResourceRow, error) {
	if tx == nil {
		return nil, errors.New("delta: touch: tx is nil")
	}
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: touch: %w", err)
	}
	row, err := activities.RunCommand(ctx, tx, kind, objectID, activities.CommandTouch, c.defaultRetention())
	if err == nil {
		err = db.New().Notify(ctx, tx, []string{kind})
	}
	if err != nil {
		return nil, fmt.Errorf("delta: %w", schemaError(err))
	}
	return c.rowOf(ctx, &row)
}

// sweepDeliveries removes expired deliveries.
func (e *engine) sweepDeliveries(ctx context.Context) error {
	for {
		if n, err := db.New().SweepDeliveries(ctx, e.client.pool, deliveriesSwept); err != nil || n < deliveriesSwept {
			return err
		}
	}
}
