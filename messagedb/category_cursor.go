package messagedb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

// ErrConsumerSuperseded reports that a [CategoryCursor] has lost its claim: another process has taken over, or may have.
var ErrConsumerSuperseded = errors.New("messagedb: another process has the consumer, or may have it")

// errCursorClosed is the error of a cursor after its end.
var errCursorClosed = errors.New("messagedb: the cursor is closed")

// CategoryCursor is a consumer of a category for callers that read and save the position themselves, so that they can handle messages concurrently and read
// ahead. Only one process at a time has a cursor of a position stream. Only one goroutine may call Next; Save, Done and Close are safe for concurrent use.
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

// OpenCategory opens a consumer for a caller with a loop of its own; a [Consumer] has one built in. It waits until no other process has the position stream, and
// returns a cursor that begins after the last saved position. Handler must be nil; ErrorPolicy and PositionInterval are ignored. Close the cursor, so that
// another process can take over at once.
//
// The last message of the position stream names the run of the cursor that owns it. Each write expects the version that this run wrote last, so a process that was
// taken for dead and goes on cannot save a position. Another cursor takes over once messages have waited for 15 seconds without a write to the position stream. A
// cursor writes nothing while there is nothing to read. A [Consumer] takes no claim: do not run one with the same position stream at the same time.
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

// findStart finds the place after the last handled message, and checks that the store still has that message.
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

// Next waits for messages and returns the next ones, at most BatchSize. Messages of one stream are in order. Transient errors are retried.
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

// recordGiven records that messages up to last are about to be returned. It renews the claim first if that is old: the claim is not renewed while there is
// nothing to read, so another process may have taken it.
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

// Save saves the position of a message that Next has returned: this message and all before it are not delivered again. It retries transient errors until ctx ends.
// After that the position may or may not have been saved; the next call finds out. Like Next, it returns an error with [ErrConsumerSuperseded].
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

// Done is closed when the claim is lost or the cursor is closed. From then on another process may handle the messages that were read but not saved.
func (c *CategoryCursor) Done() <-chan struct{} { return c.owned.Done() }

// Close releases the claim, so that another process can take over at once. Messages that were not saved are delivered again. Calls of other methods that are
// still running return an error.
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

// whileOwned returns a context that also ends when the claim does.
func (c *CategoryCursor) whileOwned(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if cause := context.Cause(c.owned); cause != nil {
		cancel(cause) // which AfterFunc would do a little later
	}
	unhook := context.AfterFunc(c.owned, func() { cancel(context.Cause(c.owned)) })
	return ctx, func() { unhook(); cancel(nil) }
}

// explainEnd adds the position stream to an error. If the claim has ended, it returns the cause of that instead, since err is only a consequence.
func (c *CategoryCursor) explainEnd(ctx context.Context, err error) error {
	if cause := context.Cause(c.owned); cause != nil {
		err = cause
	} else if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("position stream %q: %w", c.PositionStream(), err)
}

// retryTransient calls do until it succeeds, fails with an error that is not transient, or ctx ends. It calls retried with each error before the next attempt.
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
