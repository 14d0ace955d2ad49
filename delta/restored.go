package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
)

// ErrRestoredDatabase is wrapped in the error of Start if the database was restored from a backup, or is a copy of
// another: two databases in one Temporal namespace would share their workflows. [Client.AdoptRestored] or
// [Client.SeparateCopy] decides which it is.
var ErrRestoredDatabase = errors.New("the database was restored from a backup, or is a copy of another")

// chooseRestored says what to do.
const chooseRestored = "If the original's clients are stopped for good, and this database takes its place: delta restored adopt. " +
	"If the original goes on, and this is a copy beside it: delta restored separate, and another Config.WorkflowIDPrefix"

// heartbeatsEvery is after how many intervals of maintenance the heartbeat rises. Each time costs an update of a schedule.
const heartbeatsEvery = 5

// AdoptRestored makes a database that was restored from a backup take the place of its original, in the same Temporal
// namespace and with the same prefix. Stop the clients of the original first.
//
// All lifecycles are dispatched again from the rows, which calls no Work that is not due. Positions in the log of changes
// are refused from then on, with a [ChangePositionError], because the log may have gone back. Informs that came after the
// backup are lost: let informers list, or inform again.
//
// It returns [ErrOtherInstallation] if the prefix belongs to another installation by now. It may be called twice.
func (c *Client) AdoptRestored(ctx context.Context) error {
	if err := c.adoptRestored(ctx); err != nil {
		return fmt.Errorf("delta: adopt: %w", err)
	}
	return nil
}

func (c *Client) adoptRestored(ctx context.Context) error {
	e := &engine{client: c, names: c.temporalNames()}
	if err := e.readInstallation(ctx); err != nil {
		return err
	}
	if err := e.connectTemporal(ctx, retryUnavailable); err != nil {
		return err
	}
	if e.ownsTemporal {
		defer e.temporal.Close()
	}
	mark, err := e.readPrefixMark(ctx)
	if err != nil {
		return err
	}
	var place string
	err = c.changeInstallation(ctx, func(tx pgx.Tx) (err error) {
		place, err = db.New().AdoptInstallation(ctx, tx, mark.heartbeat)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the installation: %w", schemaError(err))
	}
	if err := e.redispatchAll(ctx); err != nil {
		return fmt.Errorf("dispatching all lifecycles again: %w", err)
	}
	if !mark.isOurs {
		return nil // the first client that starts marks the prefix
	}
	// This comes last: clients do not start before it, so after a failure the rest is done by adopting again.
	return retryUnanswered(ctx, func() error { return e.moveMark(ctx, place) })
}

// SeparateCopy makes a database that was restored beside its original an installation of its own, with another id. No
// client may run on it. Its clients need another [Config].WorkflowIDPrefix, or another Temporal namespace, and Start says
// so otherwise. Temporal is not asked.
//
// Resources of the copy that are due are worked like any others, so its controllers must not write to the outside world of
// the original. Positions in its log of changes are refused from then on, with a [ChangePositionError]. It may be called
// twice.
func (c *Client) SeparateCopy(ctx context.Context) error {
	if err := c.separateCopy(ctx); err != nil {
		return fmt.Errorf("delta: separate: %w", err)
	}
	return nil
}

func (c *Client) separateCopy(ctx context.Context) error {
	// The rows come first: until the installation has another id, no client starts on them.
	for after := int64(0); ; {
		page, err := db.New().LeaveWorkflows(ctx, db.Planned(c.pool, redispatchPage), db.LeaveWorkflowsParams{AfterID: after, Batch: redispatchPage})
		if err != nil {
			return fmt.Errorf("taking resources out of the workflows of the original: %w", schemaError(err))
		}
		if len(page) == 0 {
			break
		}
		for _, id := range page {
			after = max(after, id)
		}
	}
	err := c.changeInstallation(ctx, func(tx pgx.Tx) error {
		_, err := db.New().SeparateInstallation(ctx, tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the installation: %w", schemaError(err))
	}
	return nil
}

// changeInstallation changes the installation's row, and takes over the log of changes, which may come from another server.
func (c *Client) changeInstallation(ctx context.Context, change func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, c.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		_, err := db.New().AdoptChanges(ctx, tx)
		return err
	})
}

// beatHeart raises the heartbeat, and writes the one of before to Temporal. That one was committed some minutes ago, so a
// standby that is promoted has it too, even if it was a little behind.
func (e *engine) beatHeart(ctx context.Context, every time.Duration) error {
	beats, err := db.New().BeatHeart(ctx, e.client.pool, every)
	if err != nil {
		return fmt.Errorf("raising the heartbeat: %w", schemaError(err))
	}
	if len(beats) == 0 {
		return nil // another client has
	}
	mark, least := prefixMark{heartbeat: beats[0].Heartbeat, place: beats[0].Place}, beats[0].MarkedHeartbeat
	if err := retryUnanswered(ctx, func() error { return e.raiseMark(ctx, mark, least) }); err != nil {
		return err
	}
	return e.noteMarked(ctx, mark.heartbeat)
}

// noteMarked notes which heartbeat Temporal has.
func (e *engine) noteMarked(ctx context.Context, heartbeat int64) error {
	if err := db.New().NoteMarked(ctx, e.client.pool, heartbeat); err != nil {
		return fmt.Errorf("noting the heartbeat: %w", schemaError(err))
	}
	return nil
}
