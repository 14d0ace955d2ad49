package messagedb

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// Handler is called with each message, one after another. Its context ends when the subscription or consumer is stopped.
// A panic counts as an error, a [*PanicError].
type Handler func(ctx context.Context, m *Message) error

// feed reads a stream or category for ever and passes its messages on. Subscriptions and consumers share it.
//
// A category is read by global position, after the last message that was read. That skips nothing: a write to
// a category holds its lock from before the position is taken until the message is visible, so positions of one category
// become visible in order. What is inserted into the table without write_message has no such promise.
type feed struct {
	name  string
	read  func(ctx context.Context, from int64) ([]*Message, error)
	place func(*Message) int64
	// check compares a place with the store; its error is a [*RewoundError] where the store has gone back behind it.
	check   func(ctx context.Context, at place) error
	checked time.Time
	batch   int
	polling Polling
	woken   <-chan struct{} // nil without notifications
	logger  *slog.Logger
	// onError is called with errors that are retried.
	onError func(error)
	// onBatch is called when all messages of a read have been handled, with their number and the number asked for.
	onBatch func(retrieved, expected int)
}

// run handles messages from a position on until the context ends, which is no error, or something fails for good. at is the last
// message that was handled.
func (f *feed) run(ctx context.Context, from int64, at place, handle func(*Message) error) error {
	for ctx.Err() == nil {
		messages, err := f.fetchBatch(ctx, from, at)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		for _, m := range messages {
			if ctx.Err() != nil {
				return nil
			}
			if err := handle(m); err != nil {
				return err
			}
			at = place{f.place(m), m.ID}
			from = at.position + 1
		}
		f.onBatch(len(messages), f.batch)
		f.awaitMore(ctx, f.polling(len(messages), f.batch))
	}
	return nil
}

// fetchBatch calls readBatch until it returns no transient error.
func (f *feed) fetchBatch(ctx context.Context, from int64, at place) (messages []*Message, err error) {
	retried := func(err error) {
		f.logger.Warn("messagedb: reading again after an error", "reading", f.name, "error", err)
		f.onError(err)
		f.checked = time.Time{} // the server may be another one, or restored
	}
	err = retryTransient(ctx, retried, func(ctx context.Context) (err error) {
		messages, err = f.readBatch(ctx, from, at)
		return err
	})
	return messages, err
}

// readBatch reads a batch, and checks that the store still has the last handled message. It checks after the read, because a message that is there
// then was there during the read. If there is nothing new, it checks every rewindInterval only.
func (f *feed) readBatch(ctx context.Context, from int64, at place) ([]*Message, error) {
	messages, err := f.read(ctx, from)
	if err != nil || at.position < 0 || len(messages) == 0 && time.Since(f.checked) < rewindInterval {
		return messages, err
	}
	if err := f.check(ctx, at); err != nil {
		return nil, err
	}
	f.checked = time.Now()
	return messages, nil
}

// awaitMore waits for d, for a notification, or for the end of ctx.
func (f *feed) awaitMore(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.woken:
	case <-ctx.Done():
	}
}

// callRecovering calls a handler and returns a panic as a [*PanicError].
func callRecovering(ctx context.Context, handle Handler, m *Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return handle(ctx, m)
}

func (c *Client) streamFeed(stream StreamName, o StreamOptions) *feed {
	return &feed{
		name:  fmt.Sprintf("stream %s", stream),
		batch: o.BatchSize,
		place: func(m *Message) int64 { return m.Position },
		read: func(ctx context.Context, from int64) ([]*Message, error) {
			o.From = from
			return c.readStream(ctx, stream, o)
		},
		check:  func(ctx context.Context, at place) error { return c.checkStream(ctx, stream, at) },
		logger: c.config.Logger,
	}
}

func (c *Client) categoryFeed(category string, o CategoryOptions) *feed {
	return &feed{
		name:  fmt.Sprintf("category %s", category),
		batch: o.BatchSize,
		place: func(m *Message) int64 { return m.GlobalPosition },
		read: func(ctx context.Context, from int64) ([]*Message, error) {
			o.From = from
			return c.readCategory(ctx, category, o)
		},
		check:  func(ctx context.Context, at place) error { return c.checkCategory(ctx, category, at) },
		logger: c.config.Logger,
	}
}
