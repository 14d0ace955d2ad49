package delta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ChangeCursor is a consumer of the log of changes that its caller reads, and whose position its caller saves: entries may
// be handled concurrently, while more are read. Next and Save may be called by two goroutines at once.
type ChangeCursor struct {
	run      *changeRun
	owned    context.Context //nolint:containedctx // it ends with the claim
	lose     context.CancelCauseFunc
	renewing sync.WaitGroup

	mu      sync.Mutex
	place   logPosition // behind all that was read
	given   ChangePosition
	waiting bool // a change that was given is not saved
	savedAt time.Time
	unsure  *logPosition // a position whose save has failed, and may have been committed
}

// errCursorClosed is the error of a cursor after its end.
var errCursorClosed = errors.New("the cursor is closed")

// OpenChanges is [Client.ConsumeChanges] for callers that read the log themselves. It waits until no other process has the
// consumer, or member of a group, and returns a cursor behind the position that was saved last. Handle must be nil. Close
// the cursor, so that another process need not wait until the claim has expired.
//
// Its errors are those of ConsumeChanges, and that of ctx if it ends.
func (c *Client) OpenChanges(ctx context.Context, consumer ChangeConsumer) (*ChangeCursor, error) {
	cursor, err := c.openChanges(ctx, consumer)
	if err != nil {
		return nil, fmt.Errorf("delta: changes: consumer %q: %w", consumer.Name, err)
	}
	return cursor, nil
}

func (c *Client) openChanges(ctx context.Context, consumer ChangeConsumer) (*ChangeCursor, error) {
	consumer, err := consumer.withDefaults()
	if err != nil {
		return nil, err
	}
	if consumer.Handle != nil {
		return nil, inputError("Handle", "a function", "must be nil: the cursor's caller handles the changes")
	}
	from, err := parseChangePosition("From", consumer.From)
	if err != nil {
		return nil, err
	}
	r := newChangeRun(c, consumer)
	if err := r.claimConsumer(ctx, from); err != nil {
		r.releaseClaim() // it may have been committed
		return nil, err
	}
	owned, lose := context.WithCancelCause(context.Background())
	cursor := &ChangeCursor{run: r, owned: owned, lose: lose, place: r.saved, savedAt: time.Now()}
	cursor.renewing.Go(func() { r.renewClaim(owned, lose) })
	return cursor, nil
}

// Next waits for entries and returns the next ones, at most [ChangeConsumer].BatchSize, those of a resource in their order.
// It retries after transient errors.
//
// It returns an error with [ErrConsumerSuperseded] if another process has the consumer, or may have it because the claim
// could not be renewed. Entries that were read and not saved come again then, from the next cursor. Its other errors are
// those of [Client.ConsumeChanges], and that of ctx if it ends.
func (c *ChangeCursor) Next(ctx context.Context) ([]*Change, error) {
	ctx, leave := c.whileOwned(ctx)
	defer leave()
	for {
		page, err := c.run.readNextPage(ctx, c.place)
		if err == nil {
			err = c.notePage(ctx, page)
		}
		if err == nil && len(page.changes) > 0 {
			return page.changes, nil
		}
		if err == nil && page.isEmpty {
			err = pauseChanges(ctx)
		}
		if err != nil {
			return nil, c.wrapError(ctx, err)
		}
	}
}

// notePage notes a page that was read. If all returned entries are saved, it moves the saved position past entries of
// others.
func (c *ChangeCursor) notePage(ctx context.Context, page changePage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.place = page.end
	if n := len(page.changes); n > 0 {
		c.given, c.waiting = page.changes[n-1].Position, true
		return nil
	}
	if c.waiting || page.end == c.run.saved || page.end.isStart() || time.Since(c.savedAt) < positionEvery {
		return nil
	}
	return c.savePosition(ctx, page.end)
}

// Save saves the position of an entry that Next has returned: that entry and all before it have been handled, and do not
// come again. It retries after transient errors until ctx ends; then the position may or may not be saved, which the next
// call finds out. It returns an error with [ErrConsumerSuperseded] as Next does.
func (c *ChangeCursor) Save(ctx context.Context, position ChangePosition) error {
	to, err := parseChangePosition("position", position)
	if err != nil {
		return fmt.Errorf("delta: changes: %w", err)
	}
	ctx, leave := c.whileOwned(ctx)
	defer leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.savePosition(ctx, to); err != nil {
		return c.wrapError(ctx, err)
	}
	if position == c.given {
		c.waiting = false
	}
	return nil
}

// savePosition saves a position. An earlier save without an answer may have been committed, so it reads the row first then.
func (c *ChangeCursor) savePosition(ctx context.Context, to logPosition) error {
	if c.unsure != nil {
		stands, err := c.run.readPosition(ctx)
		if err != nil {
			return err
		}
		if stands == *c.unsure {
			c.run.saved = stands
		}
		c.unsure = nil
	}
	err := c.run.retrySavePosition(ctx, c.run.saved, to)
	switch {
	case err == nil:
		c.savedAt = time.Now()
	case errors.Is(err, ErrConsumerSuperseded):
		c.lose(errConsumerLost)
	default:
		c.unsure = &to
	}
	return err
}

// Done is closed when the claim is lost, or the cursor closed: another process may get entries that were not saved from
// then on.
func (c *ChangeCursor) Done() <-chan struct{} { return c.owned.Done() }

// Close releases the consumer, so that another process can claim it at once. Entries that were not saved come again. Other
// running calls return an error.
func (c *ChangeCursor) Close() {
	c.lose(errCursorClosed)
	c.renewing.Wait()
	c.run.releaseClaim()
}

// whileOwned returns a context that also ends with the claim.
func (c *ChangeCursor) whileOwned(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(c.owned, func() { cancel(context.Cause(c.owned)) })
	return ctx, func() { unhook(); cancel(nil) }
}

// wrapError adds the name of the consumer, and the reason if its claim has ended.
func (c *ChangeCursor) wrapError(ctx context.Context, err error) error {
	switch cause := context.Cause(c.owned); {
	case errors.Is(cause, errConsumerLost):
		err = ErrConsumerSuperseded
	case cause != nil:
		err = cause
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return fmt.Errorf("delta: changes: consumer %q: %w", c.run.Name, err)
}
