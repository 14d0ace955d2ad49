package messagedb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

// ErrConsumerSuperseded is the error of a [CategoryCursor] whose claim is lost: another process reads on, or may.
var ErrConsumerSuperseded = errors.New("messagedb: another process has the consumer, or may have it")

// errCursorClosed is the error of a cursor after its end.
var errCursorClosed = errors.New("messagedb: the cursor is closed")

// CategoryCursor is a consumer of a category that its caller reads, and whose position its caller saves: messages may be handled side by side, and more be read
// meanwhile. One process at a time has it. Next is for one goroutine; Save, Done and Close may be called by others at any time.
type CategoryCursor struct {
	*claim
	feed  *feed
	leave func() // unsubscribes from the notifier; does nothing without Notify
	close sync.Once

	// Of the goroutine that calls Next.
	from  int64
	at    place // behind all that was read
	delay time.Duration
}

// OpenCategory opens a consumer for a caller that leads its own loop; see [Consumer] for one that does it itself. It waits until no other process has the
// position stream, and returns a cursor behind the position that was saved last, exclusively. Handler must be nil, and ErrorPolicy and PositionInterval mean nothing
// here. Close the cursor, so that another process need not wait.
//
// Whose it is, the position stream says: its last message is a position with a run of one cursor. Each write there expects the version that this run left, so a
// process that was taken for dead, and goes on, can save nothing. A cursor that dies is superseded by one that has waited for 15 seconds, in which nothing was
// written there although messages were to be read. Nothing is written while there is nothing to read. A [Consumer] knows no claims: do not run one with the
// same position stream at the same time.
//
// Its errors are those of [Consumer.Run], and that of ctx if it ends. A store that has gone back behind the position is a [*RewoundError], or is read from its first
// message with [RewindRestart].
func (c *Client) OpenCategory(ctx context.Context, config ConsumerConfig) (*CategoryCursor, error) {
	if config.Handler != nil {
		return nil, newInvalidError(FieldHandler, "a function", "must be nil: the cursor's caller handles the messages")
	}
	consumer, err := c.NewConsumer(config)
	if err != nil {
		return nil, err
	}
	f := c.categoryFeed(consumer.config.Category, consumer.options)
	if err := c.prepareFeed(f, consumer.config.Polling); err != nil {
		return nil, err
	}
	f.onError = consumer.config.Retried
	cursor := &CategoryCursor{claim: newClaim(consumer), feed: f, leave: func() {}}
	err = cursor.acquireClaim(ctx)
	if err == nil {
		err = cursor.findStart(ctx)
	}
	if err != nil {
		cursor.releaseClaim() // it may have been written
		return nil, err
	}
	if config.Notify {
		f.woken, cursor.leave = c.notifier.addWaiter(consumer.config.Category)
	}
	cursor.renewing.Go(cursor.keepRenewed)
	return cursor, nil
}

// findStart finds the place behind what was handled, and sees that the store still has it.
func (c *CategoryCursor) findStart(ctx context.Context) error {
	consumer := c.consumer
	retried := consumer.reportRetry
	err := retryTransient(ctx, retried, func(ctx context.Context) (err error) {
		c.at, _, err = consumer.findBeginning(ctx, c.saved)
		return err
	})
	if err == nil && c.at.position > 0 {
		err = retryTransient(ctx, retried, func(ctx context.Context) error { return c.feed.check(ctx, c.at) })
	}
	if errors.As(err, new(*RewoundError)) && consumer.config.Rewind == RewindRestart {
		consumer.warnOfRewind(err)
		c.at, err = place{position: -1}, nil
	}
	c.from = max(c.at.position+1, 0)
	return err
}

// Next waits for messages and returns those that follow, BatchSize at most: those of a stream in their order. It gets over what passes.
//
// It returns an error with [ErrConsumerSuperseded] where another process has the consumer, or may have it, because the claim could not be renewed for ten seconds, and
// a [*RewoundError] where the store has gone back, whatever the policy is. The cursor is at its end then: what was not saved comes again from the next one.
// [OpenCategory] follows the policy. Other errors are those of [Consumer.Run], and that of ctx if it ends.
func (c *CategoryCursor) Next(ctx context.Context) ([]*Message, error) {
	ctx, leave := c.whileOwned(ctx)
	defer leave()
	for {
		c.feed.awaitMore(ctx, c.delay)
		messages, err := c.feed.fetchBatch(ctx, c.from, c.at)
		if err == nil && len(messages) > 0 {
			err = c.recordGiven(ctx, messages[len(messages)-1])
		}
		if err != nil {
			if errors.As(err, new(*RewoundError)) {
				c.lose(err)
			}
			return nil, c.explainEnd(ctx, err)
		}
		c.delay = c.feed.polling(len(messages), c.feed.batch)
		if len(messages) > 0 {
			return messages, nil
		}
	}
}

// recordGiven notes what is about to be returned. While there was nothing to read, the claim was not renewed, and another process may have it.
func (c *CategoryCursor) recordGiven(ctx context.Context, last *Message) error {
	for c.measureAge() > c.lasts/3 {
		if err := retryTransient(ctx, c.consumer.reportRetry, c.renewOnce); err != nil {
			return err
		}
	}
	c.at = place{last.GlobalPosition, last.ID}
	c.from = c.at.position + 1
	c.setGiven(c.at)
	return nil
}

// Save saves the position of a message that Next has returned: it and all before it have been handled, and do not come again. It gets over what passes, until ctx
// ends; then the position may be saved or not, which the next call finds out. It returns an error with [ErrConsumerSuperseded] as Next does.
func (c *CategoryCursor) Save(ctx context.Context, m *Message) error {
	ctx, leave := c.whileOwned(ctx)
	defer leave()
	at := place{m.GlobalPosition, m.ID}
	err := retryTransient(ctx, c.consumer.reportRetry, func(ctx context.Context) error { return c.savePosition(ctx, at) })
	if err != nil {
		return c.explainEnd(ctx, err)
	}
	c.setSaved(at)
	return nil
}

// PositionStream is where the position is saved.
func (c *CategoryCursor) PositionStream() StreamName { return c.consumer.config.PositionStream }

// Done is closed when the claim is lost, or the cursor closed: what was read and not saved may be another process's from then on.
func (c *CategoryCursor) Done() <-chan struct{} { return c.owned.Done() }

// Close gives up the consumer, so that another process has it at once. What was not saved comes again. Other methods that run end with an error.
func (c *CategoryCursor) Close() {
	c.close.Do(func() {
		c.lose(errCursorClosed)
		c.renewing.Wait()
		c.leave()
		if errors.Is(context.Cause(c.owned), errCursorClosed) {
			c.releaseClaim()
		}
	})
}

// whileOwned is a context that ends with the claim, too.
func (c *CategoryCursor) whileOwned(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if cause := context.Cause(c.owned); cause != nil {
		cancel(cause) // which AfterFunc would do a little later
	}
	unhook := context.AfterFunc(c.owned, func() { cancel(context.Cause(c.owned)) })
	return ctx, func() { unhook(); cancel(nil) }
}

// explainEnd names the consumer, and why its claim has ended, if it has.
func (c *CategoryCursor) explainEnd(ctx context.Context, err error) error {
	if cause := context.Cause(c.owned); cause != nil {
		err = cause
	} else if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("position stream %q: %w", c.PositionStream(), err)
}

// retryTransient repeats what needs the database until it succeeds, fails for good, or ctx ends. retried is told of each error that is got over.
func retryTransient(ctx context.Context, retried func(error), do func(ctx context.Context) error) error {
	retry := backoff.New(shortestRetry, longestRetry)
	for {
		err := do(ctx)
		if err == nil || ctx.Err() != nil || !IsTransient(err) {
			return err
		}
		retried(err)
		if backoff.Pause(ctx, retry.Delay()) != nil {
			return err
		}
	}
}
