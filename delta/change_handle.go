package delta

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/backoff"
)

// consumeLog handles the log from the saved position until ctx ends.
func (r *changeRun) consumeLog(ctx context.Context) error {
	place, savedAt := r.saved, time.Now()
	for {
		page, err := r.readNextPage(ctx, place)
		switch {
		case err == nil && len(page.changes) > 0:
			err = r.handleBatch(ctx, page.changes, page.end)
			savedAt = time.Now()
		case err == nil && page.end != r.saved && !page.end.isStart() && time.Since(savedAt) > positionEvery:
			err = r.retrySavePosition(ctx, r.saved, page.end)
			savedAt = time.Now()
		}
		if err == nil && page.isEmpty {
			err = pauseChanges(ctx)
		}
		if err != nil {
			return err
		}
		place = page.end
	}
}

// readNextPage reads the page behind a position. If that is impossible without a gap, and Restart is set, it returns an
// empty page that ends before the oldest entry.
func (r *changeRun) readNextPage(ctx context.Context, place logPosition) (changePage, error) {
	page, err := r.reader.retryReadPage(ctx, place)
	if lost := new(ChangePositionError); errors.As(err, &lost) && r.Restart {
		r.client.config.Logger.Warn("a consumer of the log of changes cannot read on from its position, and begins again at the oldest entry",
			"consumer", r.Name, "member", r.Member, "error", lost)
		return changePage{isEmpty: place.isStart()}, nil // a log that was restored waits until a client has taken it over
	}
	return page, err
}

// pauseChanges waits for the poll interval of readers.
func pauseChanges(ctx context.Context) error { return backoff.Pause(ctx, changesPoll) }

// handleBatch calls the handler for a batch until it succeeds, and saves the position.
func (r *changeRun) handleBatch(ctx context.Context, changes []*Change, to logPosition) error {
	pauses := backoff.New(shortestChangesPause, longestChangesPause)
	for {
		batch := &ChangeBatch{Changes: changes, run: r, from: r.saved, to: to}
		err := r.saveHandled(ctx, batch, r.callHandler(ctx, batch))
		switch {
		case err == nil:
			r.saved = to
			return nil
		case errors.Is(err, ErrConsumerSuperseded):
			return errConsumerLost
		case ctx.Err() != nil:
			return ctx.Err()
		}
		delay := pauses.Delay()
		r.client.config.Logger.Warn("a batch of changes could not be handled; it is tried again", "consumer", r.Name, "member", r.Member,
			"changes", len(changes), "first", changes[0].Position, "error", guardError(err), "retry_in", delay)
		if err := backoff.Pause(ctx, delay); err != nil {
			return err
		}
	}
}

// positionPatience is how long a position may still be saved after the consumer was told to end, so that the batch does not
// come again.
const positionPatience = 5 * time.Second

// saveHandled saves the position of a handled batch, even if the consumer is told to end meanwhile. failed is the error of
// the handler.
func (r *changeRun) saveHandled(ctx context.Context, batch *ChangeBatch, failed error) error {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(positionPatience, cancel) })()
	switch {
	case batch.saved.Load():
		return r.checkCommitted(patient, batch, failed)
	case failed == nil:
		return r.retrySavePosition(patient, batch.from, batch.to)
	}
	return failed
}

// callHandler calls the handler. A panic is an error.
func (r *changeRun) callHandler(ctx context.Context, batch *ChangeBatch) (err error) {
	defer r.inTx.Store(false)
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic in Handle: %v\n%s", v, debug.Stack())
		}
	}()
	return r.Handle(ctx, batch)
}

// checkCommitted reads from the position in the database whether the transaction of SaveTx was committed. If it was, the
// batch is handled, whatever Handle returned.
func (r *changeRun) checkCommitted(ctx context.Context, batch *ChangeBatch, failed error) error {
	stands, err := r.readPosition(ctx)
	switch {
	case err != nil:
		return err
	case stands == batch.to:
		if failed != nil {
			r.client.config.Logger.Warn("Handle returned an error after the transaction of SaveTx was committed: the batch was handled",
				"consumer", r.Name, "member", r.Member, "error", guardError(failed))
		}
		return nil
	case stands != batch.from:
		return ErrConsumerSuperseded
	case failed == nil:
		return errors.New("Handle returned nil after SaveTx, but the transaction was not committed")
	}
	return failed
}

func (r *changeRun) readPosition(ctx context.Context) (place logPosition, err error) {
	err = r.client.retryLogQuery(ctx, "reading the position of a consumer of the log of changes failed; it is tried again", func() error {
		row, err := db.New().ChangePosition(ctx, r.client.pool, db.ChangePositionParams{
			Name: r.Name, Members: r.members, Member: r.member,
		})
		place = logPosition{row.Epoch, row.OrderXid, row.ID}
		return schemaError(err)
	})
	return place, err
}

// retrySavePosition saves a position outside a transaction. If the answer was lost, it reads the row to find out.
func (r *changeRun) retrySavePosition(ctx context.Context, from, to logPosition) error {
	err := r.client.retryLogQuery(ctx, "saving the position of a consumer of the log of changes failed; it is tried again", func() error {
		return r.savePosition(ctx, r.client.pool, from, to)
	})
	if errors.Is(err, ErrConsumerSuperseded) {
		if stands, readErr := r.readPosition(ctx); readErr != nil || stands != to {
			return errors.Join(err, readErr)
		}
		err = nil
	}
	if err == nil {
		r.saved = to
	}
	return err
}

// savePosition saves a position if this process has the claim, and the stored position is the one from which the batch was
// read.
func (r *changeRun) savePosition(ctx context.Context, conn db.DBTX, from, to logPosition) error {
	rows, err := db.New().SaveChangePosition(ctx, conn, db.SaveChangePositionParams{
		Epoch: to.epoch, OrderXid: to.xid, ID: to.id, ClaimFor: changeClaimFor, Name: r.Name,
		Members: r.members, Member: r.member, Claim: r.claim,
		FromEpoch: from.epoch, FromXid: from.xid, FromID: from.id,
	})
	if err != nil {
		return schemaError(err)
	}
	if rows == 0 {
		return ErrConsumerSuperseded
	}
	return nil
}
